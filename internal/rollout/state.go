package rollout

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Phase is how far one host is.
type Phase uint8

// The phases. Granted and Soaking hosts are outstanding: they take up room in W.
const (
	Pending    Phase = iota // not granted
	Activating              // granted, has not said that it runs the release
	Soaking                 // runs it
	Confirmed               // ran it well for the soak
	WentBack                // ran it and went back, by itself or because it was told
	Foreign                 // runs it without a grant
	Ahead                   // took a newer release, of a rollout that came after this one
)

// Row is what is kept of one host. Durations are of State.Clock. Its JSON form may be stored as it is; whoever uses
// columns needs an index on Due.
type Row struct {
	Known   bool  `json:"known,omitempty"` // Ring and Stratum are set
	Ring    int   `json:"ring"`            // -1: in none (pinned never)
	Stratum int   `json:"stratum"`         // index in Plan.Strata
	Phase   Phase `json:"phase"`
	Silent  bool  `json:"silent,omitempty"`
	// WrittenOff: it was silent for so long that its room was given to others, and came back later.
	WrittenOff bool `json:"written_off,omitempty"`
	// Voted: bit g says that gate g has counted it, bit signed(g) that it did so by a new signature; each host counts once
	// for each.
	Voted uint16 `json:"voted,omitempty"`

	GrantedAt time.Duration `json:"granted_at,omitempty"`
	SoakingAt time.Duration `json:"soaking_at,omitempty"` // healthy since
	SampledAt time.Duration `json:"sampled_at,omitempty"` // its Load was last looked at
	Seen      time.Duration `json:"seen,omitempty"`       // its last check-in
	Due       time.Duration `json:"due,omitempty"`        // silent from then on; 0: nobody waits for it
}

// Outstanding reports whether the host takes up room in W.
func (r *Row) Outstanding() bool {
	return (r.Phase == Activating || r.Phase == Soaking) && !r.WrittenOff
}

// Status is how far a rollout is.
type Status string

// The statuses.
const (
	Draft    Status = "draft"   // waits for people
	Running  Status = "running" //
	OnHold   Status = "paused"  // by a person or a gate; Resume goes on
	Stopped  Status = "halted"  // for ever; the next try is another rollout
	Complete Status = "complete"
)

// Ring is the count of one ring.
type Ring struct {
	Granted    int `json:"granted"`     // grants that took up room
	Confirmed  int `json:"confirmed"`   // of these, hosts that ran it well for the soak
	WrittenOff int `json:"written_off"` // of these: Returned, or silent as often as control hosts are
	Returned   int `json:"returned"`    // part of WrittenOff: proved that they never activated, or have moved on
	Silent     int `json:"silent"`      // outstanding and silent now
	Gone       int `json:"gone"`        // written off and silent now
	Soaking    int `json:"soaking"`     // outstanding and heard of
	Failed     int `json:"failed"`      // went back by themselves
	RolledBack int `json:"rolled_back"` // were told to, and did
	Late       int `json:"late"`        // confirmed after they had been written off
	Stuck      int `json:"stuck"`       // outstanding for ever: went back before they were confirmed

	Exposure float64       `json:"exposure"` // minutes that hosts of this ring were outstanding
	OpenedAt time.Duration `json:"opened_at,omitempty"`
	Reached  []int         `json:"reached"` // granted, by stratum
	Strata   []int         `json:"strata"`  // confirmed, by stratum
}

// Outstanding is granted − confirmed − written off.
func (r *Ring) Outstanding() int { return r.Granted - r.Confirmed - r.WrittenOff }

// State is one rollout. It is a value: Step never changes the one that it is called on.
type State struct {
	Spec    Spec    `json:"spec"`
	Numbers Numbers `json:"numbers"`
	Plan    Plan    `json:"plan"`

	Status   Status    `json:"status"`
	Approved []string  `json:"approved"`           // people, in order
	Because  string    `json:"because,omitempty"`  // why it is paused or halted
	Evidence *Evidence `json:"evidence,omitempty"` // which gate did that
	Epoch    uint64    `json:"epoch,omitempty"`
	Serial   uint64    `json:"serial"` // of the last grant
	Behind   bool      `json:"behind,omitempty"`

	Clock     time.Duration `json:"clock"` // time that the rollout ran under a controller; see Numbers.Gap
	Seen      time.Time     `json:"seen,omitzero"`
	StartedAt time.Duration `json:"started_at,omitempty"`
	BlockAt   time.Duration `json:"block_at,omitempty"` // when the gates were last looked at
	TurnAt    time.Duration `json:"turn_at,omitempty"`  // when the last turn of Left began

	Open      int                 `json:"open"`  // the highest open ring; -1 before the start
	Quiet     int                 `json:"quiet"` // silent hosts of the control group
	Rings     []Ring              `json:"rings"`
	Strata    []Stratum           `json:"strata"`
	Gates     []Contest           `json:"gates"`   // gate × (strata, then all)
	Cohorts   []Cohort            `json:"cohorts"` // by ring
	Limits    []Level             `json:"limits"`
	Buckets   []Bucket            `json:"buckets,omitempty"` // new signatures
	Customers map[string]Customer `json:"customers,omitempty"`

	dice *Dice // made when needed; never shared between copies
}

// Stratum counts the hosts of a stratum that are being watched and are not silent.
type Stratum struct {
	Watched [2]int `json:"watched"` // now, by Arm
	Was     [2]int `json:"was"`     // when the gates were last looked at
	// Distant is the part of Watched[Treated] whose silence does not count, and WasDistant that of Was.
	Distant    int  `json:"distant"`
	WasDistant int  `json:"was_distant"`
	Left       Left `json:"left"`
}

// Left counts the hosts that became distant lately: in this turn, and in the one before. A turn is what makes a host
// silent. Who is there becomes distant at once, who is not is silent a turn later: without those who just left, the
// silent ones would be held against the few that remain.
type Left [2]int

func (l *Left) sum() int { return l[0] + l[1] }

func (l *Left) turn() { l[0], l[1] = 0, l[0] }

// Cohort compares the hosts of one ring with the control group at the gate Silence, stratum by stratum, because who
// remains to be confirmed late are mostly those who come and go. A defect that takes its time shows in the earliest
// ring first, where few hosts are: among those of all rings nobody would notice.
type Cohort struct {
	Strata  []Company `json:"strata"`
	Contest Contest   `json:"contest"`
}

// Company is the hosts of one ring and one stratum.
type Company struct {
	Watched int  `json:"watched,omitempty"` // were granted, are watched, not distant and not silent
	Was     int  `json:"was,omitempty"`     // when the gates were last looked at
	Left    Left `json:"left"`
	Lapsed  int  `json:"lapsed,omitempty"` // fell silent since the last look
}

// New returns the state of a rollout that nobody has approved but its creator. numbers is usually Schedule's.
func New(spec Spec, numbers Numbers, plan Plan) (State, error) {
	if err := spec.Check(); err != nil {
		return State{}, err
	}
	if err := numbers.Check(); err != nil {
		return State{}, err
	}
	if err := plan.Check(); err != nil {
		return State{}, err
	}
	spec.Known = slices.Sorted(slices.Values(spec.Known))
	s := State{
		Spec: spec, Numbers: numbers, Plan: plan, Status: Draft, Approved: []string{spec.By}, Open: -1,
		Rings: make([]Ring, len(plan.Rings)), Strata: make([]Stratum, len(plan.Strata)),
		Gates: make([]Contest, int(gates)*(len(plan.Strata)+1)), Limits: make([]Level, int(gates)*len(plan.Strata)),
		Cohorts: make([]Cohort, len(plan.Rings)),
	}
	for i := range s.Rings {
		s.Rings[i].Reached = make([]int, len(plan.Strata))
		s.Rings[i].Strata = make([]int, len(plan.Strata))
		s.Cohorts[i].Strata = make([]Company, len(plan.Strata))
	}
	return s, nil
}

// clone copies what a step may change.
func (s *State) clone() State {
	next := *s
	next.dice = nil
	next.Approved = slices.Clone(s.Approved)
	next.Rings = slices.Clone(s.Rings)
	for i := range next.Rings {
		next.Rings[i].Reached = slices.Clone(s.Rings[i].Reached)
		next.Rings[i].Strata = slices.Clone(s.Rings[i].Strata)
	}
	next.Strata = slices.Clone(s.Strata)
	next.Gates = slices.Clone(s.Gates)
	next.Cohorts = slices.Clone(s.Cohorts)
	for i := range next.Cohorts {
		next.Cohorts[i].Strata = slices.Clone(s.Cohorts[i].Strata)
	}
	next.Limits = slices.Clone(s.Limits)
	next.Buckets = slices.Clone(s.Buckets)
	for i := range next.Buckets {
		next.Buckets[i].At = slices.Clone(s.Buckets[i].At)
		next.Buckets[i].Hosts = slices.Clone(s.Buckets[i].Hosts)
	}
	next.Customers = maps.Clone(s.Customers)
	return next
}

// Check reports what no step could have made, the invariant on W among it: for a state that was read from a store,
// and for tests.
func (s *State) Check() error {
	if err := errors.Join(s.Spec.Check(), s.Numbers.Check(), s.Plan.Check()); err != nil {
		return err
	}
	switch s.Status {
	case Draft, Running, OnHold, Stopped, Complete:
	default:
		return fmt.Errorf("%q is no status", s.Status)
	}
	strata := len(s.Plan.Strata)
	if len(s.Rings) != len(s.Plan.Rings) || len(s.Strata) != strata || len(s.Gates) != int(gates)*(strata+1) ||
		len(s.Limits) != int(gates)*strata || len(s.Cohorts) != len(s.Rings) ||
		s.Open >= len(s.Rings) || s.Open < -1 {
		return errors.New("the counts are not those of the plan")
	}
	for i := range s.Rings {
		r := &s.Rings[i]
		switch out := r.Outstanding(); {
		case len(r.Reached) != strata || len(r.Strata) != strata || len(s.Cohorts[i].Strata) != strata:
			return fmt.Errorf("ring %d: the counts are not those of the plan", i)
		case out > s.Plan.Rings[i].W:
			return fmt.Errorf("ring %d: %d outstanding, W is %d", i, out, s.Plan.Rings[i].W)
		case out != r.Soaking+r.Silent+r.Stuck:
			return fmt.Errorf("ring %d: %d outstanding are not %d soaking, %d silent and %d stuck",
				i, out, r.Soaking, r.Silent, r.Stuck)
		case slices.ContainsFunc(s.Cohorts[i].Strata, func(c Company) bool { return c.Watched < 0 }):
			return fmt.Errorf("ring %d: fewer than no hosts are watched", i)
		case min(r.Soaking, r.Silent, r.Gone, r.Stuck, r.Confirmed, r.WrittenOff, r.Returned) < 0:
			return fmt.Errorf("ring %d: a count is negative", i)
		case i > s.Open && r.Granted > 0:
			return fmt.Errorf("ring %d was granted and is not open", i)
		}
	}
	for i, st := range s.Strata {
		if min(st.Watched[0], st.Watched[1], st.Distant) < 0 || st.Distant > st.Watched[0] {
			return fmt.Errorf("stratum %d: a count is negative", i)
		}
	}
	return nil
}

// CheckRow reports a row that no step of this rollout could have made.
func (s *State) CheckRow(r *Row) error {
	switch {
	case !r.Known:
		return errors.New("it belongs nowhere")
	case r.Ring < -1 || r.Ring >= len(s.Plan.Rings) || r.Stratum < 0 || r.Stratum >= len(s.Plan.Strata):
		return fmt.Errorf("ring %d and stratum %d are not in the plan", r.Ring, r.Stratum)
	case r.Phase > Ahead:
		return fmt.Errorf("%d is no phase", r.Phase)
	case r.Ring < 0 && r.Phase >= Activating && r.Phase <= Confirmed:
		return errors.New("it was granted in no ring")
	}
	return nil
}
