package boot

import "fmt"

// why tells people how this boot came to be on its rung, in one line.
func (m *step) why() string {
	s := &m.s
	switch {
	case s.Once != "" && s.Mode == s.Once:
		return "a person chose it"
	case s.Next == Menu:
		return fmt.Sprintf("%s, and %s; nothing more is tried by itself", s.failures(), s.visits())
	case s.Failures > 0:
		return s.failures() + s.while()
	case s.Orders.Safe:
		return "ordered by " + orUnknown(s.Orders.Source) + reason(s.Orders.Reason)
	case s.Floor != Normal && s.Trial:
		return fmt.Sprintf("the last good boot needed %s; one rung lower is tried again", s.Floor)
	case s.Floor != Normal:
		return fmt.Sprintf("the last good boot needed %s, and less failed again", s.Floor)
	case s.Recoveries > 0:
		return "the first boot after the recovery environment"
	}
	return ""
}

func (s *State) failures() string {
	if s.Failures == 1 {
		return "the boot before did not end well"
	}
	return fmt.Sprintf("%d boots in a row did not end well", s.Failures)
}

func (s *State) visits() string {
	if s.Recoveries == 0 {
		return "there is no recovery environment"
	}
	return fmt.Sprintf("the recovery environment ran %d times", s.Recoveries)
}

func (s *State) while() string {
	switch name := s.Suspect.String(); {
	case name == "":
		return ""
	case s.Suspect.Ready:
		return "; started last: " + name
	default:
		return "; it ended while starting " + name
	}
}

func orUnknown(source string) string {
	if source == "" {
		return "nobody known"
	}
	return source
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
