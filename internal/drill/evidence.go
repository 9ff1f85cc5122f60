package drill

import (
	"slices"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// evidence is everything that was observed in one drill. Moments are since its openers began.
type evidence struct {
	fault, lifted time.Duration

	opens  []opened
	votes  []voted // of the good providers
	before roster.Status
	last   roster.Status // of the hostile provider
	states []stateSeen
	notes  []noteSeen
	cores  []coreSeen
	usage  Usage
	yields time.Duration // it was first seen to make way for the others after the fault; 0: never

	reasons map[event.Reason]times // of verdicts, and of the hostile provider's ballots, after the fault
	refused string                 // what the core said to the reload; "" when it took it
	checked string                 // what the check of the new content said
}

// times says how often something was seen, and when first.
type times struct {
	n     int
	first time.Duration
}

// count notes a reason.
func (e *evidence) count(reason event.Reason, at time.Duration) {
	t := e.reasons[reason]
	if t.n == 0 || at < t.first {
		t.first = at
	}
	t.n++
	e.reasons[reason] = t
}

// opened is one open of a file.
type opened struct {
	at   time.Duration // when it ended
	took time.Duration
	bad  bool // the file is one that must be denied
	how  outcome
}

type outcome uint8

const (
	passed outcome = iota
	denied
	failed
)

// voted is one vote of a good provider, or its absence.
type voted struct {
	at   time.Duration
	took time.Duration
	id   string
}

// stateSeen is a change of the hostile provider.
type stateSeen struct {
	at       time.Duration
	state    supervisor.State
	restarts int
	cause    string
}

// noteSeen is an entry of the change journal.
type noteSeen struct {
	at   time.Duration
	note journal.Note
}

// coreSeen is a change of the process that answers on the admin socket; 0: none did.
type coreSeen struct {
	at  time.Duration
	pid int
}

// after returns the opens that ended after the fault.
func (e *evidence) after() []opened {
	return slices.DeleteFunc(slices.Clone(e.opens), func(o opened) bool { return o.at < e.fault })
}

// host sums up what the openers felt after the fault. rule is what an open may wait.
func (e *evidence) host(rule time.Duration) Host {
	h := Host{RuleMS: milliseconds(rule)}
	opens := e.after()
	slices.SortFunc(opens, func(a, b opened) int { return int(a.at - b.at) })
	since := time.Duration(-1) // of being unprotected
	for _, o := range opens {
		h.Opens++
		h.LongestMS = max(h.LongestMS, milliseconds(o.took))
		switch {
		case o.how == failed:
			h.Failed++
		case o.bad && o.how == passed:
			h.Missed++
			if since < 0 {
				since = o.at
			}
		case o.bad && since >= 0:
			h.UnprotectedMS += milliseconds(max(o.at-since, time.Microsecond))
			since = -1
		case !o.bad && o.how == denied:
			h.WronglyDenied++
		}
	}
	if since >= 0 {
		h.UnprotectedMS += milliseconds(max(e.lifted-since, bucketWidth))
	}
	return h
}

// lastOf returns when the last open of a kind ended, in time after the fault, or 0.
func (e *evidence) lastOf(bad bool, how outcome) (last time.Duration) {
	for _, o := range e.after() {
		if o.bad == bad && o.how == how {
			last = max(last, o.at-e.fault)
		}
	}
	return last
}

// neighbours compares the good providers' votes before and after the fault.
func (e *evidence) neighbours(ids []string) []Neighbour {
	out := make([]Neighbour, 0, len(ids))
	for _, id := range ids {
		var before, during []time.Duration
		for _, v := range e.votes {
			switch {
			case v.id != id:
			case v.at < e.fault:
				before = append(before, v.took)
			default:
				during = append(during, v.took)
			}
		}
		n := Neighbour{
			ID: id, BeforeUS: quantile(before, 99).Microseconds(), DuringUS: quantile(during, 99).Microseconds(),
			Votes: len(during),
		}
		if n.BeforeUS > 0 {
			n.Ratio = float64(n.DuringUS) / float64(n.BeforeUS)
		}
		out = append(out, n)
	}
	return out
}

// buckets sums up all opens for the drawing.
func (e *evidence) buckets() []Bucket {
	byTime := map[int64][]opened{}
	for _, o := range e.opens {
		at := o.at.Truncate(bucketWidth).Milliseconds()
		byTime[at] = append(byTime[at], o)
	}
	out := make([]Bucket, 0, len(byTime))
	for at, opens := range byTime {
		b := Bucket{AtMS: at, Count: len(opens)}
		took := make([]time.Duration, 0, len(opens))
		for _, o := range opens {
			took = append(took, o.took)
			if o.bad && o.how == passed {
				b.Missed++
			}
			if !o.bad && o.how == denied {
				b.Denied++
			}
		}
		b.LongestUS, b.MedianUS = slices.Max(took).Microseconds(), quantile(took, 50).Microseconds()
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Bucket) int { return int(a.AtMS - b.AtMS) })
	return out
}

// quantile returns the given percentile, or 0 of nothing. It sorts all.
func quantile(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)*percent/100, len(all)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
