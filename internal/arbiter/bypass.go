package arbiter

import (
	"time"

	"github.com/keepout-security/keepout/event"
)

// waits reports whether the answer depends on the vote of voter i.
func (c *Case) waits(i int) bool { return c.enforcing(i) && !c.voters[i].Bypassed }

// bypass lets the failure policy of voter i vote at once. A probe's ballot stays open, like an audit provider's.
func (c *Case) bypass(i int) {
	c.ballots[i].Reason = event.ReasonBypassed
	c.fail(i, event.ReasonBypassed)
	if c.voters[i].Probed {
		c.ballots[i].Mode = event.Audit
		return
	}
	c.done[i] = true
	c.open--
}

// Expects reports whether a vote of voter i would count at time now, counted from when the event was read.
func (c *Case) Expects(i int, now time.Duration) bool {
	return i >= 0 && i < len(c.voters) && !c.done[i] && now < due(c.voters[i].Budget)
}

// relieve makes voter i an audit provider. What its policy or its vote has done to an open case is undone.
func (c *Case) relieve(i int) {
	if c.decided || !c.enforcing(i) {
		return // an answer that is given stays
	}
	b := &c.ballots[i]
	switch {
	case !c.waits(i):
	case !c.done[i]:
		c.awaited--
	case b.Counted && b.Vote.Action == event.Deny:
		c.unsure-- // a sure one would have decided
	}
	c.voters[i].Mode, b.Mode = event.Audit, event.Audit
	c.blocker, c.failure = -1, ""
	for k := range c.voters {
		switch {
		case c.voters[k].Bypassed:
			c.fail(k, event.ReasonBypassed)
		case c.done[k] && !c.ballots[k].Counted:
			c.fail(k, c.ballots[k].Reason)
		}
	}
}
