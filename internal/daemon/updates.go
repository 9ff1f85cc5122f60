package daemon

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/update"
)

// lookEvery is how often the staging folder is looked at, and the report written where it changed.
const lookEvery = time.Second

// updates takes packages, and reports. The zero value does neither.
type updates struct {
	buckets update.Group // of crashes and the like
	denials update.Group // so that neither takes the other's room
	meter   update.Meter // the goroutine's
	lapped  time.Time    // when the times of votes were read last; the goroutine's
	core    string
	end     chan struct{}
	over    chan struct{}

	mu    sync.Mutex
	found []health.Problem
}

// startUpdates begins to look at what is staged, where the configuration says whom to trust. A change of trust needs a
// new start.
func (d *Daemon) startUpdates(loaded *config.Loaded) error {
	u := loaded.Updates
	if u.Trust == "" {
		return nil
	}
	root, err := os.ReadFile(u.Trust)
	if err != nil {
		return health.Problem{
			Code: update.CodeRoot, Severity: health.Failure, Title: fmt.Sprintf("the operator's root: %v", err),
			Fix: "put the operator's 1.root.json there, or remove updates: trust:",
		}
	}
	staging := cmp.Or(u.Staging, filepath.Join(d.opt.StateDir, update.StagingDir))
	memory := filepath.Join(d.opt.StateDir, "state", "trust")
	report := filepath.Join(d.opt.StateDir, update.ReportDir)
	if err := prepareExchange(memory, staging, report); err != nil {
		return err
	}
	taker, err := update.New(update.Config{
		Dir: memory, Staging: staging, Root: root, Hardware: runtime.GOOS + "/" + runtime.GOARCH,
		ControlPlane: u.ControlPlane, Host: updating{d},
	})
	if err != nil {
		return err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("name this core: %w", err)
	}
	d.updates.core = hex.EncodeToString(id)
	d.updates.end, d.updates.over = make(chan struct{}), make(chan struct{})
	go d.update(taker, report)
	return nil
}

// prepareExchange makes the folders: one that nobody else reads, one that the fetcher writes, one that it reads.
func prepareExchange(memory, staging, report string) error {
	for _, f := range []struct {
		dir   string
		mode  os.FileMode
		owner int
		group int
	}{{memory, 0o700, 0, 0}, {staging, 0o750, update.FetchUser, update.FetchUser}, {report, 0o750, 0, update.FetchUser}} {
		if err := os.MkdirAll(f.dir, f.mode); err != nil {
			return fmt.Errorf("updates: %w", err)
		}
		if os.Geteuid() != 0 {
			continue // everything here is of one user
		}
		if err := errors.Join(os.Chmod(f.dir, f.mode), os.Lchown(f.dir, f.owner, f.group)); err != nil {
			return fmt.Errorf("updates: %w", err)
		}
	}
	return nil
}

// update is the goroutine.
func (d *Daemon) update(taker *update.Taker, dir string) {
	defer close(d.updates.over)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var last update.Report
	var written time.Time
	for {
		select {
		case <-d.updates.end:
			return
		case <-tick.C:
		}
		taker.Look()
		next := d.report(time.Now())
		taker.Fill(&next)
		d.updates.mu.Lock()
		d.updates.found = taker.Problems()
		d.updates.mu.Unlock()
		if time.Since(written) < update.AliveEvery && !next.News(&last) {
			continue
		}
		if err := update.WriteReport(dir, &next); err != nil {
			d.log.Warn("the report for keepout-fetch was not written", slog.Any("error", err))
			continue
		}
		last, written = next, time.Now()
	}
}

func (u *updates) close() {
	if u.end != nil {
		close(u.end)
		<-u.over
	}
}

func (u *updates) problems() []health.Problem {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]health.Problem(nil), u.found...)
}

// listen returns what hears the notes of the providers: the journal, and the crash groups.
func (u *updates) listen(d *Daemon) roster.Notes { return listener{d} }

// listener groups what the providers do wrong, on its way to the journal.
type listener struct{ d *Daemon }

// Note implements roster.Notes.
func (l listener) Note(n journal.Note) {
	l.d.journal.Note(n)
	switch n.Code {
	case "provider.ended", "version.refused":
	default:
		return // a roll-back has been counted: by what led to it
	}
	st, ok := l.d.store.State(n.Provider)
	if !ok {
		return
	}
	b := update.Bucket{Provider: n.Provider, Kind: update.KindOf(n.Detail)}
	cause, _, _ := strings.Cut(n.Detail, "; restart in ")
	var suspect rollback.Version
	b.Part, suspect = suspected(&st)
	if n.Code == "version.refused" {
		b.Part, suspect, cause = refusal(&st, cause)
	}
	b.Digest = string(suspect.Digest)
	l.d.updates.buckets.Add(b, cause)
}

// suspected is what changed last.
func suspected(st *rollback.State) (rollback.Part, rollback.Version) {
	if st.Engine.Changed > st.Content.Changed {
		return rollback.Engine, st.Engine.Active
	}
	if st.Content.Active.None() {
		return rollback.Engine, st.Engine.Active
	}
	return rollback.Content, st.Content.Active
}

// refusal finds the newest refusal, which a note was about: its part, version and cause.
func refusal(st *rollback.State, otherwise string) (part rollback.Part, v rollback.Version, cause string) {
	part, cause = rollback.Content, otherwise
	var at time.Time
	for _, p := range rollback.Parts() {
		for _, r := range st.Slots(p).Refused {
			if !r.At.Before(at) {
				part, v, cause, at = p, r.Version, r.Cause, r.At
			}
		}
	}
	return part, v, cause
}

// updating is what the Taker wants of the core.
type updating struct{ d *Daemon }

// Import implements update.Host.
func (u updating) Import(part rollback.Part, name string, tar io.Reader) (rollback.Digest, error) {
	p, err := u.d.store.ImportArchive(part, name, tar)
	return p.Digest, err
}

// Release implements update.Host.
func (u updating) Release(d rollback.Digest) { u.d.store.Release(d) }

// State implements update.Host.
func (u updating) State(provider string) (rollback.State, bool) { return u.d.store.State(provider) }

// Offer implements update.Host.
func (u updating) Offer(provider string, part rollback.Part, v rollback.Version) error {
	return u.d.roster.Offer(provider, part, v)
}

// Withdraw implements update.Host.
func (u updating) Withdraw(provider string, part rollback.Part, d rollback.Digest, cause string) error {
	return u.d.roster.Withdraw(provider, part, d, cause)
}

// Back implements update.Host.
func (u updating) Back(provider string, part rollback.Part, to rollback.Version, cause string) error {
	return u.d.roster.RollBackTo(provider, part, to, cause)
}
