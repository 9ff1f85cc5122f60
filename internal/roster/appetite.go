package roster

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/beat"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// How often the providers' processor time is looked at, and how long one burns it before that is written down.
const (
	lookBusy = time.Second
	lookRest = 4 * time.Second // the longest pause, while none of them does anything
	noteBurn = 10 * time.Second
)

// diner is one process at the table.
type diner struct {
	id       string // the provider's
	appetite supervisor.Appetite
	told     bool // the change journal says that it makes way
}

// diners watches how the processes of all providers share the processors, and lets those that burn them make way for
// the others.
type diners struct {
	log   *slog.Logger
	notes Notes
	over  chan struct{}
	ended chan struct{}
	once  sync.Once

	mu  sync.Mutex
	all map[*sandbox.Process]*diner // only the goroutine of watch looks into them
}

func newDiners(log *slog.Logger, notes Notes) *diners {
	d := &diners{
		log: log, notes: notes, over: make(chan struct{}), ended: make(chan struct{}), all: map[*sandbox.Process]*diner{},
	}
	go d.watch()
	return d
}

// close ends the watch.
func (d *diners) close() {
	d.once.Do(func() { close(d.over) })
	<-d.ended
}

// seat begins to watch a process.
func (d *diners) seat(id string, proc *sandbox.Process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[proc] = &diner{id: id}
}

// leave forgets a process that has ended.
func (d *diners) leave(proc *sandbox.Process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, proc)
}

// watch is the one goroutine: one for all, so that an idle host is woken once.
func (d *diners) watch() {
	defer close(d.ended)
	pause := lookBusy
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-d.over:
			return
		case <-timer.C:
		}
		if d.look() {
			pause = lookBusy
		} else {
			pause = min(2*pause, lookRest)
		}
		timer.Reset(beat.Next(pause))
	}
}

// look looks at everybody once, and reports whether anybody did something.
func (d *diners) look() (busy bool) {
	d.mu.Lock()
	all := maps.Clone(d.all)
	d.mu.Unlock()
	for proc, one := range all {
		burn := proc.Burned()
		d.judge(proc, one, burn, time.Now())
		busy = busy || burn.Works || burn.Starves
	}
	return busy
}

// judge lets a process make way, or no longer.
func (d *diners) judge(proc *sandbox.Process, one *diner, burn sandbox.Burn, now time.Time) {
	numbers := supervisor.DefaultAppetite()
	_, did := one.appetite.Yields()
	one.appetite = one.appetite.Look(numbers, now, burn.Percent, burn.Starves)
	since, does := one.appetite.Yields()
	if did || does {
		if err := proc.MakeWay(does, one.appetite.Last(numbers, now)); err != nil {
			d.log.Warn("processors", slog.String("provider", one.id), slog.Any("error", err))
		}
	}
	switch {
	case does && !one.told && now.Sub(since) >= noteBurn:
		one.told = true
		d.note(one.id, "provider.yields", "provider burns processor time and makes way for the others",
			fmt.Sprintf("%s: %d %% of a processor without a pause", one.id, burn.Percent))
	case !does && one.told:
		one.told = false
		d.note(one.id, "provider.rested", "provider leaves the processors to others again", "")
	}
}

func (d *diners) note(id, code, title, detail string) {
	d.log.Info("provider changed", slog.String("provider", id), slog.String("change", code), slog.String("detail", detail))
	d.notes.Note(journal.Note{Provider: id, Code: code, Title: title, Detail: detail, Severity: journal.Informational})
}
