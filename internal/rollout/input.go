package rollout

import (
	"slices"
	"time"
)

// Kind says what happened.
type Kind uint8

// The inputs; the package comment says what each needs.
const (
	CheckIn Kind = iota + 1
	Beacon
	Lapse
	Tick
	Approve
	Pause
	Resume
	Halt
	SetCustomer
	TakeOver
	Supersede
)

// Input is one thing that happened.
type Input struct {
	Kind     Kind
	Host     Host     // CheckIn, Beacon, Lapse
	Report   Report   // CheckIn, Beacon
	By       string   // Approve, Pause, Resume, Halt: the person
	Reason   string   // Pause, Halt
	Customer Customer // SetCustomer
	Epoch    uint64   // TakeOver
}

// Host is one machine, as the driver knows it.
type Host struct {
	ID       string // attested, not claimed
	Stratum  string // kernel × distribution × provider set × hardware, as one label
	Customer string
	Pin      Pin
	Row      Row // as stored; zero when nothing is
}

// Report is what a host says in a check-in. The host's clock is not part of it: nothing here believes a host's time.
type Report struct {
	Running Digest // what is active on the channel in question
	Healthy bool   // it runs, passed its self-test and answers the canary

	// Nonce is not empty when the release is staged and verified and the host wants to activate it now. Fresh for
	// each request: a grant for an earlier nonce is worth nothing to the host any more.
	Nonce string
	// Unused: the host did not use its last grant and never will, because it was too old or not valid.
	Unused bool
	// Trying: it used its grant, and looks at the release before it lets it become active.
	Trying bool

	Incidents []Incident // since the last check-in; at most MaxIncidents are looked at
	Denied    bool       // the provider denied something in the last minute
	Vital     bool       // it wanted to deny something that the platform cannot live without
	Timeouts  bool       // verdicts were late in the last minute

	Load *Load // what running it costs; nil when not measured
}

// MaxIncidents is how many incidents of one report are looked at.
const MaxIncidents = 8

// Incident is something that must not happen.
type Incident struct {
	Gate      Gate   // Boot, Recovery, Crash, Watchdog or Denials
	Signature string // its bucket: the stack, or the last change and the reason; redacted by the host
	Release   Digest // what was active and is suspected; empty where nobody knows
}

// failed reports whether anything but a denial happened: that a provider denies is what it is there for.
func (r *Report) failed() bool {
	return slices.ContainsFunc(r.Incidents, func(in Incident) bool { return in.Gate != Denials })
}

// Load is the cost of a provider on one host.
type Load struct {
	CPU     float64 // processor time per time, 1 is one processor
	Memory  float64 // bytes
	Latency float64 // 99th percentile of a verdict, in seconds
}

// Effects is what is to be done after one step.
type Effects struct {
	Row   Row  // to be stored with the State, if
	Store bool // it changed
	Reply Reply
	Acts  []Act
}

// Reply is what a host is told.
type Reply struct {
	Do    Do
	Grant Grant         // with Activate
	To    Digest        // with RollBack
	Cause string        // with RollBack: the evidence in one line
	Wait  time.Duration // until the next check-in
	Why   Why           // why it is not told to activate
}

// Do is an instruction for a host.
type Do string

// The instructions.
const (
	Stay     Do = "stay"
	Activate Do = "activate"
	RollBack Do = "roll-back"
)

// Why is the reason why a host is not told to activate the release.
type Why string

// The reasons.
const (
	Granted        Why = ""                  // it is told, or was
	NotReady       Why = "not-ready"         // it did not ask: not staged, or not verified
	NotStarted     Why = "not-started"       // too few people approved
	RingClosed     Why = "ring-closed"       // the rings before it are not done
	RingFull       Why = "ring-full"         // W: others must report first
	RolloutPaused  Why = "paused"            // by an operator or a gate
	RolloutHalted  Why = "halted"            // the release is bad
	CustomerPaused Why = "customer-paused"   //
	Frozen         Why = "frozen"            // the customer's window
	PinnedNever    Why = "pinned-never"      //
	PinnedPrevious Why = "pinned-previous"   // N-1
	Newer          Why = "superseded"        // a newer release is being rolled out
	Failed         Why = "failed-before"     // this host went back by itself; it gets the next release
	Outside        Why = "activated-outside" // it runs the release without a grant
)

// Grant allows one host one activation. The driver signs it; the host checks nonce, epoch, digest and lifetime
// against the time in the signed reply, and refuses an epoch lower than one it has seen.
type Grant struct {
	Rollout  string        `json:"rollout"`
	Host     string        `json:"host"`
	Digest   Digest        `json:"digest"`
	Nonce    string        `json:"nonce"`
	Epoch    uint64        `json:"epoch"`
	Serial   uint64        `json:"serial"` // of the rollout, never used twice
	Issued   time.Time     `json:"issued"`
	Lifetime time.Duration `json:"lifetime"` // at most Numbers.GrantLife
}

// ActKind says what became of the rollout.
type ActKind string

// The acts.
const (
	Started   ActKind = "started"
	Opened    ActKind = "opened" // Ring
	Paused    ActKind = "paused" // Evidence, if a gate did it; Text otherwise
	Resumed   ActKind = "resumed"
	Halted    ActKind = "halted"    // Evidence, or Text: all hosts go back at their next check-in
	Completed ActKind = "completed" // the last ring is confirmed; stragglers are still granted, and watched
	Aged      ActKind = "aged"      // Text: a customer's pause is older than its limit
	Refused   ActKind = "refused"   // Text: the input was not allowed; nothing changed
)

// Act is something that became of the rollout.
type Act struct {
	Kind     ActKind   `json:"kind"`
	Ring     int       `json:"ring,omitempty"`
	Text     string    `json:"text,omitempty"`
	Evidence *Evidence `json:"evidence,omitempty"`
}
