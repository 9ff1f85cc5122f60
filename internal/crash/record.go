package crash

import (
	"time"
)

// Format is the version of the encoding that this package writes, and the only one that it reads.
const Format = 1

// Bounds of a record. What is longer is cut, visibly where it is text.
const (
	MaxEncoded = 64 << 10 // bytes of an encoded record
	MaxText    = 400      // characters of one text
	MaxName    = 120      // characters of a name or version
	MaxSteps   = 16
	MaxChoices = 8
	MaxKeys    = 6
	MaxDetails = 160 // lines of the details page
)

// Record is one failure to start. It begins when the recovery environment does, is drawn again whenever a step changes,
// and is saved so that it can be told afterwards. The zero value is a machine about which nothing is known.
type Record struct {
	Format int `json:"format"`
	// Code is what a person reads out to the help desk: CodeOf the digest of the diagnostics bundle.
	Code string `json:"code,omitempty"`
	// Time is when recovery began, by a clock that may be wrong.
	Time time.Time `json:"time,omitzero"`
	// Attempts counts the starts in a row that failed; 0 where that is not known.
	Attempts int `json:"attempts,omitempty"`
	// Starting is what the last breadcrumb says was being started. It is a fact and no accusation.
	Starting *Product `json:"starting,omitempty"`
	// Cause is the kernel's or the service manager's own line on why it stopped.
	Cause string `json:"cause,omitempty"`
	// Suspect is nil unless there is evidence.
	Suspect *Suspect `json:"suspect,omitempty"`
	Steps   []Step   `json:"steps,omitempty"`
	// FilesChanged says that something other than Keepout's own files was written. Recovery never does that.
	FilesChanged bool `json:"files_changed,omitempty"`
	// Address is where the report can be looked up; the square code on the screen leads there. It may be empty.
	Address string `json:"address,omitempty"`
	// Details are the lines of the page behind F2: the end of the panic's text, versions, addresses.
	Details []string `json:"details,omitempty"`
	// Choices is the menu. When it is not empty the machine waits for a person, and the title says so.
	Choices []Key `json:"choices,omitempty"`
	// Keys are the function keys that work now; nil means DefaultKeys.
	Keys []Key `json:"keys,omitempty"`
	// Outcome is nil as long as the story has no end.
	Outcome *Outcome `json:"outcome,omitempty"`
	// Test marks a rehearsal (keepout recovery test), which every output says first.
	Test bool `json:"test,omitempty"`
}

// Product is a provider as people know it.
type Product struct {
	ID      string `json:"id"`                // the provider's id
	Name    string `json:"name,omitempty"`    // what its vendor calls it
	Engine  string `json:"engine,omitempty"`  // version; empty where it is not known
	Content string `json:"content,omitempty"` // version; empty where it is not known
}

// Suspect is a product with the evidence against it.
type Suspect struct {
	Product
	// Reason is a sentence without a full stop at its end, such as "its content changed 4 minutes before the first
	// failed start". A suspect without one is not shown.
	Reason string `json:"reason"`
}

// Progress says how far a step is.
type Progress string

// The ways in which a step can stand.
const (
	Waiting Progress = ""        // will be done, under the condition that its text names
	Running Progress = "running" // being done now
	Done    Progress = "done"
	Failed  Progress = "failed"  // was tried, and did not succeed
	Skipped Progress = "skipped" // turned out not to be needed, or is not possible here
)

// Step is one line of what is being done and of what will be done when.
type Step struct {
	Progress Progress `json:"progress,omitempty"`
	Text     string   `json:"text"`             // "Looking for a fix from fleet.example.org"
	Detail   string   `json:"detail,omitempty"` // "attempt 2, next in 30 s"
}

// Key is a function key or a choice of the menu, and what it does.
type Key struct {
	Name string `json:"name"` // "F8"
	Text string `json:"text"` // "start without third-party security now"
}

// DefaultKeys are the keys of the recovery environment.
func DefaultKeys() []Key {
	return []Key{
		{Name: "F2", Text: "details"},
		{Name: "F8", Text: "start without third-party security now"},
		{Name: "F10", Text: "power off"},
	}
}

// Outcome is how it ended.
type Outcome struct {
	Recovered bool      `json:"recovered"` // a good boot followed
	Time      time.Time `json:"time,omitzero"`
	// Action is what brought it back, such as "acme-edr content 291 was rolled back to 290".
	Action string `json:"action,omitempty"`
	// By is who decided: "the fix 2026-07-19.1, signed by two keys of the organisation", "the local rule", "a person at
	// the machine".
	By string `json:"by,omitempty"`
}
