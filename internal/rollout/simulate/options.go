package simulate

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// MaxHosts and MaxSeeds bound one call.
const (
	MaxHosts = 10_000_000
	MaxSeeds = 10_000
)

// Options says what is played.
type Options struct {
	Hosts    int
	Scenario string // one of Scenarios
	Schedule string // rollout.Fast, Normal or Slow
	Seeds    int    // runs, with the seeds Seed, Seed+1, …
	Seed     uint64
	Start    int     // hour of the day at which the rollout starts, 0 to 23
	Beacon   float64 // the share of dead hosts whose recovery environment reaches the control plane
	Liars    float64 // the share of hosts that say they are well whatever happens to them
	Skewed   float64 // the share of hosts whose clock is so wrong that they do not accept a grant
	Workers  int     // runs at a time; 0 chooses by processors and memory

	// Progress, unless nil, is called now and then, from one goroutine at a time.
	Progress func(Progress)
}

// Progress is how far a call is.
type Progress struct {
	Done, Seeds int           // runs
	At          time.Duration // simulated time of the first run under way
	Granted     int           // in it
}

// Defaults returns the options of the documented table.
func Defaults() Options {
	return Options{
		Hosts: 8_500_000, Scenario: "dead-at-load", Schedule: rollout.Normal, Seeds: 1, Seed: 1, Start: 10,
		Beacon: 0.6, Skewed: 0.001,
	}
}

// scenario is what a release does.
type scenario struct {
	name  string
	about string
	share float64       // of the hosts that it breaks
	after time.Duration // of running
	kind  harm
}

// harm is what happens to a host.
type harm uint8

const (
	none   harm = iota
	dies        // does not boot any more
	denies      // denies everything
	slows       // verdicts are late, and it takes four times the processor time
)

var scenarios = []scenario{
	{"healthy", "a good release", 0, 0, none},
	{"dead-at-load", "every host dies at once", 1, 0, dies},
	{"dead-1pct", "1 % of the hosts die at once", 0.01, 0, dies},
	{"dead-0.1pct", "0.1 % of the hosts die at once", 0.001, 0, dies},
	{"dead-after-30m", "every host dies after 30 minutes", 1, 30 * time.Minute, dies},
	{"dead-after-60m", "every host dies after an hour", 1, time.Hour, dies},
	{"dead-after-24h", "every host dies after a day", 1, 24 * time.Hour, dies},
	{"deny-storm", "the provider denies everything", 1, 0, denies},
	{"slow", "half of the hosts have late verdicts, all have four times the load", 1, 0, slows},
}

// Scenarios returns the names, and what each does.
func Scenarios() (names, about []string) {
	for _, s := range scenarios {
		names, about = append(names, s.name), append(about, s.about)
	}
	return names, about
}

func (o *Options) scenario() (scenario, error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == o.Scenario })
	if i < 0 {
		names, _ := Scenarios()
		return scenario{}, fmt.Errorf("scenario %q is not known: %s", o.Scenario, strings.Join(names, ", "))
	}
	return scenarios[i], nil
}

// Check reports options that cannot be played.
func (o *Options) Check() error {
	if _, err := o.scenario(); err != nil {
		return err
	}
	if _, err := rollout.Schedule(o.Schedule); err != nil {
		return err
	}
	for _, x := range []struct {
		name  string
		value float64
	}{{"beacon", o.Beacon}, {"liars", o.Liars}, {"skewed", o.Skewed}} {
		if !(x.value >= 0 && x.value <= 1) {
			return fmt.Errorf("%s %v: want a share from 0 to 1", x.name, x.value)
		}
	}
	switch {
	case o.Hosts < 1 || o.Hosts > MaxHosts:
		return fmt.Errorf("%d hosts: want 1 to %d", o.Hosts, MaxHosts)
	case o.Seeds < 1 || o.Seeds > MaxSeeds:
		return fmt.Errorf("%d seeds: want 1 to %d", o.Seeds, MaxSeeds)
	case o.Start < 0 || o.Start > 23:
		return fmt.Errorf("start at %d o'clock: want 0 to 23", o.Start)
	case o.Workers < 0:
		return fmt.Errorf("%d workers: want 1 at least, or 0 to choose", o.Workers)
	}
	return nil
}

// hostsAtATime bounds the memory of all runs at a time to about a gigabyte.
const hostsAtATime = 20_000_000

func (o *Options) workers() int {
	n := o.Workers
	if n == 0 {
		n = min(runtime.GOMAXPROCS(0), hostsAtATime/o.Hosts)
	}
	return max(1, min(n, o.Seeds))
}
