package rollout

import (
	"fmt"
	"math"
	"time"
)

// MaxRatios bounds Numbers.Ratios.
const MaxRatios = 8

// Contest compares the two arms at one gate, in one stratum or in all.
type Contest struct {
	Block    [2]int             `json:"block"`    // hits since the last look, by Arm
	Samples  [2]int             `json:"samples"`  // of load since the last look
	Hits     [2]int             `json:"hits"`     // in all, without Block
	Exposure [2]float64         `json:"exposure"` // in all: host-minutes, or samples of load
	Scores   [MaxRatios]float64 `json:"scores"`   // evidence for each of Numbers.Ratios
}

// Level is the control group's quantile of a load in one stratum. It is learned from the first Numbers.Points and
// stands still from then on: both sides are held against the same value, so that it need not be exact.
type Level struct {
	Value  float64 `json:"value"`
	Mean   float64 `json:"mean"`
	Spread float64 `json:"spread"` // mean distance from Mean
	Points int     `json:"points"`
}

// The gates are looked at every block, and more often where a soak is so short (in demonstrations) that it would have
// fewer than looks of them.
const (
	block = 30 * time.Second
	looks = 20
)

// contest returns the comparison at one gate in one stratum; len(s.Strata) stands for all.
func (s *State) contest(g Gate, stratum int) *Contest {
	return &s.Gates[int(g)*(len(s.Strata)+1)+stratum]
}

// look judges what came in since the last look, writes off, and opens the next ring if all is well.
func (s *State) look(now time.Time, e *Effects) {
	passed := s.Clock - s.BlockAt
	if s.Open < 0 || passed < min(block, s.Numbers.Soak/looks) {
		return
	}
	s.BlockAt = s.Clock
	s.weighRings(passed.Minutes(), now, e)
	for g := range gates {
		s.weigh(g, passed.Minutes(), now, e)
	}
	s.turn()
	s.writeOff(passed.Minutes())
	s.age(now, e)
	for s.Status == Running && s.Waits() == "" {
		if s.Open == s.Plan.Control() {
			s.Status = Complete
			e.Acts = append(e.Acts, Act{Kind: Completed, Ring: s.Open})
			return
		}
		s.open(e)
	}
}

// turn remembers who was watched at this look.
func (s *State) turn() {
	next := s.Clock-s.TurnAt >= time.Duration(s.Numbers.Missed)*s.Numbers.CheckIn
	if next {
		s.TurnAt = s.Clock
	}
	for i := range s.Strata {
		st := &s.Strata[i]
		st.Was, st.WasDistant = st.Watched, st.Distant
		if next {
			st.Left.turn()
		}
	}
	for i := range s.Cohorts {
		for k := range s.Cohorts[i].Strata {
			c := &s.Cohorts[i].Strata[k]
			c.Was = c.Watched
			if next {
				c.Left.turn()
			}
		}
	}
}

// weigh brings the comparisons at one gate up to date.
//
// Of the hits of both sides, a share p0 = n/(n+m) falls on the treated side if the release is as good as the one
// before, n and m being the hosts of the two sides, and p1 = rn/(rn+m) if it is r times worse. The logarithm of the
// likelihood ratio is added up and kept at 0 or above (CUSUM), so that good hours do not hide a bad one. From
// whichever restart on, a healthy release passes -ln(alpha) with a probability of alpha at most (Ville's
// inequality), however often one looks and however the natural rate goes up and down.
func (s *State) weigh(g Gate, minutes float64, now time.Time, e *Effects) {
	limit := s.limit()
	all := s.contest(g, len(s.Strata))
	var sum [MaxRatios]float64
	for i := range s.Strata {
		c := s.contest(g, i)
		n, exposure := s.exposure(g, i, c, minutes)
		if g.pauses() && (n[0] == 0 || n[1] == 0) {
			continue // samples wait for the other side
		}
		for arm := range 2 {
			c.Hits[arm] += c.Block[arm]
			all.Hits[arm] += c.Block[arm]
			c.Exposure[arm] += exposure[arm]
			all.Exposure[arm] += exposure[arm]
		}
		for k, ratio := range s.ratios(c.Block, n) {
			c.Scores[k] = max(0, c.Scores[k]+ratio)
			sum[k] += ratio
		}
		c.Block, c.Samples = [2]int{}, [2]int{}
		if score := top(c.Scores); score > limit {
			s.stop(e, s.evidence(g, c, s.Plan.Strata[i].Label, score, now))
		}
	}
	for k := range sum {
		all.Scores[k] = max(0, all.Scores[k]+sum[k])
	}
	if score := top(all.Scores); score > limit {
		s.stop(e, s.evidence(g, all, "", score, now))
	}
}

// ratios returns the logarithms of the likelihood ratios of hits on both sides, which have n hosts.
func (s *State) ratios(hits [2]int, n [2]float64) (logs [MaxRatios]float64) {
	if hits == [2]int{} || n[0] == 0 || n[1] == 0 {
		return logs
	}
	for k, r := range s.Numbers.Ratios {
		logs[k] = float64(hits[0]+hits[1])*math.Log((n[0]+n[1])/(r*n[0]+n[1])) + float64(hits[0])*math.Log(r)
	}
	return logs
}

// weighRings compares each ring's silence with the control group's.
func (s *State) weighRings(minutes float64, now time.Time, e *Effects) {
	for i := range s.Cohorts {
		c := &s.Cohorts[i].Contest
		hits, n, sum := s.weighRing(i)
		for arm := range n {
			c.Hits[arm] += hits[arm]
			c.Exposure[arm] += n[arm] * minutes
		}
		for k := range sum {
			c.Scores[k] = max(0, c.Scores[k]+sum[k])
		}
		if score := top(c.Scores); score > s.limit() {
			ev := s.evidence(Silence, c, "", score, now)
			ev.Test = fmt.Sprintf("ring %d: %s", i, ev.Test)
			if s.dissolved() {
				ev.Test += " and later rings"
			}
			s.stop(e, ev)
		}
	}
}

// dissolved reports whether the control group is being granted. What remains of it are the few hosts that cannot be;
// from then on the rings that run the release for a shorter time stand beside them.
func (s *State) dissolved() bool { return s.Open == s.Plan.Control() }

// standsBeside reports whether the hosts of a ring tell how often hosts of earlier rings would be silent. Those of a
// crowd do not, and neither does a ring that is still filling: who was just granted cannot be silent yet.
func (s *State) standsBeside(ring int) bool {
	return s.dissolved() && s.Plan.Rings[ring].Members <= s.Numbers.Crowd &&
		s.Clock-s.Rings[ring].OpenedAt > 2*s.Numbers.Soak
}

// hosts returns how many hosts may have fallen silent since the last look.
func (c *Company) hosts() float64 { return float64(max(c.Watched, c.Was) + c.Left.sum()) }

// weighRing adds up what one ring's silence says since the last look, stratum by stratum. The strata of which the
// control group never had anybody are held, as one, against all of it. Where it has nobody any more, or nobody at
// this hour, nothing is compared: by night, all of it is not what the desks of one stratum are like.
func (s *State) weighRing(ring int) (hits [2]int, n [2]float64, sum [MaxRatios]float64) {
	var alone [2]int
	var hosts [2]float64
	for k := range s.Strata {
		c, st := &s.Cohorts[ring].Strata[k], &s.Strata[k]
		h := [2]int{c.Lapsed, s.contest(Silence, k).Block[Control]}
		of := [2]float64{c.hosts(), float64(max(st.Watched[Control], st.Was[Control]))}
		for later := ring + 1; later < len(s.Cohorts); later++ {
			if !s.standsBeside(later) {
				continue
			}
			other := &s.Cohorts[later].Strata[k]
			h[Control] += other.Lapsed
			of[Control] += other.hosts()
		}
		c.Lapsed = 0 // it is not looked at again: earlier rings have been weighed
		for arm := range h {
			hits[arm] += h[arm]
			n[arm] += of[arm]
		}
		if s.contest(Silence, k).Exposure[Control] == 0 {
			alone[Treated] += h[Treated]
			hosts[Treated] += of[Treated]
			continue
		}
		for r, ratio := range s.ratios(h, of) {
			sum[r] += ratio
		}
	}
	alone[Control], hosts[Control] = hits[Control], n[Control]
	for r, ratio := range s.ratios(alone, hosts) {
		sum[r] += ratio
	}
	return hits, n, sum
}

// exposure returns the sizes of both sides in one stratum since the last look, and what adds up.
func (s *State) exposure(g Gate, stratum int, c *Contest, minutes float64) (n, sum [2]float64) {
	st := &s.Strata[stratum]
	now, was := st.Watched, st.Was
	if g == Silence {
		now[Treated] += st.Left.sum() - st.Distant
		was[Treated] += st.Left.sum() - st.WasDistant
	}
	for arm := range n {
		if g.pauses() {
			n[arm] = float64(c.Samples[arm])
			sum[arm] = n[arm]
			continue
		}
		// Hosts that fell silent are not watched any more; they were at the last look.
		n[arm] = float64(max(now[arm], was[arm]))
		sum[arm] = n[arm] * minutes
	}
	return n, sum
}

// limit is the score at which a gate acts.
func (s *State) limit() float64 { return -math.Log(s.Numbers.Alpha) }

func top(scores [MaxRatios]float64) (highest float64) {
	for _, x := range scores {
		highest = max(highest, x)
	}
	return highest
}

func (s *State) evidence(g Gate, c *Contest, stratum string, score float64, now time.Time) Evidence {
	rate := [2]float64{}
	for arm := range rate {
		if c.Exposure[arm] > 0 {
			rate[arm] = 1000 * float64(c.Hits[arm]) / c.Exposure[arm]
		}
	}
	unit := "1,000 host-minutes"
	if g.pauses() {
		unit = "1,000 hosts are heavier than the control group's 95th percentile"
	}
	return Evidence{
		Gate: g, Stratum: stratum, Hits: c.Hits, Exposure: c.Exposure, Score: score, Limit: s.limit(), At: now,
		Test: fmt.Sprintf("%.3g of %s, in the control group %.3g", rate[0], unit, rate[1]),
	}
}

// writeOff gives the room of silent hosts back, as many as the control group loses in the same time.
func (s *State) writeOff(minutes float64) {
	all := s.contest(Silence, len(s.Strata))
	for i := range s.Rings {
		r := &s.Rings[i]
		r.Exposure += minutes * float64(r.Soaking)
		if r.Silent == 0 || all.Exposure[Control] == 0 {
			continue
		}
		natural := int(r.Exposure * float64(all.Hits[Control]) / all.Exposure[Control])
		if n := min(r.Silent, natural-(r.WrittenOff-r.Returned)); n > 0 {
			r.Silent -= n
			r.Gone += n
			r.WrittenOff += n
		}
	}
}

// sample looks at the load of a host: once after it was granted, and of a control host once in each soak.
func (s *State) sample(r *Row, load *Load, arm Arm) {
	if arm == Treated {
		if r.Phase == Activating || s.Clock-r.GrantedAt < min(s.Numbers.LoadAfter, s.Numbers.Soak) || !vote(r, uint(CPU)) {
			return
		}
	} else {
		if r.SampledAt != 0 && s.Clock-r.SampledAt < s.Numbers.Soak {
			return
		}
		r.SampledAt = max(s.Clock, 1)
	}
	for k, x := range [...]float64{load.CPU, load.Memory, load.Latency} {
		g := CPU + Gate(k)
		level := &s.Limits[int(g)*len(s.Strata)+r.Stratum]
		if level.Points >= s.Numbers.Points {
			c := s.contest(g, r.Stratum)
			c.Samples[arm]++
			if x > level.Value {
				c.Block[arm]++
			}
		}
		if arm == Control && level.Points < s.Numbers.Points {
			level.learn(x, s.Numbers.Quantile)
		}
	}
}

// learn moves the level towards the quantile: a little up when the value is above, and so much less down when it is
// below that both cancel out at the quantile.
func (l *Level) learn(x, quantile float64) {
	l.Points++
	n := float64(l.Points)
	l.Mean += (x - l.Mean) / n
	l.Spread += (math.Abs(x-l.Mean) - l.Spread) / n
	step := 8 * l.Spread / math.Sqrt(n)
	switch {
	case l.Points == 1:
		l.Value = x
	case x > l.Value:
		l.Value += step * quantile
	default:
		l.Value -= step * (1 - quantile)
	}
}

// rare reports whether so many independent events, when expected are expected, have a probability below alpha. The
// k-th event is allowed 6/(pi*k)^2 of alpha, so that looking after each one keeps alpha in all.
func rare(k int, expected, alpha float64) bool {
	below, term := 0.0, math.Exp(-expected)
	for i := range k {
		below += term
		term *= expected / float64(i+1)
	}
	// The tail itself, not 1 - below, which would round to 0 or less.
	tail := 0.0
	for i := k; i < k+1000 && term > tail*1e-17; i++ {
		tail += term
		term *= expected / float64(i+1)
	}
	if below == 0 {
		return false // more are expected than a float holds
	}
	return tail <= alpha*6/(math.Pi*math.Pi*float64(k)*float64(k))
}

// needed returns how many confirmed hosts a ring must have before the next one opens.
func (s *State) needed(ring int) int {
	members := s.Plan.Rings[ring].Members
	return min(int(math.Ceil(s.Numbers.Acks*float64(members))), members)
}

// Waits says in words what the highest open ring waits for, or "" when the next one may open.
func (s *State) Waits() string {
	if s.Open < 0 {
		return "people who approve"
	}
	r := &s.Rings[s.Open]
	granted, confirmed := 0, 0
	for i := range r.Reached {
		granted += min(r.Reached[i], 1)
		confirmed += min(r.Strata[i], 1)
	}
	_, control := s.watched()
	need := s.needed(s.Open)
	switch {
	case s.Plan.Rings[s.Open].Members > 0 && s.Clock-r.OpenedAt < s.Numbers.Soak+s.Numbers.CheckIn:
		return fmt.Sprintf("the soak of %v", s.Numbers.Soak)
	case r.Confirmed < need:
		return fmt.Sprintf("%d of %d confirmed hosts", need-r.Confirmed, need)
	case float64(confirmed) < s.Numbers.Strata*float64(granted):
		return fmt.Sprintf("confirmed hosts in more than %d of %d strata", confirmed, granted)
	case control == 0 && s.Open < s.Plan.Control() && s.Plan.Rings[s.Plan.Control()].Members > 0:
		return "the control group, of which nobody is heard"
	}
	// Without a control group the scores stand still.
	for g := gates; g > 0 && s.Open < s.Plan.Control(); g-- {
		if s.score(g-1) > s.Numbers.Warm*s.limit() {
			return "gate " + (g - 1).String() + ", which is not sure"
		}
	}
	return ""
}

// score returns the highest score at a gate.
func (s *State) score(g Gate) (highest float64) {
	for i := range len(s.Strata) + 1 {
		highest = max(highest, top(s.contest(g, i).Scores))
	}
	if g == Silence {
		for i := range s.Cohorts {
			highest = max(highest, top(s.Cohorts[i].Contest.Scores))
		}
	}
	return highest
}

// done reports whether the last ring is confirmed.
func (s *State) done() bool { return s.Open == s.Plan.Control() && s.Waits() == "" }
