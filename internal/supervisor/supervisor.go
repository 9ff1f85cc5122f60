// Package supervisor decides what to do with one provider's process: start it, wait, end it, try again. It is
// pure: time comes in with each input, and what is to be done goes out as effects.
package supervisor

import "time"

// State is where a provider is in its life.
type State string

// The states.
const (
	Disabled State = "disabled" // an administrator said so
	Starting State = "starting" // the process runs; its handshake is due
	Loading  State = "loading"  // it has said hello and reads its content
	Running  State = "running"  // it has subscribed and votes
	Degraded State = "degraded" // it votes, but says that something is wrong
	Backoff  State = "backoff"  // it ended; a new start is due later
)

// Config holds the numbers, all of them durations of real time.
type Config struct {
	Handshake time.Duration // from start to hello
	Load      time.Duration // from hello to subscribe
	Silence   time.Duration // without a heartbeat, once it has said hello; the roster sets it to three intervals
	FirstWait time.Duration // before the first restart; doubles with each further one
	MaxWait   time.Duration
	Stable    time.Duration // of running, after which the wait starts small again
}

// Defaults are the documented numbers; docs/protocol.md and SPECIFICATION.md name them.
func Defaults() Config {
	return Config{
		Handshake: 5 * time.Second, Load: 5 * time.Minute, Silence: 6 * time.Second,
		FirstWait: time.Second, MaxWait: time.Minute, Stable: 10 * time.Minute,
	}
}

// Kind says what happened.
type Kind uint8

// The inputs.
const (
	Enable     Kind = iota + 1
	Disable         // by an administrator, or because the configuration no longer names it
	Hello           // the handshake is done
	Subscribed      // it is ready to vote
	Beat            // a heartbeat; Degraded tells how it feels
	Ended           // its process has ended, or could not be started
	Broke           // it broke the protocol
	Tick            // time passes
)

// Input is one thing that happened.
type Input struct {
	Kind     Kind
	Degraded bool   // with Beat
	Cause    string // with Ended and Broke
}

// Effect is one thing to do.
type Effect uint8

// The effects.
const (
	Start Effect = iota + 1 // start a process
	Kill                    // end it at once; Ended follows
	Drain                   // ask it to finish, then end it; Ended follows
)

// Provider is the supervisor's view of one provider. The zero value is disabled and has never run.
type Provider struct {
	State    State
	Restarts int    // since it was enabled
	Cause    string // why it is not running, or last stopped

	wait   time.Duration // of the current back-off
	since  time.Time     // of the current state
	heard  time.Time     // of the last sign of life
	ending bool          // Kill was asked for, Ended is due
}

// Next returns the state after in at time now, and what to do.
func (p Provider) Next(c Config, now time.Time, in Input) (Provider, []Effect) {
	if p.State == "" {
		p.State = Disabled
	}
	switch in.Kind {
	case Enable:
		if p.State != Disabled {
			return p, nil
		}
		p.Restarts, p.wait, p.Cause = 0, 0, ""
		if p.ending { // the old process is still going; Ended will find it enabled
			return p.enter(Backoff, now), nil
		}
		return p.enter(Starting, now), []Effect{Start}
	case Disable:
		return p.disable(now)
	case Ended:
		return p.ended(c, now, in.Cause), nil
	case Broke:
		return p.kill(in.Cause)
	case Tick:
		return p.tick(c, now)
	case Hello, Subscribed, Beat:
		return p.alive(now, in), nil
	}
	return p, nil
}

func (p Provider) enter(s State, now time.Time) Provider {
	p.State, p.since, p.heard = s, now, now
	return p
}

// up reports whether a process is running and wanted.
func (p Provider) up() bool {
	return p.State == Starting || p.State == Loading || p.State == Running || p.State == Degraded
}

func (p Provider) disable(now time.Time) (Provider, []Effect) {
	up := p.up()
	p = p.enter(Disabled, now)
	p.Cause = "disabled"
	if up && !p.ending {
		p.ending = true
		return p, []Effect{Drain}
	}
	return p, nil
}

// kill asks for the end of the process, once.
func (p Provider) kill(cause string) (Provider, []Effect) {
	if !p.up() || p.ending {
		return p, nil
	}
	p.ending, p.Cause = true, cause
	return p, []Effect{Kill}
}

// ended starts the back-off, or rests when the provider is disabled.
func (p Provider) ended(c Config, now time.Time, cause string) Provider {
	if !p.ending {
		p.Cause = cause // otherwise the reason for killing it says more
	}
	ran := p.State == Running || p.State == Degraded
	p.ending = false
	if p.State == Disabled {
		return p
	}
	if p.wait == 0 || ran && now.Sub(p.since) >= c.Stable {
		p.wait = c.FirstWait
	} else {
		p.wait = min(2*p.wait, c.MaxWait)
	}
	return p.enter(Backoff, now)
}

// alive notes a sign of life.
func (p Provider) alive(now time.Time, in Input) Provider {
	if p.ending || !p.up() {
		return p
	}
	p.heard = now
	switch {
	case in.Kind == Hello && p.State == Starting:
		return p.enter(Loading, now)
	case in.Kind == Subscribed && p.State == Loading:
		return p.enter(Running, now)
	case in.Kind == Beat && in.Degraded && p.State == Running:
		p.State = Degraded // since stays: it has been voting all the time
	case in.Kind == Beat && !in.Degraded && p.State == Degraded:
		p.State = Running
	}
	return p
}

// tick ends a provider whose time is over, and starts one whose back-off is.
func (p Provider) tick(c Config, now time.Time) (Provider, []Effect) {
	switch p.State {
	case Starting:
		if now.Sub(p.since) >= c.Handshake {
			return p.kill("no handshake")
		}
	case Loading:
		if now.Sub(p.since) >= c.Load {
			return p.kill("loading its content takes too long")
		}
		if now.Sub(p.heard) >= c.Silence {
			return p.kill("silent while loading")
		}
	case Running, Degraded:
		if now.Sub(p.heard) >= c.Silence {
			return p.kill("no heartbeat")
		}
	case Backoff:
		if !p.ending && now.Sub(p.since) >= p.wait {
			p.Restarts++
			return p.enter(Starting, now), []Effect{Start}
		}
	case Disabled:
	}
	return p, nil
}

// RetryIn says how long a provider in Backoff still waits.
func (p Provider) RetryIn(now time.Time) time.Duration {
	if p.State != Backoff {
		return 0
	}
	return max(p.wait-now.Sub(p.since), 0)
}

// Due says when a Tick would do something, so that nobody has to tick in vain.
func (p Provider) Due(c Config) (time.Time, bool) {
	if p.ending {
		return time.Time{}, false
	}
	switch p.State {
	case Starting:
		return p.since.Add(c.Handshake), true
	case Loading:
		return earlier(p.since.Add(c.Load), p.heard.Add(c.Silence)), true
	case Running, Degraded:
		return p.heard.Add(c.Silence), true
	case Backoff:
		return p.since.Add(p.wait), true
	case Disabled:
	}
	return time.Time{}, false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
