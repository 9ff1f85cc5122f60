package arbiter

import (
	"time"

	"github.com/keepout-security/keepout/event"
)

// HeadroomPercent is the part of a budget after which a missing vote is replaced by policy; the rest is kept for
// getting the answer to the kernel.
const HeadroomPercent = 80

// Voter is one provider that was asked.
type Voter struct {
	Provider   string
	Mode       event.Mode    // Audit or Enforce
	FailClosed bool          // a missing vote counts as DENY instead of ALLOW
	Budget     time.Duration // time for the vote, from the moment the event was read
	Bypassed   bool          // its breaker is open: not waited for, its failure policy votes at once
	Probed     bool          // with Bypassed: it is sent a copy, whose vote is recorded and has no effect
	Known      bool          // it has voted on this very object before: Vote counts as if it came now
	Vote       event.Vote    // with Known
}

// Policy is what the administrator decided for all cases.
type Policy struct {
	Mode   event.Mode // Monitor or Enforce
	Quorum int        // how many unsure denials make one; 0 and 1 mean that each one does
	// Hear keeps the record open for the other votes after a denial, as it does for audit voters. The answer is not
	// later for that.
	Hear bool
}

// Kind says what happened to a case.
type Kind uint8

// The inputs. All but Tick, which only passes time, name a voter.
const (
	Voted    Kind = iota + 1
	Lost          // there will be no vote
	Relieved      // it enforces no more: from now on its vote is recorded and has no effect
	Tick
)

// Input is one thing that happens to a case.
type Input struct {
	Kind   Kind
	Voter  int          // index into the voters
	Vote   event.Vote   // with Voted
	Reason event.Reason // with Lost: why there will be no vote; with Voted: ReasonUndecoded, or empty
}

// Effects are what the caller must do after a step, in this order.
type Effects struct {
	Answer bool  // tell the kernel Verdict().Allowed; true exactly once in a case's life
	Took   bool  // the vote or its loss came in time and was taken down
	Missed []int // voters that missed their deadline in this step
	Cancel []int // voters whose vote is no longer wanted
	Closed bool  // the record is complete; true exactly once, with or after Answer
}

// Case is one question in flight. It is not safe for concurrent use.
type Case struct {
	policy  Policy
	voters  []Voter
	ballots []event.Ballot
	done    []bool // no vote is expected any more
	few     [8]bool
	awaited int // enforcing voters still expected
	open    int // voters still expected
	unsure  int // unsure denials of enforcing voters

	decided bool
	closed  bool
	verdict event.Verdict
	failure event.Reason // why a vote is missing, the first time it happened
	blocker int          // voter whose failure policy denies, or -1
}

// New opens a case and returns what to do at once: with nobody to wait for, the answer is due before any vote.
func New(policy Policy, voters []Voter) (*Case, Effects) {
	c := new(Case)
	eff := c.Open(policy, voters, make([]event.Ballot, len(voters)))
	return c, eff
}

// Open is New for a case whose memory is used again, and whose ballots, one for each voter, the caller makes. It does
// not allocate for few voters.
func (c *Case) Open(policy Policy, voters []Voter, ballots []event.Ballot) Effects {
	*c = Case{policy: policy, voters: voters, blocker: -1, open: len(voters), ballots: ballots}
	if c.done = c.few[:]; len(voters) > len(c.few) {
		c.done = make([]bool, len(voters))
	}
	c.done = c.done[:len(voters)]
	c.verdict = event.Verdict{Mode: policy.Mode, Outcome: event.Allowed, Allowed: true}
	for i, v := range voters {
		c.ballots[i] = event.Ballot{Provider: v.Provider, Mode: v.Mode}
		switch {
		case v.Bypassed:
			c.bypass(i)
		case c.enforcing(i):
			c.awaited++
		}
	}
	var eff Effects
	for i, v := range voters {
		if v.Known && !c.done[i] {
			c.take(&eff, 0, Input{Kind: Voted, Voter: i, Vote: v.Vote})
			c.ballots[i].Reason, eff.Took = event.ReasonRemembered, false
		}
	}
	if !c.decided && c.awaited == 0 {
		c.decide(&eff, 0)
	}
	c.settle(&eff)
	return eff
}

// enforcing reports whether voter i can deny: it enforces, and so does the host.
func (c *Case) enforcing(i int) bool {
	return c.policy.Mode == event.Enforce && c.voters[i].Mode == event.Enforce
}

// due is when a vote with this budget is given up.
func due(budget time.Duration) time.Duration { return budget * HeadroomPercent / 100 }

// Step applies one input at time now, counted from when the event was read. Inputs for a voter that has already
// voted or been given up change nothing.
func (c *Case) Step(now time.Duration, in Input) Effects {
	var eff Effects
	if c.closed {
		return eff
	}
	c.expire(&eff, now)
	if in.Kind != Tick && in.Voter >= 0 && in.Voter < len(c.voters) {
		switch {
		case in.Kind == Relieved:
			c.relieve(in.Voter)
		case !c.done[in.Voter]:
			c.take(&eff, now, in)
		}
	}
	if !c.decided && c.awaited == 0 {
		c.decide(&eff, now)
	}
	c.settle(&eff)
	return eff
}

// take records a vote or its loss.
func (c *Case) take(eff *Effects, now time.Duration, in Input) {
	b := &c.ballots[in.Voter]
	b.Latency, eff.Took = now, true
	if in.Kind == Lost {
		c.miss(in.Voter, in.Reason)
		return
	}
	c.finish(in.Voter)
	b.Vote, b.Counted, b.Reason = in.Vote, true, event.ReasonVoted
	if c.voters[in.Voter].Bypassed {
		b.Reason = event.ReasonProbe
	}
	if in.Reason != "" {
		b.Vote, b.Reason = event.Vote{Confidence: event.Certain}, in.Reason // a mistake counts as abstain
	}
	if c.decided || !c.waits(in.Voter) || b.Vote.Action != event.Deny {
		return
	}
	reason := event.ReasonDenied
	if b.Vote.Confidence < event.Certain && c.policy.Quorum > 1 {
		c.unsure++
		if c.unsure < c.policy.Quorum {
			return
		}
		reason = event.ReasonQuorum
	}
	c.verdict.Outcome, c.verdict.Allowed, c.verdict.Reason = event.Denied, false, reason
	c.verdict.DecidedBy, c.verdict.Rule = b.Provider, b.Vote.Rule
	c.decided, eff.Answer, c.verdict.Latency = true, true, now
	if !c.policy.Hear {
		c.cancelAwaited(eff, now)
	}
}

// expire gives up the voters whose time is over.
func (c *Case) expire(eff *Effects, now time.Duration) {
	for i, v := range c.voters {
		if !c.done[i] && now >= due(v.Budget) {
			c.ballots[i].Latency = now
			c.miss(i, event.ReasonDeadline)
			eff.Missed = append(eff.Missed, i)
		}
	}
}

// miss replaces a vote by its provider's failure policy.
func (c *Case) miss(i int, reason event.Reason) {
	c.finish(i)
	if c.voters[i].Bypassed {
		return // its policy has voted
	}
	c.ballots[i].Reason = reason
	c.fail(i, reason)
}

// fail lets the failure policy of voter i vote.
func (c *Case) fail(i int, reason event.Reason) {
	if c.decided || !c.enforcing(i) {
		return
	}
	if c.failure == "" {
		c.failure = reason
	}
	if c.voters[i].FailClosed && c.blocker < 0 {
		c.blocker, c.failure = i, reason
	}
}

func (c *Case) finish(i int) {
	c.done[i] = true
	c.open--
	if c.waits(i) {
		c.awaited--
	}
}

// cancelAwaited stops waiting for enforcing voters after a denial; audit voters may finish.
func (c *Case) cancelAwaited(eff *Effects, now time.Duration) {
	for i := range c.voters {
		if !c.done[i] && c.waits(i) {
			c.finish(i)
			c.ballots[i].Reason, c.ballots[i].Latency = event.ReasonCancelled, now
			eff.Cancel = append(eff.Cancel, i)
		}
	}
}

// decide closes the vote when nobody awaited is left and nobody denied.
func (c *Case) decide(eff *Effects, now time.Duration) {
	c.decided, eff.Answer, c.verdict.Latency = true, true, now
	c.verdict.DecidedBy, c.verdict.Reason = Platform, event.ReasonVoted
	if len(c.voters) > 0 && !c.anyEnforcing() {
		c.verdict.Reason = event.ReasonOnlyAudit
	}
	if c.failure == "" {
		return
	}
	c.verdict.Reason, c.verdict.Outcome = c.failure, event.Unavailable
	if c.failure == event.ReasonDeadline {
		c.verdict.Outcome = event.Timeout
	}
	if c.blocker >= 0 {
		c.verdict.Allowed, c.verdict.DecidedBy = false, c.voters[c.blocker].Provider
	}
}

func (c *Case) anyEnforcing() bool {
	for i := range c.voters {
		if c.enforcing(i) {
			return true
		}
	}
	return false
}

// settle closes the record when the answer is given and no vote is expected any more.
func (c *Case) settle(eff *Effects) {
	if !c.decided || c.open > 0 || c.closed {
		return
	}
	c.closed, eff.Closed = true, true
	if !c.verdict.Allowed {
		return
	}
	for _, b := range c.ballots {
		if b.Counted && b.Vote.Action == event.Deny {
			c.verdict.Outcome, c.verdict.DecidedBy, c.verdict.Rule = event.WouldDeny, b.Provider, b.Vote.Rule
			return
		}
	}
}

// Platform is the DecidedBy of a verdict that no provider made.
const Platform = "platform"

// Verdict returns the verdict. Preconditions: a step has had the effect Answer; it is complete after Closed.
func (c *Case) Verdict() event.Verdict {
	v := c.verdict
	v.Ballots = c.ballots
	return v
}

// Deadline returns when the next voter's time is over, counted from when the event was read.
func (c *Case) Deadline() (time.Duration, bool) {
	var first time.Duration
	found := false
	for i, v := range c.voters {
		if d := due(v.Budget); !c.done[i] && (!found || d < first) {
			first, found = d, true
		}
	}
	return first, found
}
