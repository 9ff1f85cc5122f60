package simulate

import (
	"math"
	"strconv"

	"github.com/keepout-security/keepout/internal/rollout"
)

// known are the signatures that the fleet had before the release.
var known = []string{"known: disk", "known: memory", "known: out of memory"}

// What happens to hosts by itself, each host-minute.
const (
	knownCrash = 2e-6
	knownBoot  = 1e-7
	newCrash   = 1e-7 // with a signature nobody had before or will have again
	newAlike   = 2e-10
	denial     = 1e-5
	timeout    = 1e-5
)

// noise lets things happen that the release has nothing to do with, to as many hosts as in one minute.
func (r *run) noise() {
	for _, n := range []struct {
		rate float64
		rep  rollout.Report
	}{
		{knownCrash, incident(rollout.Crash, known[r.t%3])},
		{knownBoot, incident(rollout.Boot, known[r.t%3])},
		{newCrash, incident(rollout.Crash, "new: "+strconv.Itoa(int(r.t)))},
		{newAlike, incident(rollout.Crash, "new: alike")},
		{denial, rollout.Report{Denied: true}},
		{timeout, rollout.Report{Timeouts: true}},
	} {
		for i := range r.poisson(n.rate * float64(len(r.hosts))) {
			rep := n.rep
			if n.rate == newCrash {
				rep = incident(rollout.Crash, "new: "+strconv.Itoa(int(r.t))+"."+strconv.Itoa(i))
			}
			r.happens(r.rng.Uint32N(uint32(len(r.hosts))), rep)
			r.act()
		}
	}
}

func incident(g rollout.Gate, signature string) rollout.Report {
	return rollout.Report{Incidents: []rollout.Incident{{Gate: g, Signature: signature}}}
}

// happens lets one host tell what happened to it, if it is on.
func (r *run) happens(h uint32, rep rollout.Report) {
	m := &r.hosts[h]
	what := m.what
	if what&dead != 0 || r.halted != never {
		return
	}
	if what&awake == 0 && r.rng.Float64() >= r.habit(m).share(r.t, r.o.Start) || what&awake != 0 && what&on == 0 {
		return
	}
	rep.Running, rep.Healthy = r.spec.Previous, true
	if what&runsNew != 0 {
		rep.Running = r.spec.Digest
	}
	r.in.Report = rep
	r.apply(rollout.CheckIn, h)
}

// poisson draws a count. Large means are rounded from a normal distribution.
func (r *run) poisson(mean float64) int {
	if mean > 50 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*r.rng.NormFloat64())))
	}
	n, p := 0, r.rng.Float64()
	for limit := math.Exp(-mean); p > limit; n++ {
		p *= r.rng.Float64()
	}
	return n
}
