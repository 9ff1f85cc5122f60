package rollout

import (
	"errors"
	"fmt"
	"time"
)

// Numbers holds every number of a rollout. A rollout keeps the ones that it began with.
type Numbers struct {
	First   int           `json:"first"`    // hosts in ring 0 of a large fleet
	Growth  int           `json:"growth"`   // each ring is that many times the one before, and so is its W at most
	Soak    time.Duration `json:"soak"`     // of running well, before a host is confirmed
	CheckIn time.Duration `json:"check_in"` // between check-ins of hosts that are watched
	Idle    time.Duration `json:"idle"`     // between check-ins of all others
	Crowd   int           `json:"crowd"`    // a larger ring's hosts check in each Idle while they wait, and once confirmed
	Missed  int           `json:"missed"`   // check-ins left out make a host silent
	Watch   time.Duration `json:"watch"`    // after a grant, a host that falls silent counts that long

	GrantLife time.Duration `json:"grant_life"` // at most MaxGrantLife
	Gap       time.Duration `json:"gap"`        // the most that may pass between two inputs; a longer one counts as this

	ControlShare float64 `json:"control_share"` // of the fleet: the last ring, and what the others are compared with
	ControlMin   int     `json:"control_min"`   // hosts, but at most a quarter of the fleet
	ControlMax   int     `json:"control_max"`

	Acks   float64 `json:"acks"`   // of a ring's members must be confirmed before the next ring opens
	Strata float64 `json:"strata"` // of the strata that were granted in it must have one that is
	Warm   float64 `json:"warm"`   // of a gate's limit: no ring opens while one is above

	Alpha     float64       `json:"alpha"`      // error rate of one gate's test: a healthy release, from one restart on
	Ratios    []float64     `json:"ratios"`     // that the tests look for: how much worse than the control
	Rare      float64       `json:"rare"`       // error rate of one new signature, over any time of Recent
	Natural   float64       `json:"natural"`    // host-minute: a boot failure with one signature nobody has seen before
	Crashes   float64       `json:"crashes"`    // the same, of a crash
	Denials   float64       `json:"denials"`    // the same, of a denial; 0: such signatures count nothing
	Recent    time.Duration `json:"recent"`     // the time over which new signatures are counted
	Cap       float64       `json:"cap"`        // times as many denying or silent hosts as in the control halt at once,
	CapHosts  int           `json:"cap_hosts"`  // if that many hosts deny at least,
	CapShare  float64       `json:"cap_share"`  // and that share of those who run the release
	Quantile  float64       `json:"quantile"`   // of the control's load: above it a host is heavy
	Points    int           `json:"points"`     // of load in the control, before it means something
	LoadAfter time.Duration `json:"load_after"` // of running it, a host's load is looked at
}

// MaxGrantLife is the longest life of a grant: after a halt, no host activates later than this.
const MaxGrantLife = 5 * time.Minute

// Defaults are the documented numbers of the schedule Normal; docs/rollout.md says why.
func Defaults() Numbers {
	return Numbers{
		First: 20, Growth: 8, Soak: 30 * time.Minute,
		CheckIn: time.Minute, Idle: 5 * time.Minute, Crowd: 100_000, Missed: 3, Watch: 72 * time.Hour,
		GrantLife: MaxGrantLife, Gap: 2 * time.Minute,
		ControlShare: 0.05, ControlMin: 200, ControlMax: 500_000,
		Acks: 0.25, Strata: 0.5, Warm: 0.5,
		Alpha: 1e-8, Ratios: []float64{2, 4, 16, 128, 1024}, Rare: 1e-6, Natural: 1e-9, Crashes: 1e-8,
		Denials: 1e-5, Recent: time.Hour,
		Cap: 5, CapHosts: 3, CapShare: 0.1, Quantile: 0.95, Points: 100, LoadAfter: 5 * time.Minute,
	}
}

// Soaks of the other schedules.
const (
	fastSoak = 10 * time.Minute
	slowSoak = 7*time.Hour + 24*time.Minute // seven rings in 52 hours
)

// Schedule returns the numbers of a schedule: Fast, Normal or Slow. They differ in the soak only: no schedule skips
// a ring, a gate or W.
func Schedule(name string) (Numbers, error) {
	n := Defaults()
	switch name {
	case Fast:
		n.Soak = fastSoak
	case Normal:
	case Slow:
		n.Soak = slowSoak
	default:
		return n, fmt.Errorf("schedule %q is not known: %s, %s or %s", name, Fast, Normal, Slow)
	}
	return n, nil
}

// Check reports numbers that make no rollout.
func (n *Numbers) Check() error {
	switch {
	case n.First < 1 || n.Growth < 2:
		return errors.New("ring 0 needs a host, and rings must grow")
	case n.Soak <= 0 || n.CheckIn <= 0 || n.Idle <= 0 || n.Missed < 1 || n.Gap <= 0 || n.Watch <= 0 || n.Recent <= 0:
		return errors.New("a time is not positive")
	case n.GrantLife <= 0 || n.GrantLife > MaxGrantLife:
		return fmt.Errorf("a grant of %v: at most %v", n.GrantLife, MaxGrantLife)
	case n.Alpha <= 0 || n.Alpha >= 1 || n.Rare <= 0 || n.Rare >= 1 || n.Natural <= 0 || n.Crashes <= 0:
		return errors.New("an error rate or a natural rate is not between 0 and 1")
	case n.Quantile <= 0 || n.Quantile >= 1 || n.ControlShare < 0 || n.ControlShare > 0.5:
		return errors.New("a share is out of its range")
	case len(n.Ratios) == 0 || len(n.Ratios) > MaxRatios:
		return fmt.Errorf("%d ratios: 1 to %d", len(n.Ratios), MaxRatios)
	}
	for _, r := range n.Ratios {
		if r <= 1 {
			return fmt.Errorf("ratio %v: nothing worse to look for", r)
		}
	}
	return nil
}
