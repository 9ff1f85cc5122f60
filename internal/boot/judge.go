package boot

import (
	"fmt"
	"time"
)

// Facts are what a boot is judged by. All of them are local: a network that is down is no bad boot.
type Facts struct {
	Uptime time.Duration // since the kernel started
	Target bool          // the system came up as far as it should
	// Core says that the core runs and answers questions. The rest is zero without it.
	Core      bool
	Open      Canary // an open that only the sensor could answer
	Exec      Canary // the same for an exec
	Providers []ProviderFact
}

// Canary is what became of one file that was touched to see whether the sensor answers.
type Canary struct {
	Tried bool          // false: nothing is watched for this kind of event, so there is nothing to prove
	Seen  bool          // the core recorded it
	Took  time.Duration // how long the caller was held
	Wrong string        // why it was not seen, for people
}

// ProviderFact is one provider that is configured.
type ProviderFact struct {
	ID        string
	Required  bool          // it is configured to enforce, and is to run in this mode
	Connected bool          // it votes
	Degraded  bool          // it says itself, or the platform says of it, that it is not at its best; that is known
	Calm      time.Duration // since its last crash, or since the core started
}

// Numbers are the limits of a judgement.
type Numbers struct {
	Uptime time.Duration // the least
	Calm   time.Duration // without a provider's crash
	Answer time.Duration // the longest a canary may take
}

// DefaultNumbers are in force where nothing else is said. Answer is the longest time for which the platform holds
// anybody.
func DefaultNumbers() Numbers {
	return Numbers{Uptime: 90 * time.Second, Calm: time.Minute, Answer: 10 * time.Second}
}

// Judge lists what keeps a boot from being good, in a fixed order; it is good when the list is empty. Everything on
// the list may still come true, so that whoever asks does so again until his deadline.
func Judge(f Facts, n Numbers) []string {
	var missing []string
	need := func(ok bool, format string, args ...any) {
		if !ok {
			missing = append(missing, fmt.Sprintf(format, args...))
		}
	}
	need(f.Uptime >= n.Uptime, "up for %v of %v", f.Uptime.Round(time.Second), n.Uptime)
	need(f.Target, "the system has not come up yet")
	need(f.Core, "the platform does not answer")
	if !f.Core {
		return missing
	}
	for _, c := range []struct {
		what string
		Canary
	}{{"open", f.Open}, {"exec", f.Exec}} {
		need(!c.Tried || c.Seen, "the sensor did not see its own %s: %s", c.what, c.Wrong)
		need(!c.Tried || c.Took <= n.Answer, "the sensor held its own %s for %v", c.what, c.Took.Round(time.Millisecond))
	}
	for _, p := range f.Providers {
		need(!p.Required || p.Connected || p.Degraded, "%s does not vote", p.ID)
		need(p.Calm >= n.Calm, "%s crashed %v ago or has just begun", p.ID, p.Calm.Round(time.Second))
	}
	return missing
}
