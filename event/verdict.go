package event

import "time"

// Action is what a provider answers. The zero value is Abstain, which is neutral.
type Action uint8

// The actions. A DENY of an enforcing provider wins over any number of ALLOWs.
const (
	Abstain Action = iota
	Allow
	Deny
	// Read asks for the event again, with the descriptor: for who was given the digest only. It is no answer.
	Read
)

// String returns "abstain", "allow", "deny" or "read".
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Read:
		return "read"
	default:
		return "abstain"
	}
}

// MarshalText renders the word.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is the inverse of MarshalText; an unknown word is Abstain, as on the wire.
func (a *Action) UnmarshalText(b []byte) error {
	switch string(b) {
	case "allow":
		*a = Allow
	case "deny":
		*a = Deny
	case "read":
		*a = Read
	default:
		*a = Abstain
	}
	return nil
}

// Certain is the confidence of a vote that needs no second opinion.
const Certain = 100

// Vote is one provider's answer to one auth event.
type Vote struct {
	Action Action `json:"action"`
	// Confidence is in percent, 1 to 100; below Certain a DENY counts towards the quorum only.
	Confidence uint8  `json:"confidence"`
	Rule       string `json:"rule"`    // the signature, rule or list entry that matched; at most MaxRule bytes
	Content    string `json:"content"` // the content version that answered, the provider's own words
}

// MaxRule bounds Vote.Rule and Vote.Content, in bytes: they are untrusted and end up on a terminal.
const MaxRule = 256

// Mode says whether denials take effect, for a host or for one provider.
type Mode string

// The modes. A host is in monitor or enforce; a provider is in audit or enforce.
const (
	Monitor Mode = "monitor"
	Enforce Mode = "enforce"
	Audit   Mode = "audit"
)

// Outcome is the verdict in one word.
type Outcome string

// The outcomes. Timeout and Unavailable mean that a failure policy decided because a vote was missing.
const (
	Allowed     Outcome = "ALLOWED"
	Denied      Outcome = "DENIED"
	WouldDeny   Outcome = "WOULD_DENY"
	Timeout     Outcome = "TIMEOUT"
	Unavailable Outcome = "UNAVAILABLE"
)

// Reason says which rule of the platform produced the verdict.
type Reason string

// The reasons. Those before ReasonVoted are given without asking anybody.
const (
	ReasonSelf       Reason = "self"              // the platform's own process
	ReasonProvider   Reason = "provider"          // a provider's process
	ReasonVital      Reason = "vital"             // the vital set is never denied
	ReasonPair       Reason = "exec-pair"         // the open half of an exec that was just judged
	ReasonScope      Reason = "out-of-scope"      // not below a watched path
	ReasonKind       Reason = "not-a-file"        // directory, device or pipe
	ReasonRemote     Reason = "remote-filesystem" // FUSE or network: contents cannot be pinned down
	ReasonVanished   Reason = "vanished"          // the object could not be identified any more
	ReasonOverload   Reason = "overload"          // the bound on questions in flight was reached
	ReasonNobody     Reason = "no-subscriber"     // nobody asked to see this object
	ReasonVoted      Reason = "voted"             // every awaited provider voted
	ReasonDenied     Reason = "denied"            // an enforcing provider denied
	ReasonQuorum     Reason = "quorum"            // enough unsure denials agreed
	ReasonAllowance  Reason = "allowance"         // denied, but an administrator allowed this digest
	ReasonDeadline   Reason = "deadline"          // at least one vote was missing at 80 % of its budget
	ReasonLost       Reason = "provider-lost"     // at least one awaited provider died
	ReasonNoCredit   Reason = "no-credit"         // at least one awaited provider's queue was full
	ReasonBypassed   Reason = "bypassed"          // an awaited provider missed too often and is not waited for
	ReasonRemembered Reason = "remembered"        // all had voted on this very object before; of a ballot: it had
	ReasonProbe      Reason = "probe"             // of a ballot: a bypassed provider voted on a copy, without effect
	ReasonShutdown   Reason = "shutdown"          // the platform is stopping
	ReasonUndecoded  Reason = "undecodable-vote"  // an unknown action or enum counts as abstain
	ReasonCancelled  Reason = "cancelled"         // decided before this provider answered
	ReasonOnlyAudit  Reason = "audit-only"        // only audit providers subscribe: nobody is waited for
)

// Ballot is one provider's part in a verdict.
type Ballot struct {
	Provider string        `json:"provider"`
	Mode     Mode          `json:"mode"`
	Vote     Vote          `json:"vote"`
	Counted  bool          `json:"counted"` // the vote arrived in time
	Reason   Reason        `json:"reason"`  // why it was not counted, or ReasonVoted
	Latency  time.Duration `json:"latency_ns"`
}

// Verdict is the platform's decision on one event and everything that led to it.
type Verdict struct {
	Outcome   Outcome       `json:"outcome"`
	Allowed   bool          `json:"allowed"` // what the kernel was told
	Reason    Reason        `json:"reason"`
	DecidedBy string        `json:"decided_by"` // provider id, or "platform"
	Rule      string        `json:"rule"`
	Mode      Mode          `json:"mode"` // the host's mode
	Ballots   []Ballot      `json:"ballots"`
	Latency   time.Duration `json:"latency_ns"` // from reading the event to answering the kernel
	Shared    uint32        `json:"shared"`     // how many identical events in flight got this same answer
}

// Record is one judged event: what happened and what was decided.
type Record struct {
	Event   Event   `json:"event"`
	Verdict Verdict `json:"verdict"`
}
