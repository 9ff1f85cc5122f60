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
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Court is who asks the providers; the docket.
type Court interface {
	SetMembers(members []*docket.Member)
	Voted(s *session.Session, id uint64, vote event.Vote, reason event.Reason)
	Ended(s *session.Session)
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
}

// Roster is safe for concurrent use.
type Roster struct {
	c      Config
	slots  *slots
	groups *sandbox.Groups

	mu      sync.Mutex
	members map[string]*member
	leaving map[string]*member // the last one removed of each id, which may still run
	order   []string
	budgets config.Budgets
	closed  bool
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
		c: c, slots: s, groups: sandbox.NewGroups(c.StateDir), members: map[string]*member{},
		leaving: map[string]*member{},
	}, nil
}

// Apply makes the roster what the configuration says: new providers are started, those that are gone are
// drained, and those whose process would be another are replaced. A change of mode or budget needs no restart.
func (r *Roster) Apply(installed []config.Installed, budgets config.Budgets) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errors.New("roster is closed")
	}
	// First what can fail, so that an error leaves everything as it was.
	slots := make([]int, len(installed))
	for i, in := range installed {
		var err error
		if slots[i], err = r.slots.of(in.ID); err != nil {
			return err
		}
	}
	r.budgets = budgets
	wanted := map[string]bool{}
	r.order = r.order[:0]
	for i, in := range installed {
		wanted[in.ID] = true
		r.order = append(r.order, in.ID)
		slot := slots[i]
		m := r.members[in.ID]
		if m == nil {
			m = newMember(r, in.ID, slot, r.leaving[in.ID])
			r.members[in.ID] = m
		}
		m.configure(in)
	}
	for id, m := range r.members {
		if !wanted[id] {
			m.stop()
			delete(r.members, id)
			r.leaving[id] = m
		}
	}
	r.convene()
	return nil
}

// convene tells the court who can be asked. Preconditions: mu is held.
func (r *Roster) convene() {
	var out []*docket.Member
	for _, id := range r.order {
		m := r.members[id]
		if m == nil {
			continue
		}
		s, in := m.ready()
		absent := m.absent()
		if s == nil && absent == nil {
			continue
		}
		out = append(out, &docket.Member{
			ID: id, Session: s, Absent: absent, Mode: in.Mode, FailClosed: in.OnFailure == "deny", Latency: m.latency,
			Metadata: time.Duration(r.budgets.Metadata), Content: time.Duration(r.budgets.Content),
		})
	}
	r.c.Court.SetMembers(out)
}

// changed is called by a member when it becomes ready or stops being so.
func (r *Roster) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.convene()
	}
}

// ErrUnknown reports a provider that is not configured.
var ErrUnknown = errors.New("no such provider")

func (r *Roster) find(id string) (*member, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.members[id]
	if m == nil {
		return nil, fmt.Errorf("%w: %q (configured: %v)", ErrUnknown, id, r.order)
	}
	return m, nil
}

// SetEnabled starts or drains one provider until the next Apply.
func (r *Roster) SetEnabled(id string, enabled bool) error {
	m, err := r.find(id)
	if err != nil {
		return err
	}
	m.enable(enabled)
	return nil
}

// Reload asks every running provider to read its content again.
func (r *Roster) Reload() {
	r.mu.Lock()
	members := slices.Collect(maps.Values(r.members))
	r.mu.Unlock()
	for _, m := range members {
		m.reload()
	}
}

// Status returns what is known of every provider, in the order of the configuration.
func (r *Roster) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Status, 0, len(r.order))
	for _, id := range r.order {
		if m := r.members[id]; m != nil {
			out = append(out, m.status())
		}
	}
	return out
}

// Close drains every provider and returns when all have ended, at the latest after the drain time.
func (r *Roster) Close() {
	r.mu.Lock()
	r.closed = true
	members, leaving := slices.Collect(maps.Values(r.members)), slices.Collect(maps.Values(r.leaving))
	r.mu.Unlock()
	for _, m := range members {
		m.stop()
	}
	for _, m := range append(members, leaving...) {
		<-m.gone
	}
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
	ID          string              `json:"id"`
	State       supervisor.State    `json:"state"`
	Mode        event.Mode          `json:"mode"`
	PID         int                 `json:"pid,omitempty"`
	UID         uint32              `json:"uid,omitempty"`
	Engine      string              `json:"engine,omitempty"`
	Content     string              `json:"content,omitempty"`
	Cause       string              `json:"cause,omitempty"` // why it is not running, or last stopped
	Detail      string              `json:"detail,omitempty"`
	Restarts    int                 `json:"restarts"`
	RetryMS     int64               `json:"retry_ms,omitempty"`
	Processed   uint64              `json:"processed"` // as the provider says
	Counters    session.Counters    `json:"counters"`
	Latency     docket.Quantiles    `json:"latency_us"`
	Confinement sandbox.Confinement `json:"confinement"`
}

// sameProcess reports whether a running provider need not be replaced.
func sameProcess(a, b config.Installed) bool {
	return a.Manifest.SHA256 == b.Manifest.SHA256 && a.Content == b.Content && a.Limits == b.Limits &&
		reflect.DeepEqual(a.Rights, b.Rights) && reflect.DeepEqual(a.Values, b.Values) &&
		reflect.DeepEqual(a.Manifest.Events, b.Manifest.Events) && a.Manifest.Health == b.Manifest.Health
}
