package simulate

import (
	"time"
)

// Reference is a way to update a fleet without a controller that counts the silent: for comparison.
type Reference struct {
	Name   string `json:"name"`
	About  string `json:"about"`
	Broken int    `json:"broken"`
	Curve  []int  `json:"-"` // broken hosts at the end of each minute
}

// The references.
const (
	humanStop   = 78 * 60 // seconds, from the first broken host on: 19 July 2024, 04:09 to 05:27 UTC
	timedStep   = 60 * 60
	timedReport = 10 * 60 // until reported errors stop it
	sampled     = 200_000 // hosts that stand for all
)

// References plays the release of o without rings: to everybody at once, until a person stops it; and in timed steps
// of 1, 10 and 100 %, stopped when more than 5 % of the hosts report errors. Hosts that are dead report nothing.
// They are the same kinds of hosts with the same habits, but a sample stands for the fleet.
func References(o Options) ([]Reference, error) {
	sc, err := o.scenario()
	if err != nil {
		return nil, err
	}
	after := uint32(sc.after / time.Second)
	silent := sc.kind == dies || sc.kind == none
	stop := uint32(never)
	if !silent {
		stop = timedReport
	}
	return []Reference{
		o.reference(sc, Reference{Name: "broadcast", About: "to everybody, stopped by a person after 78 minutes"},
			func(float64) uint32 { return 0 }, after+humanStop),
		o.reference(sc, Reference{Name: "timed", About: "1, 10 and 100 % an hour apart, stopped by reported errors"},
			func(place float64) uint32 {
				switch {
				case place < 0.01:
					return 0
				case place < 0.1:
					return timedStep
				}
				return 2 * timedStep
			}, stop),
	}, nil
}

// reference plays one of them: push says when a host is offered the release, stop when nobody is any more.
func (o *Options) reference(sc scenario, ref Reference, push func(place float64) uint32, stop uint32) Reference {
	after := uint32(sc.after / time.Second)
	horizon := after + 4*hourSeconds
	hab := newHabits()
	rng := dice(o.Seed)
	n := min(o.Hosts, sampled)
	ref.Curve = make([]int, horizon/60+1)
	for i := range n {
		h := &hab.desk
		if strata[labelOf(uint32(i))].server {
			h = &hab.server
		}
		at := push(rng.Float64())
		if rng.Float64() < h.share(at, o.Start) {
			at += rng.Uint32N(300)
		} else {
			at = next(rng, at, horizon, o.Start, &h.arrive)
		}
		if at >= stop || sc.kind == none || rng.Float64() >= sc.share || at >= horizon || at+after >= horizon {
			continue
		}
		ref.Curve[(at+after)/60]++
	}
	sum := 0
	for i, broke := range ref.Curve {
		sum += broke
		ref.Curve[i] = int(float64(sum) * float64(o.Hosts) / float64(n))
	}
	ref.Broken = ref.Curve[len(ref.Curve)-1]
	return ref
}
