// Package plan decides what the recovery environment does, and when. It is pure: what happened comes in, what is to be
// done goes out.
//
// It guarantees, whatever the server, the network, the disk and the person do: every visit ends by itself, with one
// restart, within Config.Longest, or stands at the menu, where only a person moves it; nothing is applied that was not
// verified before it came in; nothing restarts a machine that could not write down what it did, because such a machine
// would come back here for ever. The property test holds that.
package plan

import (
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

// Config is how long the environment tries. The names and the bounds of the first two are those that administrators
// know from other systems.
type Config struct {
	RetryInterval time.Duration // between two questions to the server; 1 to 4320 minutes
	TotalWait     time.Duration // until the local rule acts without a fix; 1 to 4320 minutes
	NetworkWait   time.Duration // until it acts without a network; 1 second to 1 hour
	OneScan       bool          // ask once: the first answer without a fix is the last
}

// Bounds and defaults of Config.
const (
	MinInterval          = time.Minute
	MaxInterval          = 4320 * time.Minute
	DefaultRetryInterval = 30 * time.Minute
	DefaultTotalWait     = 180 * time.Minute
	DefaultNetworkWait   = time.Minute
	minNetworkWait       = time.Second
	maxNetworkWait       = time.Hour
)

// Normal replaces what is zero by its default and what is out of bounds by the nearest bound.
func (c Config) Normal() Config {
	c.RetryInterval = within(c.RetryInterval, DefaultRetryInterval, MinInterval, MaxInterval)
	c.TotalWait = within(c.TotalWait, DefaultTotalWait, MinInterval, MaxInterval)
	c.NetworkWait = within(c.NetworkWait, DefaultNetworkWait, minNetworkWait, maxNetworkWait)
	return c
}

func within(d, otherwise, low, high time.Duration) time.Duration {
	if d == 0 {
		d = otherwise
	}
	return min(max(d, low), high)
}

// Time limits of what the environment does. Each effect is answered by an input; a limit stands in for one that is not.
const (
	saveLimit   = 30 * time.Second
	askLimit    = 2 * time.Minute // upload and question together
	applyLimit  = time.Minute
	reportLimit = 15 * time.Second
	// After an error the server is asked again after firstRetry, then twice that, up to RetryInterval.
	firstRetry = 15 * time.Second
	// minRetry bounds the hint by which a server may ask to be asked sooner than RetryInterval.
	minRetry = time.Second
	testWait = 2 * time.Minute // a test ends after this
)

// Longest bounds a visit in which nobody presses a key.
func (c Config) Longest() time.Duration {
	c = c.Normal()
	return saveLimit + c.NetworkWait + c.TotalWait + 2*askLimit + applyLimit + reportLimit
}

// Phase is what the environment is at.
type Phase string

// The phases, in the order in which a visit goes through them.
const (
	Saving     Phase = "saving"     // the diagnostics, onto the boot file system
	Connecting Phase = "connecting" // to the network
	Asking     Phase = "asking"     // the server
	Waiting    Phase = "waiting"    // until the next question
	Applying   Phase = "applying"   // writing down what the next boot does
	Reporting  Phase = "reporting"  // to the server, what was done
	Leaving    Phase = "leaving"    // the machine restarts or switches itself off
	Menu       Phase = "menu"       // a person decides
)

// Act is something to do.
type Act string

// The acts. Save, Connect, Ask, Apply and Report are answered by an input each; the others end the visit.
const (
	Save     Act = "save"
	Connect  Act = "connect" // until it succeeds; the address comes as Linked
	Ask      Act = "ask"     // upload the diagnostics if that is still to be done, and ask for a fix
	Apply    Act = "apply"   // Effect.Remedy
	Report   Act = "report"  // Effect.Remedy and State.Trouble
	Restart  Act = "restart"
	PowerOff Act = "power-off"
)

// Effect is one thing to do.
type Effect struct {
	Act    Act
	Remedy Remedy // of Apply and Report
}

// Source says who wanted a remedy.
type Source string

// The sources.
const (
	Server Source = "server" // a verified fix
	Local  Source = "local"  // the local rule
	Person Source = "person" // a key
	Test   Source = "test"   // nothing is changed
)

// Remedy is what is written down for the next boot.
type Remedy struct {
	Source Source
	ID     string      // of the server's fix
	Orders boot.Orders // of the local rule
	Mode   boot.Mode   // where the next boot begins; empty: as configured
	Why    string      // for people
}

// State is one visit. Begin makes it.
type State struct {
	Config   Config
	Phase    Phase
	Test     bool
	Attempts int    // questions asked
	Trouble  string // the last thing that went wrong, for the screen and the report
	Address  string // of this machine, once it has one
	Saved    bool
	Details  bool      // F2 was pressed
	Next     time.Time // of the next question, while Waiting
	GiveUp   time.Time // when the local rule acts
	Remedy   Remedy    // while Applying and after
	Facts    Facts

	limit time.Time // of the phase
	after Phase     // where Saving leads when the machine is at the menu from the start
	retry time.Duration
}

// Until is when the local rule acts if nothing happens before: without a network sooner than without a fix.
func (s *State) Until() time.Time {
	if s.Phase == Connecting && s.limit.Before(s.GiveUp) {
		return s.limit
	}
	return s.GiveUp
}

// Facts are what is known when the environment starts.
type Facts struct {
	Menu     bool       // too many recoveries: nothing is tried by itself
	Test     bool       // a person asked for a rehearsal
	Alone    bool       // no server is configured
	Unusable string     // why the boot file system cannot be written; then nothing is tried by itself
	Suspect  boot.Crumb // what was starting when the machine failed
	Orders   boot.Orders
	Visits   int // recoveries since the last good boot, this one included
}

// Begin starts a visit.
func Begin(now time.Time, c Config, f Facts) (State, []Effect) {
	s := State{
		Config: c.Normal(), Facts: f, Test: f.Test, Phase: Saving, Trouble: f.Unusable,
		limit: now.Add(saveLimit), after: Connecting, retry: firstRetry,
	}
	if f.Menu || f.Unusable != "" {
		s.after = Menu
	}
	return s, []Effect{{Act: Save}}
}

// String is for logs.
func (r Remedy) String() string {
	switch {
	case r.Source == Test:
		return "a test, which changes nothing"
	case r.ID != "":
		return "fix " + r.ID
	case len(r.Orders.Disabled) > 0:
		return fmt.Sprintf("start without %s", r.Orders.Disabled[0])
	case len(r.Orders.LastKnownGood) > 0 || r.Mode == boot.LastKnownGood:
		return "start with last-known-good content"
	case r.Orders.Safe || r.Mode == boot.Safe:
		return "start without third-party security"
	}
	return "start as configured"
}
