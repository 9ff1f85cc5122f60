package crash

import (
	"fmt"
	"strings"
	"time"
)

// Story is a record in words, in the order in which they are told. Each output lays them out in its own way and adds
// none of its own.
type Story struct {
	Test    string   // "This is a rehearsal. …", or empty
	Title   string   // "This machine could not start (3 attempts)"
	Facts   []string // what stopped, and the cause
	Suspect string   // "Suspected: …", or that nothing points to anybody
	Reason  string   // "Reason: …"; empty where there is no suspect
	Heading string   // over the steps or the choices
	Steps   []Step
	Choices []Key
	Files   string
	Report  string // "Report 2FB4-12B9"
	Address string
	Keys    []Key
	Outcome string // empty as long as it has none
}

// Tell puts a record into words. It cleans the record first, so any record can be told.
func Tell(record *Record) Story {
	r := record.Cleaned()
	s := Story{Title: r.title(), Facts: r.facts(), Address: r.Address, Keys: r.Keys, Choices: r.Choices}
	if r.Test {
		s.Test = "This is a rehearsal. Nothing is wrong with this machine."
	}
	s.Suspect, s.Reason = r.suspicion()
	if r.Test && r.Starting == nil && r.Cause == "" && r.Suspect == nil {
		s.rehearses()
	}
	s.Heading, s.Steps = "What is happening now", r.Steps
	switch {
	case len(r.Choices) > 0:
		s.Heading = "Nothing more happens by itself. Choose what to do"
	case r.Outcome != nil:
		s.Heading = "What was done"
	case len(r.Steps) == 0:
		s.Heading = ""
	}
	s.Files = "Your files have not been changed."
	if r.FilesChanged {
		s.Files = "Files outside Keepout may have been changed; the details say which."
	}
	if r.Code != "" {
		s.Report = "Report " + r.Code
	}
	if r.Keys == nil {
		s.Keys = DefaultKeys()
	}
	s.Outcome = r.outcome()
	return s
}

// rehearses takes out of the story what a machine that did start cannot say of itself.
func (s *Story) rehearses() {
	s.Test, s.Title = "", "This is a rehearsal"
	s.Facts = []string{"Nothing is wrong with this machine.", "Somebody asked it to try its recovery environment."}
	s.Suspect = "It changes nothing, and then starts the system again."
}

func (r *Record) title() string {
	what := "This machine could not start"
	if r.Outcome != nil && r.Outcome.Recovered {
		what = "This machine could not start, and has recovered"
	}
	if len(r.Choices) > 0 {
		what = "This machine cannot start"
	}
	if r.Attempts > 0 {
		what += " (" + plural(r.Attempts, "attempt") + ")"
	}
	return what
}

func (r *Record) facts() []string {
	var out []string
	if r.Starting != nil && r.Starting.Label() != "" {
		out = append(out, "Stopped while starting: "+r.Starting.Label())
	} else {
		out = append(out, "What was being started when it stopped is not known.")
	}
	if r.Cause != "" {
		out = append(out, r.Cause)
	} else {
		out = append(out, "It left no message about the cause.")
	}
	return out
}

func (r *Record) suspicion() (suspect, reason string) {
	if r.Suspect == nil {
		return "There is no evidence against any program.", ""
	}
	return "Suspected: " + r.Suspect.Label(), "Reason: " + r.Suspect.Reason
}

func (r *Record) outcome() string {
	o := r.Outcome
	if o == nil {
		return ""
	}
	text := "It has not started well since."
	if o.Recovered {
		text = "It has started well since."
	}
	if o.Action != "" {
		text = o.Action + ". " + text
	}
	if o.By != "" {
		text += " Decided by " + o.By + "."
	}
	return text
}

// Label is a product as one line: "ACME AV 7.2, content 291". What is not known is said; a product without a name
// goes by its id. Names and versions are cut so that the end of the line, which tells versions apart, is seen. It is
// empty for the zero Product.
func (p *Product) Label() string {
	const most = 40
	name := cut(p.Name, most)
	if name == "" {
		name = cut(p.ID, most)
	}
	if name == "" {
		return ""
	}
	if p.Engine == "" && p.Content == "" {
		return name + " (version not known)"
	}
	if p.Engine != "" {
		name += " " + cut(p.Engine, most)
	} else {
		name += " (version not known)"
	}
	if p.Content != "" {
		name += ", content " + cut(p.Content, most)
	}
	return name
}

// CodeOf is the report code of a digest in hexadecimal: its first eight digits, in two groups that can be read out.
func CodeOf(digest string) string {
	if len(digest) < 8 {
		return ""
	}
	return strings.ToUpper(digest[:4] + "-" + digest[4:8])
}

// When is a time as the story tells it, or that the clock was not set.
func When(t time.Time) string {
	if t.Year() < 2020 {
		return "at a time that is not known (the clock was not set)"
	}
	return "on " + t.UTC().Format("2 January 2006 at 15:04 UTC")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
