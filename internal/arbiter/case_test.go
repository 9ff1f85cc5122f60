package arbiter_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
)

var (
	allow   = event.Vote{Action: event.Allow, Confidence: event.Certain}
	deny    = event.Vote{Action: event.Deny, Confidence: event.Certain, Rule: "r"}
	unsure  = event.Vote{Action: event.Deny, Confidence: 50, Rule: "u"}
	abstain = event.Vote{Confidence: event.Certain}
)

func voter(id string, mode event.Mode, closed bool) arbiter.Voter {
	return arbiter.Voter{Provider: id, Mode: mode, FailClosed: closed, Budget: 50 * time.Millisecond}
}

func vote(i int, v event.Vote) arbiter.Input {
	return arbiter.Input{Kind: arbiter.Voted, Voter: i, Vote: v}
}

func lost(i int) arbiter.Input {
	return arbiter.Input{Kind: arbiter.Lost, Voter: i, Reason: event.ReasonLost}
}

func TestCase(t *testing.T) {
	enforce := arbiter.Policy{Mode: event.Enforce}
	a, b := voter("a", event.Enforce, false), voter("b", event.Enforce, false)
	audit, closed := voter("audit", event.Audit, false), voter("closed", event.Enforce, true)
	bypassed, shut := voter("bypassed", event.Enforce, false), voter("shut", event.Enforce, true)
	bypassed.Bypassed, shut.Bypassed = true, true
	probed := bypassed
	probed.Probed = true
	relieve := arbiter.Input{Kind: arbiter.Relieved}
	late := 40 * time.Millisecond

	tests := []struct {
		name    string
		policy  arbiter.Policy
		voters  []arbiter.Voter
		inputs  []arbiter.Input
		at      time.Duration // of the last input
		outcome event.Outcome
		allowed bool
		reason  event.Reason
		by      string
	}{
		{"nobody", enforce, nil, nil, 0, event.Allowed, true, event.ReasonVoted, "platform"},
		{
			"all allow", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, allow), vote(1, allow)},
			0,
			event.Allowed, true, event.ReasonVoted, "platform",
		},
		{
			"deny wins over an earlier allow", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, allow), vote(1, deny)},
			0, event.Denied, false, event.ReasonDenied, "b",
		},
		{
			"deny does not wait", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(1, deny)},
			0,
			event.Denied, false, event.ReasonDenied, "b",
		},
		{
			"abstain is neutral", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, abstain), vote(1, deny)},
			0,
			event.Denied, false, event.ReasonDenied, "b",
		},
		{
			"audit would deny", enforce,
			[]arbiter.Voter{a, audit},
			[]arbiter.Input{vote(0, allow), vote(1, deny)},
			0,
			event.WouldDeny, true, event.ReasonVoted, "audit",
		},
		{
			"monitor host",
			arbiter.Policy{Mode: event.Monitor},
			[]arbiter.Voter{a},
			[]arbiter.Input{vote(0, deny)},
			0,
			event.WouldDeny, true, event.ReasonOnlyAudit, "a",
		},
		{
			"deadline fails open", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, allow), {Kind: arbiter.Tick}},
			late, event.Timeout, true, event.ReasonDeadline, "platform",
		},
		{
			"deadline fails closed", enforce,
			[]arbiter.Voter{a, closed},
			[]arbiter.Input{vote(0, allow), {Kind: arbiter.Tick}},
			late, event.Timeout, false, event.ReasonDeadline, "closed",
		},
		{
			"death fails open", enforce,
			[]arbiter.Voter{a},
			[]arbiter.Input{lost(0)},
			0,
			event.Unavailable, true, event.ReasonLost, "platform",
		},
		{
			"death of one, deny of the other", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{lost(0), vote(1, deny)},
			0,
			event.Denied, false, event.ReasonDenied, "b",
		},
		{
			"unsure counts alone without a quorum", enforce,
			[]arbiter.Voter{a},
			[]arbiter.Input{vote(0, unsure)},
			0,
			event.Denied, false, event.ReasonDenied, "a",
		},
		{
			"quorum reached",
			arbiter.Policy{Mode: event.Enforce, Quorum: 2},
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, unsure), vote(1, unsure)},
			0, event.Denied, false, event.ReasonQuorum, "b",
		},
		{
			"quorum missed",
			arbiter.Policy{Mode: event.Enforce, Quorum: 2},
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, unsure), vote(1, allow)},
			0, event.WouldDeny, true, event.ReasonVoted, "a",
		},
		{
			"a certain deny needs no quorum",
			arbiter.Policy{Mode: event.Enforce, Quorum: 2},
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, deny)},
			0, event.Denied, false, event.ReasonDenied, "a",
		},
		{"bypassed", enforce, []arbiter.Voter{bypassed}, nil, 0, event.Unavailable, true, event.ReasonBypassed, "platform"},
		{
			"bypassed, fails closed", enforce,
			[]arbiter.Voter{shut},
			nil, 0,
			event.Unavailable, false, event.ReasonBypassed, "shut",
		},
		{
			"bypassed beside one that denies", enforce,
			[]arbiter.Voter{bypassed, a},
			[]arbiter.Input{vote(1, deny)},
			0, event.Denied, false, event.ReasonDenied, "a",
		},
		{
			"a denial on a copy", enforce,
			[]arbiter.Voter{probed, a},
			[]arbiter.Input{vote(1, allow), vote(0, deny)},
			0, event.WouldDeny, true, event.ReasonBypassed, "bypassed",
		},
		{
			"a copy is not waited for, nor cancelled", enforce,
			[]arbiter.Voter{probed, a},
			[]arbiter.Input{vote(1, deny), {Kind: arbiter.Tick}},
			late, event.Denied, false, event.ReasonDenied, "a",
		},
		{
			"relieved while awaited", enforce,
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(1, allow), relieve, vote(0, deny)},
			0, event.WouldDeny, true, event.ReasonVoted, "a",
		},
		{
			"relieved after its policy denied", enforce,
			[]arbiter.Voter{closed, b},
			[]arbiter.Input{lost(0), relieve, vote(1, allow)},
			0, event.Allowed, true, event.ReasonVoted, "platform",
		},
		{
			"relieved, but another policy denies", enforce,
			[]arbiter.Voter{a, shut, b},
			[]arbiter.Input{lost(0), relieve, vote(2, allow)},
			0, event.Unavailable, false, event.ReasonBypassed, "shut",
		},
		{
			"relieved after an unsure denial",
			arbiter.Policy{Mode: event.Enforce, Quorum: 2},
			[]arbiter.Voter{a, b},
			[]arbiter.Input{vote(0, unsure), relieve, vote(1, unsure)},
			0, event.WouldDeny, true, event.ReasonVoted, "a",
		},
		{
			"an undecodable vote abstains", enforce,
			[]arbiter.Voter{a},
			[]arbiter.Input{{Kind: arbiter.Voted, Vote: deny, Reason: event.ReasonUndecoded}},
			0,
			event.Allowed, true, event.ReasonVoted, "platform",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, eff := arbiter.New(tt.policy, tt.voters)
			answers := count(eff.Answer)
			for i, in := range tt.inputs {
				now := time.Duration(0)
				if i == len(tt.inputs)-1 {
					now = tt.at
				}
				answers += count(c.Step(now, in).Answer)
			}
			if answers != 1 {
				t.Fatalf("answered %d times, want once", answers)
			}
			v := c.Verdict()
			if v.Outcome != tt.outcome || v.Allowed != tt.allowed || v.Reason != tt.reason || v.DecidedBy != tt.by {
				t.Errorf("got %s allowed=%v %s by %s, want %s allowed=%v %s by %s", v.Outcome, v.Allowed, v.Reason,
					v.DecidedBy, tt.outcome, tt.allowed, tt.reason, tt.by)
			}
		})
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAnyOrder is the promise of the package: no order of votes, deaths and deadlines gives two answers, none,
// or an ALLOW over a DENY that an enforcing provider cast in time.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := arbiter.Policy{
			Hear:   rapid.Bool().Draw(t, "hear"),
			Mode:   rapid.SampledFrom([]event.Mode{event.Enforce, event.Monitor}).Draw(t, "host"),
			Quorum: rapid.IntRange(0, 3).Draw(t, "quorum"),
		}
		n := rapid.IntRange(0, 5).Draw(t, "voters")
		voters := make([]arbiter.Voter, n)
		for i := range voters {
			voters[i] = arbiter.Voter{
				Provider: string(rune('a' + i)), FailClosed: rapid.Bool().Draw(t, "closed"),
				Mode:   rapid.SampledFrom([]event.Mode{event.Enforce, event.Audit}).Draw(t, "mode"),
				Budget: time.Duration(rapid.IntRange(1, 100).Draw(t, "budget")) * time.Millisecond,
			}
			voters[i].Bypassed = rapid.IntRange(0, 3).Draw(t, "bypassed") == 0
			voters[i].Probed = voters[i].Bypassed && rapid.Bool().Draw(t, "probed")
		}
		run := caseRun{t: t, policy: policy, voters: slices.Clone(voters), spoken: make([]bool, n)}
		c, eff := arbiter.New(policy, voters)
		run.check(c, eff)
		now := time.Duration(0)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 20).Draw(t, "ms")) * time.Millisecond
			in := arbiter.Input{
				Kind: rapid.SampledFrom([]arbiter.Kind{
					arbiter.Voted, arbiter.Voted, arbiter.Lost, arbiter.Relieved, arbiter.Tick,
				}).Draw(t, "kind"),
				Voter:  rapid.IntRange(-1, n).Draw(t, "voter"),
				Vote:   rapid.SampledFrom([]event.Vote{allow, deny, unsure, abstain}).Draw(t, "vote"),
				Reason: event.ReasonLost,
			}
			if in.Kind == arbiter.Voted {
				in.Reason = ""
			}
			run.note(now, in)
			run.check(c, c.Step(now, in))
		}
		run.check(c, c.Step(time.Second, arbiter.Input{Kind: arbiter.Tick})) // every deadline has passed
		if run.answers != 1 || run.closes != 1 {
			t.Fatalf("answered %d times and closed %d times, want once each", run.answers, run.closes)
		}
	})
}

// caseRun is an independent account of what one case may do.
type caseRun struct {
	t       *rapid.T
	policy  arbiter.Policy
	voters  []arbiter.Voter
	spoken  []bool // has voted, died, run out of time or been relieved
	denied  bool   // a certain DENY of an enforcing provider came in time, before the answer
	unsure  bool   // an unsure one did
	answers int
	closes  int

	answered bool
}

func (r *caseRun) note(now time.Duration, in arbiter.Input) {
	for i, v := range r.voters {
		if now >= v.Budget*arbiter.HeadroomPercent/100 {
			r.spoken[i] = true
		}
	}
	if in.Kind == arbiter.Tick || in.Voter < 0 || in.Voter >= len(r.voters) {
		return
	}
	if in.Kind == arbiter.Relieved && r.answers == 0 {
		r.voters[in.Voter].Mode = event.Audit
	}
	if in.Kind == arbiter.Relieved || r.spoken[in.Voter] {
		return
	}
	r.spoken[in.Voter] = true
	if in.Kind == arbiter.Voted && r.waits(in.Voter) && r.answers == 0 {
		r.denied = r.denied || in.Vote == deny
		r.unsure = r.unsure || in.Vote == unsure
	}
}

// waits reports whether the answer may depend on a voter.
func (r *caseRun) waits(i int) bool {
	v := r.voters[i]
	return r.policy.Mode == event.Enforce && v.Mode == event.Enforce && !v.Bypassed
}

// over reports whether there is nobody left to wait for.
func (r *caseRun) over() bool {
	for i := range r.voters {
		if r.waits(i) && !r.spoken[i] {
			return false
		}
	}
	return true
}

// closed reports whether some provider's failure policy may deny.
func (r *caseRun) closed() bool {
	return slices.ContainsFunc(r.voters, func(v arbiter.Voter) bool { return v.Mode == event.Enforce && v.FailClosed })
}

func (r *caseRun) check(c *arbiter.Case, eff arbiter.Effects) {
	r.answers += count(eff.Answer)
	r.closes += count(eff.Closed)
	if r.answers > 1 || r.closes > 1 || r.closes > r.answers {
		r.t.Fatalf("answers %d, closes %d", r.answers, r.closes)
	}
	if r.answers == 1 && r.denied && c.Verdict().Allowed {
		r.t.Fatalf("allowed over a DENY: %+v", c.Verdict())
	}
	if r.over() && r.answers != 1 {
		r.t.Fatal("it waits, and there is nobody to wait for")
	}
	if r.answers == 1 && !r.answered {
		if r.answered = true; !c.Verdict().Allowed && !r.denied && !r.unsure && !r.closed() {
			r.t.Fatalf("denied by nobody: %+v", c.Verdict())
		}
	}
	if r.policy.Mode == event.Monitor && r.answers == 1 && !c.Verdict().Allowed {
		r.t.Fatal("a monitoring host denied")
	}
}

// TestHear: with it, a denial answers as early as ever, and the other votes are still taken.
func TestHear(t *testing.T) {
	t.Parallel()
	a, b := voter("a", event.Enforce, false), voter("b", event.Enforce, false)
	c, _ := arbiter.New(arbiter.Policy{Mode: event.Enforce, Hear: true}, []arbiter.Voter{a, b})
	eff := c.Step(0, vote(0, deny))
	if !eff.Answer || eff.Closed || len(eff.Cancel) > 0 || c.Verdict().Allowed {
		t.Fatalf("after the denial: %+v, %+v", eff, c.Verdict())
	}
	eff = c.Step(0, vote(1, event.Vote{Action: event.Deny, Confidence: event.Certain, Rule: "second"}))
	v := c.Verdict()
	if eff.Answer || !eff.Closed || v.DecidedBy != "a" || v.Outcome != event.Denied || !v.Ballots[1].Counted ||
		v.Ballots[1].Vote.Rule != "second" {
		t.Errorf("after the second vote: %+v, %+v", eff, v)
	}
	c, _ = arbiter.New(arbiter.Policy{Mode: event.Enforce, Hear: true}, []arbiter.Voter{a, b})
	c.Step(0, vote(0, deny))
	if eff := c.Step(a.Budget, arbiter.Input{Kind: arbiter.Tick}); !eff.Closed || eff.Answer || c.Verdict().Allowed ||
		c.Verdict().Ballots[1].Reason != event.ReasonDeadline {
		t.Errorf("when the second does not vote: %+v, %+v", eff, c.Verdict())
	}
}
