package roster

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Court is who asks the providers; the docket.
type Court interface {
	SetMembers(members []*docket.Member, awaited ...event.Type)
	Voted(s *session.Session, id uint64, vote event.Vote, reason event.Reason)
	Ended(s *session.Session)
	Forget(m *docket.Memory)
	Heard(m *docket.Memory, content string)
}

// Notes takes entries of the change journal. It must not block.
type Notes interface {
	Note(n journal.Note)
}

// Config is what a roster needs.
type Config struct {
	StateDir   string // providers get folders below it
	Court      Court
	Notes      Notes
	Log        *slog.Logger
	Supervisor supervisor.Config
	Owned      func(path string) bool // whether the distribution's packages own a path; may be nil. It must not block
	Store      *store.Store           // of the providers' versions
	// Caution says what this boot wants of a provider; may be nil. It must give the same answer each time.
	Caution func(id string) Caution
	// Crumb is told before each start of a provider, and when it is ready, and returns when that is kept; may be nil.
	Crumb func(boot.Crumb)
}

// Roster is safe for concurrent use.
type Roster struct {
	c      Config
	slots  *slots
	groups *sandbox.Groups
	diners *diners
	trials sync.WaitGroup // looks at candidates, and collections, that are going on
	wanted atomic.Int64   // collections that were asked for and have not begun

	members atomic.Uint64 // made so far

	settings atomic.Pointer[settings]

	mu       sync.Mutex
	lineages map[string]*lineage
	leaving  map[string]*lineage // the last one removed of each id, which may still run
	order    []string
	closed   bool
}

// settings are what the configuration says for all providers.
type settings struct {
	budgets config.Budgets
	updates config.Updates
	rules   rollback.Config
}

// New makes an empty roster.
func New(c Config) (*Roster, error) {
	s, err := loadSlots(filepath.Join(c.StateDir, "slots.json"))
	if err != nil {
		return nil, err
	}
	logs := filepath.Join(c.StateDir, logDir)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, fmt.Errorf("logs of providers: %w", err)
	}
	return &Roster{
		c: c, slots: s, groups: sandbox.NewGroups(c.StateDir), lineages: map[string]*lineage{},
		leaving: map[string]*lineage{}, diners: newDiners(c.Log, c.Notes),
	}, nil
}

// Apply makes the roster what the configuration says: new providers are started, those that are gone are drained, and
// what the configuration names is offered as a candidate where it is not what runs. A change of mode or budget needs
// no restart; one of limits, settings or rights needs another process.
func (r *Roster) Apply(installed []config.Installed, l *config.Loaded) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("roster is closed")
	}
	// First what can fail, so that an error leaves everything as it was.
	users := make([][lanes]int, len(installed))
	for lane := range lanes {
		for i, in := range installed {
			var err error
			if users[i][lane], err = r.slots.of(laneKey(in.ID, lane)); err != nil {
				return err
			}
		}
	}
	r.settings.Store(&settings{budgets: l.Budgets, updates: l.Updates, rules: rules(l.Updates)})
	wanted := map[string]bool{}
	r.order = r.order[:0]
	for i, in := range installed {
		wanted[in.ID] = true
		r.order = append(r.order, in.ID)
		of := r.lineages[in.ID]
		if of == nil {
			of = newLineage(r, in.ID, users[i], r.leaving[in.ID])
			r.lineages[in.ID] = of
		}
		of.configure(in)
	}
	for id, of := range r.lineages {
		if !wanted[id] {
			of.stop()
			delete(r.lineages, id)
			r.leaving[id] = of
		}
	}
	r.convene()
	return nil
}

// rules are the numbers of a promotion and a rollback.
func rules(u config.Updates) rollback.Config {
	c := rollback.Defaults()
	c.Samples, c.TrialMin, c.TrialIdle = uint64(u.Samples), time.Duration(u.Trial), time.Duration(u.TrialIdle)
	c.Settle, c.Soak = time.Duration(u.Settle), time.Duration(u.Soak)
	return c
}

func (r *Roster) rules() rollback.Config { return r.settings.Load().rules }

// convene tells the court who can be asked. Preconditions: mu is held.
func (r *Roster) convene() {
	var out []*docket.Member
	var awaited []event.Type
	for _, id := range r.order {
		if of := r.lineages[id]; of != nil {
			awaited = append(awaited, of.awaited()...)
			out = append(out, of.panel(r.settings.Load().budgets)...)
		}
	}
	r.c.Court.SetMembers(out, awaited...)
}

// changed is called when a member becomes ready or stops being so.
func (r *Roster) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.convene()
	}
}

// ErrUnknown reports a provider that is not configured, or a version that it does not have.
var ErrUnknown = errors.New("not known")

func (r *Roster) find(id string) (*lineage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.lineages[id]
	if of == nil {
		return nil, fmt.Errorf("%w: %q (configured: %v)", ErrUnknown, id, r.order)
	}
	return of, nil
}

// SetEnabled starts or drains one provider until it is configured anew. One that runs already gets a new start: what
// it was bypassed or demoted for is forgiven.
func (r *Roster) SetEnabled(id string, enabled bool) error {
	of, err := r.find(id)
	if err != nil {
		return err
	}
	of.enable(enabled)
	return nil
}

// Allow takes the refusal of a version back; digest is the beginning of its digest.
func (r *Roster) Allow(id, digest string) error {
	of, err := r.find(id)
	if err != nil {
		return err
	}
	return of.allow(digest)
}

// Promote does not wait for the rest of a candidate's trial.
func (r *Roster) Promote(id string) error {
	of, err := r.find(id)
	if err != nil {
		return err
	}
	part, on := of.trying()
	if !on {
		return fmt.Errorf("%w: %s has no candidate on trial", ErrUnknown, id)
	}
	of.mail.put(func() { of.step(rollback.Input{Kind: rollback.Promote, Part: part}) })
	return nil
}

// Status returns what is known of every provider, in the order of the configuration.
func (r *Roster) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Status, 0, len(r.order))
	for _, id := range r.order {
		if of := r.lineages[id]; of != nil {
			out = append(out, of.status())
		}
	}
	return out
}

// Problems lists what a person must know about the providers' versions and where they are kept.
func (r *Roster) Problems() []health.Problem {
	out := r.c.Store.Trouble() // first, because it may wait for a disk
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.order {
		if of := r.lineages[id]; of != nil {
			out = append(out, of.problems()...)
		}
	}
	return out
}

// Close drains every provider and returns when all have ended, at the latest after the drain time.
func (r *Roster) Close() {
	r.mu.Lock()
	r.closed = true
	all := append(slices.Collect(maps.Values(r.lineages)), slices.Collect(maps.Values(r.leaving))...)
	r.mu.Unlock()
	for _, of := range all {
		of.stop()
	}
	for _, of := range all {
		<-of.gone
	}
	r.trials.Wait()
	r.diners.close()
	r.groups.Close()
}

// Log returns the end of what a provider wrote to standard error, oldest first, at most limit bytes of it.
func (r *Roster) Log(id string, limit int64) ([]byte, error) {
	if _, err := r.find(id); err != nil {
		return nil, err
	}
	return readLog(filepath.Join(r.c.StateDir, logDir, id), limit)
}

// logDir is the folder of the providers' logs, below the roster's. It is not the providers'.
const logDir = "logs"

// Status is what is known of one provider.
type Status struct {
	ID          string                 `json:"id"`
	State       supervisor.State       `json:"state"`
	Mode        event.Mode             `json:"mode"`
	PID         int                    `json:"pid,omitempty"`
	UID         uint32                 `json:"uid,omitempty"`
	Engine      string                 `json:"engine,omitempty"`
	Content     string                 `json:"content,omitempty"`
	Cause       string                 `json:"cause,omitempty"` // why it is not running, or last stopped
	Detail      string                 `json:"detail,omitempty"`
	Restarts    int                    `json:"restarts"`
	RetryMS     int64                  `json:"retry_ms,omitempty"`
	Processed   uint64                 `json:"processed"` // as the provider says
	Counters    session.Counters       `json:"counters"`
	Recalled    uint64                 `json:"recalled"` // votes that were remembered instead of asked for
	Latency     docket.Quantiles       `json:"latency_us"`
	Breaker     []docket.BreakerStatus `json:"breaker"`
	Demoted     *docket.Demotion       `json:"demoted,omitempty"` // why it does not enforce although Mode says so
	Confinement sandbox.Confinement    `json:"confinement"`
	Yields      bool                   `json:"yields,omitempty"` // it burns processor time, and makes way for the others
	Versions    *Versions              `json:"versions,omitempty"`
}

// Versions says what a provider runs, tries, and would go back to.
type Versions struct {
	Engine     Slots  `json:"engine"`
	Content    Slots  `json:"content"`
	Trial      string `json:"trial,omitempty"`      // what is on trial, and what it has shown
	Quarantine string `json:"quarantine,omitempty"` // why it is not run
	Rollback   string `json:"rollback,omitempty"`   // the last one, with its cause
}

// Slots are one part's versions, each as its maker calls it or the beginning of its digest; empty is none.
type Slots struct {
	Active    string `json:"active,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	LKG       string `json:"lkg,omitempty"`
	Former    string `json:"former,omitempty"` // active before; only an order goes back to it
	Factory   string `json:"factory,omitempty"`
}

// sameProcess reports whether a running provider need not be replaced.
func sameProcess(a, b config.Installed) bool {
	return a.Manifest.SHA256 == b.Manifest.SHA256 && a.Content == b.Content && a.Limits == b.Limits &&
		reflect.DeepEqual(a.Rights, b.Rights) && reflect.DeepEqual(a.Values, b.Values) &&
		reflect.DeepEqual(a.Manifest.Events, b.Manifest.Events) && a.Manifest.Health == b.Manifest.Health
}
