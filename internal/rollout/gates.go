package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Gate is one thing that is watched.
type Gate uint8

// The gates.
const (
	Boot     Gate = iota // the host or the daemon did not come up
	Recovery             // its recovery environment said so, and that this release was the last change
	Silence              // not heard of
	Crash                // the provider's process ended by itself
	Watchdog             // it was ended because it made no progress
	Timeouts             // verdicts late
	Denials              // denies what it did not deny before
	CPU
	Memory
	Latency
	gates // how many
)

var gateNames = [gates]string{
	"boot", "recovery", "silence", "crash", "watchdog", "timeouts", "denials", "cpu", "memory", "latency",
}

// String returns the gate's name, as in JSON.
func (g Gate) String() string {
	if g >= gates {
		return fmt.Sprintf("gate %d", uint8(g))
	}
	return gateNames[g]
}

// MarshalText writes the gate's name.
func (g Gate) MarshalText() ([]byte, error) {
	if g >= gates {
		return nil, fmt.Errorf("gate %d is not known", uint8(g))
	}
	return []byte(gateNames[g]), nil
}

// UnmarshalText reads a gate's name.
func (g *Gate) UnmarshalText(text []byte) error {
	i := slices.Index(gateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("gate %q is not known", text)
	}
	*g = Gate(i)
	return nil
}

// pauses reports whether the gate only pauses: what costs too much harms nobody at once.
func (g Gate) pauses() bool { return g >= CPU }

// incident reports whether hosts report the gate as incidents with signatures.
func (g Gate) incident() bool {
	return g == Boot || g == Recovery || g == Crash || g == Watchdog || g == Denials
}

// Arm is the side of a comparison.
type Arm int

// The arms.
const (
	Treated Arm = iota // granted, and since then
	Control            // of the control group, not yet granted
)

// Evidence is why a gate stopped a rollout.
type Evidence struct {
	Gate      Gate       `json:"gate"`
	Test      string     `json:"test"` // what was compared, in words
	Ring      int        `json:"ring"` // the highest open one
	Stratum   string     `json:"stratum,omitempty"`
	Signature string     `json:"signature,omitempty"`
	Hosts     []string   `json:"hosts,omitempty"` // a few of those that count
	Hits      [2]int     `json:"hits"`            // treated, control
	Exposure  [2]float64 `json:"exposure"`        // host-minutes, samples of load, or hosts: Test says which
	Score     float64    `json:"score"`           // natural logarithm of how much likelier a bad release makes this
	Limit     float64    `json:"limit"`
	At        time.Time  `json:"at"`
}

// Bucket counts the hosts with one new signature.
type Bucket struct {
	Gate      Gate            `json:"gate"`
	Signature string          `json:"signature"`
	At        []time.Duration `json:"at"`      // of State.Clock, of treated hosts; the latest few
	Hosts     []string        `json:"hosts"`   // treated, the first few
	Treated   int             `json:"treated"` // distinct hosts
	Control   int             `json:"control"` // distinct hosts of the control group
}

// Bounds of the buckets.
const (
	MaxBuckets   = 64  // new signatures; the one of a single host that is heard of least recently makes room
	bucketTimes  = 64  // Bucket.At
	bucketHosts  = 5   // Bucket.Hosts
	maxSignature = 256 // bytes of a signature that are kept
)

// count takes the hits of one report. A host counts once at each gate in a rollout, and not at all on the treated
// side when it did the same before it was granted: a machine that always denies something proves nothing.
func (s *State) count(now time.Time, h *Host, r *Row, rep *Report, e *Effects) {
	arm, ok := s.armOf(r)
	if r.Phase == WentBack && len(rep.Incidents) > 0 {
		arm, ok = Treated, true // it says why it went back
	}
	for _, in := range rep.Incidents[:min(len(rep.Incidents), MaxIncidents)] {
		newer := s.Behind && in.Release != "" && in.Release != s.Spec.Digest && in.Release != s.Spec.Previous
		if in.Gate.incident() && !newer {
			s.incident(now, h, r, in, arm, ok, e)
		}
	}
	if rep.Vital && ok && arm == Treated && r.Voted&(1<<Denials) == 0 {
		s.stop(e, Evidence{
			Gate: Denials, Test: "denied what the platform cannot live without", Hosts: []string{h.ID},
			Hits: [2]int{1, 0}, At: now,
		})
	}
	if rep.Timeouts && vote(r, uint(Timeouts)) && ok {
		s.contest(Timeouts, r.Stratum).Block[arm]++
	}
	if (rep.Denied || rep.Vital) && vote(r, uint(Denials)) && ok {
		s.contest(Denials, r.Stratum).Block[arm]++
		if arm == Treated {
			s.capDenials(now, h, e)
		}
	}
	if rep.Load != nil && ok {
		s.sample(r, rep.Load, arm)
	}
}

// signed is the bit of Row.Voted of a new signature. Late verdicts have no signatures: denials have their place.
func signed(g Gate) uint {
	if g == Denials {
		g = Timeouts
	}
	return uint(gates) + uint(g)
}

// vote reports whether the host has not counted there yet, and remembers that it has.
func vote(r *Row, bit uint) bool {
	if r.Voted&(1<<bit) != 0 {
		return false
	}
	r.Voted |= 1 << bit
	return true
}

// incident counts a crash or a boot failure: with a known signature against the control group's, with a new one by
// itself.
func (s *State) incident(now time.Time, h *Host, r *Row, in Incident, arm Arm, ok bool, e *Effects) {
	_, known := slices.BinarySearch(s.Spec.Known, in.Signature)
	if in.Gate == Denials && (known || s.Numbers.Denials <= 0) {
		return // Report.Denied counts it
	}
	if known {
		if vote(r, uint(in.Gate)) && ok {
			s.contest(in.Gate, r.Stratum).Block[arm]++
		}
		return
	}
	if in.Gate == Denials && !ok { // a host denies all its life: only what it denies while it is watched is new
		return
	}
	if !vote(r, signed(in.Gate)) || !ok {
		return
	}
	b := s.bucket(in)
	if arm == Control {
		b.Control++
		return
	}
	b.Treated++
	b.At = append(b.At, s.Clock)
	if len(b.At) > bucketTimes {
		b.At = b.At[1:]
	}
	if len(b.Hosts) < bucketHosts {
		b.Hosts = append(b.Hosts, h.ID)
	}
	s.judge(now, b, e)
}

// bucket finds or makes the bucket of a signature.
func (s *State) bucket(in Incident) *Bucket {
	signature := in.Signature[:min(len(in.Signature), maxSignature)]
	for i := range s.Buckets {
		if b := &s.Buckets[i]; b.Gate == in.Gate && b.Signature == signature {
			return b
		}
	}
	b := Bucket{Gate: in.Gate, Signature: signature}
	if len(s.Buckets) < MaxBuckets {
		s.Buckets = append(s.Buckets, b)
		return &s.Buckets[len(s.Buckets)-1]
	}
	// Buckets are in the order in which they came: the first of a single host goes, or else the first.
	i := max(slices.IndexFunc(s.Buckets, func(b Bucket) bool { return b.Treated+b.Control <= 1 }), 0)
	s.Buckets = append(append(s.Buckets[:i:i], s.Buckets[i+1:]...), b)
	return &s.Buckets[len(s.Buckets)-1]
}

// judge halts when more hosts have a new signature than chance gives: two, while few hosts run the release.
func (s *State) judge(now time.Time, b *Bucket, e *Effects) {
	treated, control := s.watched()
	hosts := treated + s.silentNow()
	rate := s.Numbers.Natural
	switch b.Gate {
	case Crash, Watchdog:
		rate = s.Numbers.Crashes
	case Denials:
		rate = s.Numbers.Denials
	default:
	}
	expected := rate * float64(hosts) * s.Numbers.Recent.Minutes()
	if b.Control > 0 {
		expected += float64(b.Control) * float64(hosts) / float64(max(control, 1))
	}
	recent := 0
	for _, at := range b.At {
		if s.Clock-at <= s.Numbers.Recent {
			recent++
		}
	}
	if recent < min(2, max(s.Plan.Rings[0].Members, 1)) || !rare(recent, expected, s.Numbers.Rare) {
		return
	}
	s.stop(e, Evidence{
		Gate: b.Gate, Signature: b.Signature, Hosts: slices.Clone(b.Hosts),
		Test: fmt.Sprintf("%d hosts with the same new signature", recent),
		Hits: [2]int{recent, b.Control}, Exposure: [2]float64{float64(hosts), float64(control)},
		Score: float64(recent), Limit: 2, At: now,
	})
}

// watched returns how many hosts are watched on each side.
func (s *State) watched() (treated, control int) {
	for i := range s.Strata {
		treated += s.Strata[i].Watched[Treated]
		control += s.Strata[i].Watched[Control]
	}
	return treated, control
}

// silentNow returns how many outstanding hosts are silent.
func (s *State) silentNow() (n int) {
	for i := range s.Rings {
		n += s.Rings[i].Silent
	}
	return n
}

// capDenials halts at once when far more hosts deny than in the control group.
func (s *State) capDenials(now time.Time, h *Host, e *Effects) {
	var hits [2]int
	for i := range s.Strata {
		c := s.contest(Denials, i)
		hits[0] += c.Hits[0] + c.Block[0]
		hits[1] += c.Hits[1] + c.Block[1]
	}
	treated, control := s.watched()
	treated++ // the host that reports is not watched during its report
	if hits[Treated] < min(s.Numbers.CapHosts, treated) ||
		float64(hits[Treated]) < s.Numbers.CapShare*float64(treated) ||
		float64(hits[Treated])*float64(control+1) <= s.Numbers.Cap*float64(hits[Control]+1)*float64(treated) {
		return
	}
	s.stop(e, Evidence{
		Gate: Denials, Hosts: []string{h.ID}, Hits: hits, Exposure: [2]float64{float64(treated), float64(control)},
		Test: fmt.Sprintf("%d of %d hosts deny what they did not deny before, of the control group %d of %d",
			hits[0], treated, hits[1], control),
		Score: float64(hits[Treated]) / float64(treated), At: now,
		Limit: s.Numbers.Cap * float64(hits[Control]+1) / float64(control+1),
	})
}

// capSilence halts when half of a ring is silent and the control group is not: too few for a test, and plain enough.
func (s *State) capSilence(now time.Time, h *Host, ring int, e *Effects) {
	r := &s.Rings[ring]
	_, control := s.watched()
	share := float64(s.Quiet) / float64(max(s.Quiet+control, 1))
	if r.Silent < 2 || 2*r.Silent < r.Granted || float64(r.Silent) < s.Numbers.Cap*share*float64(r.Granted) {
		return
	}
	s.stop(e, Evidence{
		Gate: Silence, Hosts: []string{h.ID}, Hits: [2]int{r.Silent, s.Quiet}, At: now,
		Exposure: [2]float64{float64(r.Granted), float64(s.Quiet + control)},
		Test: fmt.Sprintf("%d of %d hosts are silent, of the control group %d of %d",
			r.Silent, r.Granted, s.Quiet, s.Quiet+control),
		Score: float64(r.Silent) / float64(r.Granted), Limit: 0.5,
	})
}
