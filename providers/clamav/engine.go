package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

const (
	workers = 4 // scans at one time, clamd's threads, and sessions with it

	// overlapLimit is the size of a database, in bytes on disk, up to which old and new are loaded at one
	// time during a reload. The official one takes over 1 GB in memory: of it, two do not fit into the grant,
	// so the old clamd ends first and the provider abstains until the new one answers. freshclam tests what
	// it installs.
	overlapLimit = 32 << 20

	minBackoff = time.Second // before the first restart
	maxBackoff = 30 * time.Second
	goodLife   = time.Minute // after which a death counts as the first again

	pingEvery    = 5 * time.Second // while it runs
	maxSilent    = 3               // pings without answer until clamd counts as hung
	maxFailures  = 3               // failed scans in a row until the provider calls itself degraded
	defaultLimit = 10 * time.Second
)

// antivirus keeps one clamd running and asks it.
type antivirus struct {
	find func() (string, error) // locates the program

	current atomic.Pointer[daemon] // nil while none answers
	problem atomic.Pointer[string] // why none answers
	failed  atomic.Uint64          // scans in a row without a result
	reason  atomic.Pointer[string] // of the last failed one

	mu       sync.Mutex // held while clamd is started or replaced
	settings provider.Settings
	db       database
	backoff  time.Duration
	revival  *time.Timer // the pending restart
	closed   bool
}

func newEngine(a *antivirus) provider.Engine {
	return provider.Engine{
		Name:    "clamav",
		Version: version,
		Subscription: provider.Subscription{
			Events:  []event.Type{event.Open, event.Exec},
			MinSize: 1,
			MaxSize: maxContent,
			Content: true,
			AnyType: true,
		},
		Load:    a.load,
		Vote:    a.vote,
		Check:   a.check,
		Workers: workers,
	}
}

// load starts a clamd on the content as it is now, and puts it in the place of the one before.
func (a *antivirus) load(ctx context.Context, s provider.Settings) (string, error) {
	if s.Content == "" {
		s.Content = systemDatabase
	}
	if s.StateDir == "" {
		return "", errors.New("no state folder: clamd keeps its socket there")
	}
	if _, err := a.find(); err != nil {
		return "", err
	}
	db, err := readDatabase(s.Content)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.current.Load()
	if old != nil && db.size > overlapLimit {
		a.set("clamd is loading a new database", nil)
		old.stop()
		old = nil
	}
	a.settings, a.db = s, db
	d, err := a.start(ctx)
	if err != nil {
		if old == nil && a.problem.Load() != nil { // nothing runs any more, but something did
			a.reviveLater()
		}
		return "", err
	}
	content, err := contentVersion(ctx, d.socket, db)
	if err != nil {
		d.stop()
		return "", fmt.Errorf("ask clamd for its version: %w", err)
	}
	a.set("", d)
	if old != nil {
		old.stop()
	}
	return content, nil
}

// start starts a clamd and the watch over it. The caller holds mu.
func (a *antivirus) start(ctx context.Context) (*daemon, error) {
	if a.closed {
		return nil, context.Canceled
	}
	program, err := a.find()
	if err != nil {
		return nil, err
	}
	name := "clamd0"
	if old := a.current.Load(); old != nil && old.name == name {
		name = "clamd1" // at most two at one time
	}
	d, err := startDaemon(ctx, program, a.settings.StateDir, name, a.db)
	if err == nil {
		go a.watch(d) //nolint:gosec // it outlives the load, and with it ctx
	}
	return d, err
}

// set publishes who answers, or why nobody does.
func (a *antivirus) set(problem string, d *daemon) {
	a.problem.Store(&problem)
	a.current.Store(d)
	a.failed.Store(0)
}

// watch restarts clamd after it has ended unasked, and ends it when it no longer answers.
func (a *antivirus) watch(d *daemon) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for silent := 0; ; {
		select {
		case <-d.done:
			a.bury(d)
			return
		case <-tick.C:
		}
		silent++
		if d.ping(context.Background()) == nil {
			silent = 0
		}
		if silent >= maxSilent {
			d.kill()
		}
	}
}

// bury takes a clamd that has ended out of use.
func (a *antivirus) bury(d *daemon) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.Load() == d {
		if time.Since(d.began) > goodLife {
			a.backoff = 0
		}
		a.set("clamd is restarting: it ended: "+d.why(), nil)
		a.reviveLater()
	}
	d.stop()
}

// reviveLater tries to start clamd again after a pause, and again. The caller holds mu.
func (a *antivirus) reviveLater() {
	a.backoff = min(max(2*a.backoff, minBackoff), maxBackoff)
	if a.revival != nil {
		a.revival.Stop()
	}
	a.revival = time.AfterFunc(a.backoff, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.closed || a.current.Load() != nil {
			return
		}
		d, err := a.start(context.Background())
		if err != nil {
			a.set("clamd is restarting: "+err.Error(), nil)
			a.reviveLater()
			return
		}
		a.set("", d)
	})
}

// close ends clamd; the process's own end does that too.
func (a *antivirus) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if d := a.current.Swap(nil); d != nil {
		d.stop()
	}
}

// check explains what keeps the provider from doing its work.
func (a *antivirus) check() error {
	if a.current.Load() == nil {
		if problem := a.problem.Load(); problem != nil && *problem != "" {
			return errors.New(*problem)
		}
	}
	if n := a.failed.Load(); n >= maxFailures {
		return fmt.Errorf("%d scans in a row failed: %s", n, *a.reason.Load())
	}
	return nil
}

// vote asks clamd about the object of an event.
func (a *antivirus) vote(ev *provider.Event) provider.Vote {
	if ev.FD() < 0 {
		return provider.Abstain()
	}
	d := a.acquire()
	if d == nil {
		return provider.Abstain() // check says why
	}
	defer d.end()
	ctx := ev.Context()
	if ev.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultLimit)
		defer cancel()
	}
	found, err := d.scan(ctx, ev.FD())
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return provider.Abstain() // not wanted any more
	case err != nil:
		return a.fail(err.Error())
	case found.trying != "":
		return a.fail(found.trying)
	}
	a.failed.Store(0)
	return voteOn(ev, found.name)
}

// acquire returns the clamd in use, for which end must be called, or nil.
func (a *antivirus) acquire() *daemon {
	for {
		d := a.current.Load()
		if d == nil || d.begin() {
			return d
		}
	}
}

// fail counts a scan without a result, and says in the vote why it has no opinion.
func (a *antivirus) fail(reason string) provider.Vote {
	a.reason.Store(&reason)
	a.failed.Add(1)
	vote := provider.Abstain()
	vote.Rule = reason
	return vote
}
