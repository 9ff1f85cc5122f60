package rescue

import (
	"fmt"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// known is what does not change during a visit.
type known struct {
	config settings.Config
	state  boot.State
	crumb  boot.Crumb
	panics PanicLog
	server string // its name
	digest string
	bytes  int // of the bundle
	begun  time.Time
	notes  []string // what went wrong on the way, for the details
}

// account tells a visit as a crash record: the screen, the serial line and later "keepout crash show" tell it from
// that.
func account(k *known, s *plan.State, now time.Time) *crash.Record {
	r := &crash.Record{
		Format: crash.Format, Code: crash.CodeOf(k.digest), Time: k.begun, Test: s.Test, Details: details(k, s),
	}
	if !s.Test { // what was noted last did not stop this machine
		r.Attempts, r.Cause = k.state.Failures, k.panics.Cause
	}
	if p := k.product(); p != nil && !s.Test {
		r.Starting = p
		if !k.crumb.Ready {
			r.Suspect = &crash.Suspect{Product: *p, Reason: "it was being started when the machine stopped"}
		}
	}
	r.Steps = steps(k, s, now)
	if s.Phase == plan.Menu {
		r.Choices = choices(k, s)
		r.Keys = []crash.Key{{Name: "F2", Text: "details"}}
	}
	return r
}

func (k *known) product() *crash.Product {
	if k.crumb.Provider == "" {
		return nil
	}
	return &crash.Product{
		ID: k.crumb.Provider, Name: k.config.Products[k.crumb.Provider], Engine: k.crumb.Engine, Content: k.crumb.Content,
	}
}

// What the screen says of the time after which the local rule acts.
const (
	ifNone      = "If none is found in"
	ifNoNetwork = "If there is no network in"
)

// named calls the suspect what people call it.
func (k *known) named(text string) string {
	if name := k.config.Products[k.crumb.Provider]; name != "" {
		return strings.ReplaceAll(text, k.crumb.Provider, name)
	}
	return text
}

func steps(k *known, s *plan.State, now time.Time) []crash.Step {
	out := []crash.Step{saving(k, s)}
	if s.Phase == plan.Saving {
		return out
	}
	if s.Phase == plan.Menu && s.Attempts == 0 && s.Address == "" {
		return append(out, crash.Step{Progress: crash.Skipped, Text: "Automatic repair", Detail: stopped(k, s)})
	}
	if k.config.Server != "" {
		out = append(out, connecting(s), searching(k, s, now))
	}
	switch s.Phase {
	case plan.Connecting, plan.Asking, plan.Waiting:
		rule := k.named(plan.Rule(s.Facts, "").String())
		if s.Test {
			rule = "start as usual, this is only a rehearsal"
		}
		what := ifNone
		if s.Phase == plan.Connecting {
			what = ifNoNetwork
		}
		out = append(out, crash.Step{Text: fmt.Sprintf("%s %s: %s", what, span(s.Until().Sub(now)), rule)})
	case plan.Applying:
		text := "Writing down for the next start: " + k.named(s.Remedy.String())
		out = append(out, crash.Step{Progress: crash.Running, Text: text})
	case plan.Reporting, plan.Leaving:
		out = append(out,
			crash.Step{Progress: crash.Done, Text: "Next start: " + k.named(s.Remedy.String()), Detail: s.Remedy.Why},
			crash.Step{Progress: crash.Running, Text: "Restarting"})
	case plan.Menu:
		out = append(out, crash.Step{Progress: crash.Failed, Text: "Repair", Detail: s.Trouble})
	default:
	}
	return out
}

func saving(k *known, s *plan.State) crash.Step {
	step := crash.Step{Progress: crash.Done, Text: "Diagnostics saved"}
	switch {
	case s.Phase == plan.Saving:
		step = crash.Step{Progress: crash.Running, Text: "Saving diagnostics"}
	case !s.Saved:
		step = crash.Step{Progress: crash.Failed, Text: "Diagnostics could not be saved", Detail: s.Trouble}
	case k.bytes > 0:
		step.Detail = fmt.Sprintf("%d KB", (k.bytes+1023)/1024)
	}
	return step
}

func connecting(s *plan.State) crash.Step {
	switch {
	case s.Address != "":
		return crash.Step{Progress: crash.Done, Text: "Network: wired", Detail: s.Address}
	case s.Phase == plan.Connecting:
		return crash.Step{Progress: crash.Running, Text: "Connecting to the wired network"}
	}
	return crash.Step{Progress: crash.Failed, Text: "No wired network", Detail: "Wi-Fi is not used here"}
}

func searching(k *known, s *plan.State, now time.Time) crash.Step {
	step := crash.Step{Text: "Looking for a fix from " + k.server}
	switch s.Phase {
	case plan.Asking:
		step.Progress, step.Detail = crash.Running, fmt.Sprintf("attempt %d", s.Attempts)
	case plan.Waiting:
		step.Progress = crash.Running
		step.Detail = fmt.Sprintf("attempt %d: %s; next in %s", s.Attempts, s.Trouble, span(s.Next.Sub(now)))
	case plan.Applying, plan.Reporting, plan.Leaving:
		step.Progress = crash.Skipped
		if s.Remedy.Source == plan.Server || s.Remedy.Source == plan.Test && s.Remedy.ID != "" {
			step.Progress, step.Detail = crash.Done, "found "+s.Remedy.ID
		} else if s.Attempts > 0 {
			step.Progress, step.Detail = crash.Failed, s.Trouble
		}
	case plan.Menu:
		step.Progress = crash.Failed
	default:
	}
	return step
}

func stopped(k *known, s *plan.State) string {
	if s.Facts.Unusable != "" {
		return "the disk with the boot files cannot be written: " + s.Facts.Unusable
	}
	return fmt.Sprintf("it ran %d times and the machine still did not start well", k.state.Recoveries)
}

func choices(k *known, s *plan.State) []crash.Key {
	out := []crash.Key{{Name: "F8", Text: "start without third-party security"}}
	if k.config.Server != "" && s.Facts.Unusable == "" {
		out = append(out, crash.Key{Name: "Enter", Text: "look for a fix from " + k.server + " again"})
	}
	return append(out, crash.Key{Name: "F10", Text: "power off"})
}

// span is a duration as people read it; it changes rarely enough to be drawn again.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "a moment"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", (int(d/time.Second)/10+1)*10)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int((d+time.Minute-1)/time.Minute))
	}
	return fmt.Sprintf("%d h %d min", int(d/time.Hour), int(d%time.Hour/time.Minute))
}

// panicLines is how much of a panic the details show: its end, where the cause is. A record keeps crash.MaxDetails.
const panicLines = 100

func details(k *known, s *plan.State) []string {
	out := []string{
		"Machine " + k.config.Machine + ", kernel of this environment " + k.config.Kernel,
		"Built " + k.config.Built.UTC().Format("2 January 2006"),
	}
	for _, e := range k.state.History {
		line := e.At.UTC().Format("2006-01-02 15:04:05") + "  " + e.What
		if e.Mode != "" {
			line += " (" + string(e.Mode) + ")"
		}
		if e.Why != "" {
			line += ": " + e.Why
		}
		out = append(out, line)
	}
	out = append(out, k.notes...)
	if s.Trouble != "" {
		out = append(out, "Last trouble: "+s.Trouble)
	}
	if k.panics.Text != "" {
		out = append(out, "", fmt.Sprintf("The kernel's last words (%d records):", k.panics.Count))
		lines := strings.Split(strings.TrimRight(k.panics.Text, "\n"), "\n")
		out = append(out, lines[max(0, len(lines)-panicLines):]...)
	}
	return out
}
