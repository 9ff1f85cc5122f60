package sensor

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Judge decides questions. Its methods are called from the reader threads and must not block.
type Judge interface {
	// Wants reports whether anybody would be asked about events of this type; it is checked first, so that
	// an unwatched type costs next to nothing.
	Wants(t event.Type) bool
	// Could reports whether anybody would be asked about ev, by its type, the object's size and its path: false is
	// sure, also of what ev does not say. Where PathUnsure is set the path may be anything. With withOpen, ev is an
	// exec whose open half is judged with it.
	Could(ev *event.Event, withOpen bool) bool
	// Judge takes over q and sees to it that q.Answer is called exactly once.
	Judge(q *Question)
	// Observe sees one notify event.
	Observe(ev *event.Event)
}

// Config is what a sensor needs.
type Config struct {
	Group    *fanotify.Group       // holds the callers; the sensor's from now on
	Vital    []string              // paths that no provider may deny, beside DefaultVital
	Own      []string              // the platform's own files and folders: nor those, nor what lies below them
	Provider func(uid uint32) bool // whether a user id is a provider's
	Judge    Judge
	Keeper   Keeper // pins objects while they are judged; nil where nothing may be remembered
	// Prescanner is offered what writers have closed, if SetPrescan says so; nil where there is no Keeper.
	Prescanner Prescanner
}

// Bounds of the reader threads.
const (
	maxReaders = 8       // every reader is woken for every event, so more do not help
	readBuffer = 2 << 10 // bytes; about 60 events, which also bounds the descriptors taken at once
)

// idEpoch is when event ids began; a recent one keeps them short.
var idEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Sensor owns the kernel side. Its methods may be called concurrently.
type Sensor struct {
	judge    Judge
	keeper   Keeper
	provider func(uint32) bool
	self     int32

	perm, notify *fanotify.Group

	mu      sync.Mutex // serialises changes of what is marked
	scope   atomic.Pointer[scope]
	remotes map[uint64]*remote    // by device; a hung server holds up nobody else
	wanted  Types                 // somebody may be asked about these; used with mu held
	proving time.Time             // until then all types are marked; used with mu held
	failed  atomic.Pointer[error] // why not all that is wanted is marked
	stopped bool                  // nothing is marked any more; used with mu held

	vital   vitalSet
	pairs   pairs
	counts  *counters
	nextID  atomic.Uint64
	readers sync.WaitGroup

	scanner  Prescanner
	scans    atomic.Bool
	offers   chan offer
	ended    chan struct{}
	scanning sync.WaitGroup
}

// Probe reports why this process cannot have permission events, or nil. It marks nothing and leaves nothing open.
func Probe() error {
	g, err := fanotify.NewPermission()
	if err != nil {
		return err
	}
	g.Stop()
	return g.Close()
}

// New makes a sensor that reads c.Group and marks nothing yet. It needs root.
func New(c Config) (*Sensor, error) {
	notify, err := fanotify.NewNotify()
	if err != nil {
		return nil, err
	}
	s := &Sensor{
		judge: c.Judge, keeper: c.Keeper, provider: c.Provider, self: int32(os.Getpid()), perm: c.Group, notify: notify,
		remotes: map[uint64]*remote{}, counts: newCounters(), scanner: c.Prescanner,
		offers: make(chan offer, offerQueue), ended: make(chan struct{}),
	}
	s.scope.Store(&scope{})
	s.vital.protect(c.Own)
	s.ResolveVital(c.Vital)
	// Event ids go on from the clock, so that those of two runs do not collide in the journal: there is room for
	// a million events a second.
	s.nextID.Store(uint64(time.Since(idEpoch)/time.Second) << 20)
	return s, nil
}

// Start begins to read and then marks the watches; in this order, because a mark without a reader would make
// every opener wait.
func (s *Sensor) Start(watches []Watch) error {
	for cpu := range min(runtime.NumCPU(), maxReaders) {
		s.readers.Go(func() {
			var who actors
			defer who.close()
			s.read(s.perm, cpu, func(g *fanotify.Group, raw fanotify.Event, now time.Time) { s.question(g, raw, now, &who) })
		})
	}
	s.readers.Go(func() { s.read(s.notify, -1, s.observe) })
	if s.scanner != nil && s.keeper != nil {
		s.scanning.Go(s.prescan)
	}
	s.mu.Lock()
	for _, t := range event.Types() {
		s.wanted[t] = s.wanted[t] || s.judge.Wants(t)
	}
	s.mu.Unlock()
	return s.SetWatches(watches)
}

// SetPrescan says whether what a writer closes is offered to the Prescanner, from the next SetWatches on; at first it
// is not.
func (s *Sensor) SetPrescan(on bool) { s.scans.Store(on && s.scanner != nil && s.keeper != nil) }

// ResolveVital looks the vital set up again, with extra paths beside DefaultVital; for the start, and for after a
// package upgrade.
func (s *Sensor) ResolveVital(extra []string) {
	paths := append(DefaultVital(), extra...)
	s.vital.resolve(paths)
}

// Stop ends the readers, takes the marks away and gives up the groups. What still waits is allowed by the
// kernel, so the Judge should have answered before.
func (s *Sensor) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	close(s.ended)
	s.scanning.Wait() // while the readers still answer what it opens
	s.dropMarks(s.scope.Load(), &scope{})
	s.perm.Stop()
	s.notify.Stop()
	s.readers.Wait()
	return errors.Join(s.perm.Close(), s.notify.Close())
}

// Health reports what a person must know about the sensor, or nil.
func (s *Sensor) Health() error { return s.counts.failure() }

// Filesystem describes one watched file system.
type Filesystem struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`   // of a remote one, otherwise "local"
	Remote bool   `json:"remote"` // its files are allowed unasked
	// Asks are the types of events of which the kernel tells us now: of those that are watched, what somebody may want.
	Asks []event.Type `json:"asks"`
}

// Filesystems lists the watched file systems, sorted by path.
func (s *Sensor) Filesystems() []Filesystem {
	watched := s.scope.Load().filesystems
	out := make([]Filesystem, 0, len(watched))
	for _, f := range watched {
		marked := f.asks()
		fs := Filesystem{Path: f.path, Kind: f.kind, Remote: f.remote, Asks: []event.Type{}}
		for _, t := range event.Types() {
			if marked[t] && !f.remote && f.watches(t) {
				fs.Asks = append(fs.Asks, t)
			}
		}
		out = append(out, fs)
	}
	slices.SortFunc(out, func(a, b Filesystem) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// Counters says how many events were answered without a question, by reason, and what went wrong.
func (s *Sensor) Counters() Counters { return s.counts.snapshot() }
