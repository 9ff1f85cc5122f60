package drill

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/playground"
)

const (
	lookEvery = 50 * time.Millisecond
	readEvery = 10              // looks between two at the journal
	mostVotes = 500_000         // of good providers that are remembered
	answer    = time.Second     // that a look waits for the core
	noteSlack = 2 * time.Second // that notes may be out of order
)

// watcher looks at a platform from outside: its status, its verdicts, its change journal, and the hostile provider's
// processes.
type watcher struct {
	p     playground.Daemon
	trail string // folder of its journal
	id    string // of the hostile provider
	began time.Time
	all   sync.WaitGroup
	stop  context.CancelFunc

	mu    sync.Mutex
	e     evidence
	fault bool
	meter meter
	known map[string]bool // notes
}

// watch begins to look.
func watch(ctx context.Context, p playground.Daemon, trail, id string, began time.Time) *watcher {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{
		p: p, trail: trail, id: id, began: began, stop: stop, known: map[string]bool{},
		e: evidence{reasons: map[event.Reason]times{}},
	}
	w.all.Go(func() { w.follow(ctx) })
	w.all.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			w.look(ctx)
			if n%readEvery == 0 {
				w.read()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return w
}

// end stops looking. What the journal wrote last is read by evidence, after the platform has ended.
func (w *watcher) end() {
	w.stop()
	w.all.Wait()
}

// mark notes the moment of the fault.
func (w *watcher) mark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.e.fault, w.e.before = true, time.Since(w.began), w.e.last
	w.e.usage, w.meter = Usage{}, meter{}
}

// evidence returns what is known by now.
func (w *watcher) evidence() evidence {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.e
	e.reasons = maps.Clone(e.reasons)
	return e
}

// say adds what only the drill knows.
func (w *watcher) say(f func(*evidence)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.e)
}

// look asks for the status once.
func (w *watcher) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	s, err := w.p.Status(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	at, pid := time.Since(w.began), 0
	if err == nil {
		pid = s.PID
	}
	if n := len(w.e.cores); n == 0 || w.e.cores[n-1].pid != pid {
		w.e.cores = append(w.e.cores, coreSeen{at: at, pid: pid})
	}
	if err != nil {
		return
	}
	p := playground.Find(s, w.id)
	if p == nil {
		return
	}
	w.e.last = *p
	now := stateSeen{at: at, state: p.State, restarts: p.Restarts, cause: p.Cause}
	if n := len(w.e.states); n == 0 || w.e.states[n-1].state != now.state || w.e.states[n-1].restarts != now.restarts {
		w.e.states = append(w.e.states, now)
	}
	if w.fault && w.e.yields == 0 && p.Yields {
		w.e.yields = at
	}
	w.e.usage = w.meter.read(p.PID, time.Now(), w.e.usage)
}

// follow reads every verdict, and begins again when the core is another.
func (w *watcher) follow(ctx context.Context) {
	for ctx.Err() == nil {
		_ = w.p.Each(ctx, control.Request{Do: "events", Follow: true, Limit: 1}, w.verdict)
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

func (w *watcher) verdict(rec *event.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := rec.Event.Time.Sub(w.began)
	if w.fault && at >= w.e.fault {
		w.e.count(rec.Verdict.Reason, at)
	}
	for i := range rec.Verdict.Ballots {
		b := &rec.Verdict.Ballots[i]
		switch {
		case b.Provider == w.id:
			if w.fault && at >= w.e.fault && b.Reason != rec.Verdict.Reason {
				w.e.count(b.Reason, at)
			}
		case b.Counted && len(w.e.votes) < mostVotes:
			w.e.votes = append(w.e.votes, voted{at: at, took: b.Latency, id: b.Provider})
		}
	}
}

// read takes what is new in the change journal. A line that is being written is read the next time.
func (w *watcher) read() {
	since := w.began
	w.mu.Lock()
	if n := len(w.e.notes); n > 0 {
		since = w.began.Add(w.e.notes[n-1].at - noteSlack)
	}
	w.mu.Unlock()
	_ = journal.Read(w.trail, since, func(e *journal.Entry) bool { // what cannot be read is not seen, and fails the drill
		if e.Kind == journal.KindNote {
			w.note(e.Note)
		}
		return true
	})
}

func (w *watcher) note(n journal.Note) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := n.Time.String() + n.Code + n.Provider + n.Detail
	if w.known[key] || n.Time.Before(w.began) {
		return
	}
	w.known[key] = true
	w.e.notes = append(w.e.notes, noteSeen{at: n.Time.Sub(w.began), note: n})
}
