package rollout

import "time"

// Funnel is one ring in an Explanation.
type Funnel struct {
	Ring        int    `json:"ring"`
	Role        string `json:"role"` // ring, or control
	Members     int    `json:"members"`
	W           int    `json:"w"` // what may be outstanding now; 0 while it is closed
	Outstanding int    `json:"outstanding"`
	Granted     int    `json:"granted"`
	Soaking     int    `json:"soaking"`
	Confirmed   int    `json:"confirmed"`
	Silent      int    `json:"silent"`
	WrittenOff  int    `json:"written_off"`
	Failed      int    `json:"failed"`
	RolledBack  int    `json:"rolled_back"`
	Needed      int    `json:"needed"` // confirmed hosts before the next ring opens
	Waits       string `json:"waits,omitempty"`
}

// GateView is one gate in an Explanation.
type GateView struct {
	Gate     Gate       `json:"gate"`
	Hits     [2]int     `json:"hits"` // treated, control
	Exposure [2]float64 `json:"exposure"`
	Rate     [2]float64 `json:"rate"` // hits per exposure
	Score    float64    `json:"score"`
	Limit    float64    `json:"limit"`
	Action   string     `json:"action"` // halt or pause
}

// Explanation is a rollout as data for people. Field names are stable.
type Explanation struct {
	Rollout   string     `json:"rollout"`
	Provider  string     `json:"provider"`
	Channel   Channel    `json:"channel"`
	Class     Channel    `json:"class"`
	Schedule  string     `json:"schedule"`
	Digest    Digest     `json:"digest"`
	Previous  Digest     `json:"previous"`
	Status    Status     `json:"status"`
	Because   string     `json:"because,omitempty"`
	Approved  []string   `json:"approved"`
	Approvals int        `json:"approvals"` // needed
	Age       float64    `json:"age_minutes"`
	Rings     []Funnel   `json:"rings"`
	Gates     []GateView `json:"gates"`
	Buckets   []Bucket   `json:"buckets,omitempty"`
	Evidence  *Evidence  `json:"evidence,omitempty"`
}

// Explain returns the state as data for people.
func (s *State) Explain() Explanation {
	x := Explanation{
		Rollout: s.Spec.ID, Provider: s.Spec.Provider, Channel: s.Spec.Channel, Class: s.Spec.Class(),
		Schedule: s.Spec.Schedule(), Digest: s.Spec.Digest, Previous: s.Spec.Previous, Status: s.Status,
		Because: s.Because, Approved: s.Approved, Approvals: s.Spec.Approvals(), Buckets: s.Buckets, Evidence: s.Evidence,
		Rings: make([]Funnel, 0, len(s.Rings)), Gates: make([]GateView, 0, gates),
	}
	if s.Open >= 0 {
		x.Age = (s.Clock - s.StartedAt).Round(time.Second).Minutes()
	}
	for i := range s.Rings {
		x.Rings = append(x.Rings, s.funnel(i))
	}
	for g := range gates {
		x.Gates = append(x.Gates, s.view(g))
	}
	return x
}

func (s *State) funnel(i int) Funnel {
	r := &s.Rings[i]
	f := Funnel{
		Ring: i, Role: "ring", Members: s.Plan.Rings[i].Members, Outstanding: r.Outstanding(), Granted: r.Granted,
		Soaking: r.Soaking, Confirmed: r.Confirmed + r.Late, Silent: r.Silent + r.Gone, WrittenOff: r.WrittenOff,
		Failed: r.Failed, RolledBack: r.RolledBack, Needed: s.needed(i),
	}
	if i == s.Plan.Control() {
		f.Role = "control"
	}
	if i <= s.Open {
		f.W = s.room(i)
	}
	if i == s.Open && s.Status == Running {
		f.Waits = s.Waits()
	}
	return f
}

func (s *State) view(g Gate) GateView {
	all := s.contest(g, len(s.Strata))
	v := GateView{Gate: g, Hits: all.Hits, Exposure: all.Exposure, Score: s.score(g), Limit: s.limit(), Action: "halt"}
	if g.pauses() {
		v.Action = "pause"
	}
	for arm := range v.Rate {
		if v.Exposure[arm] > 0 {
			v.Rate[arm] = float64(v.Hits[arm]) / v.Exposure[arm]
		}
	}
	return v
}
