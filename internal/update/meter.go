package update

import (
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/rollback"
)

// Reading is what one member of a provider, the processes that ran the same versions, has done so far. All its counts
// only rise.
type Reading struct {
	Provider string
	Serial   uint64 // tells members apart
	Trial    bool   // it runs beside the active versions, and counts with them
	Engine   rollback.Digest
	Content  rollback.Digest

	Verdicts, Timeouts, Denies, Critical uint64

	Ran, CPU time.Duration
	Memory   uint64
	Rules    map[string]uint64 // what it denies, in words, of which there are few
	P99      time.Duration     // of the votes since the last reading that had one; 0: without votes
}

// Denial is what a reading adds to what one rule denies.
type Denial struct {
	Reading *Reading
	Words   string
	Count   uint64
}

// Meter turns readings of members into counts of the versions that are active. It is not safe for concurrent use; the
// zero value has counted nothing.
type Meter struct {
	last map[uint64]Reading // by serial
	sums []Counters         // one for each provider
}

// Read takes the readings of all members that there are, and returns what they deny that they did not deny before.
func (m *Meter) Read(all []Reading) (news []Denial) {
	next := make(map[uint64]Reading, len(all))
	m.sums = slices.DeleteFunc(m.sums, func(c Counters) bool {
		return !slices.ContainsFunc(all, func(r Reading) bool { return r.Provider == c.Provider })
	})
	for i := range all {
		r := &all[i]
		was := m.last[r.Serial] // zero for a new one, as its counts were
		next[r.Serial] = *r
		c := m.sum(r)
		c.Timeouts += r.Timeouts - was.Timeouts
		c.Denies += r.Denies - was.Denies
		c.Critical += r.Critical - was.Critical
		if !r.Trial {
			c.Verdicts += r.Verdicts - was.Verdicts
			c.Minutes += (r.Ran - was.Ran).Minutes()
			c.CPU += (r.CPU - was.CPU).Seconds()
			c.Memory = max(c.Memory, r.Memory)
			if r.P99 > 0 {
				c.P99 = r.P99.Seconds()
			}
		}
		for words, n := range r.Rules {
			if more := n - was.Rules[words]; more > 0 {
				news = append(news, Denial{Reading: r, Words: words, Count: more})
			}
		}
	}
	m.last = next
	slices.SortFunc(news, func(a, b Denial) int {
		return slices.Compare([]string{a.Reading.Provider, a.Words}, []string{b.Reading.Provider, b.Words})
	})
	return news
}

// sum returns where a reading counts. Other versions of a provider begin at 0; a candidate counts with what is active.
func (m *Meter) sum(r *Reading) *Counters {
	i := slices.IndexFunc(m.sums, func(c Counters) bool { return c.Provider == r.Provider })
	if i < 0 {
		m.sums = append(m.sums, Counters{Provider: r.Provider})
		i = len(m.sums) - 1
	}
	c := &m.sums[i]
	engine, content := string(r.Engine), string(r.Content)
	if r.Trial || c.Engine == engine && c.Content == content {
		return c
	}
	if c.Engine != "" {
		*c = Counters{Provider: r.Provider}
	}
	c.Engine, c.Content = engine, content
	return c
}

// Counters returns the counts; the caller may keep them.
func (m *Meter) Counters() []Counters { return slices.Clone(m.sums) }
