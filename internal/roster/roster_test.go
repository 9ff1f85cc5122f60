package roster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/provider"
)

const patience = 20 * time.Second

// voteTime is the budget of a vote on the content, short so that waiting for it in vain is.
const voteTime = 300 * time.Millisecond

// childName is the program name under which this test binary is a provider.
const childName = "roster-child"

func TestMain(m *testing.M) {
	if sandbox.IsLauncher() {
		os.Exit(sandbox.Launch())
	}
	if filepath.Base(os.Args[0]) == childName {
		provider.Main(engine())
	}
	os.Exit(m.Run())
}

// engine is a provider that does what its settings say.
func engine() provider.Engine {
	var fault atomic.Value
	return provider.Engine{
		Name: "child", Version: "1", Subscription: provider.Subscription{Events: []event.Type{event.Open}},
		Load: func(_ context.Context, s provider.Settings) (string, error) {
			switch s.Values["fault"] {
			case "refuses":
				return "", errors.New("will not load")
			case "hangs":
				select {}
			}
			if s.Content == "" {
				return "no content", nil
			}
			text, err := os.ReadFile(filepath.Join(s.Content, "file"))
			switch string(text) {
			case "bad":
				os.Exit(9)
			case "slow", "slower":
				select {}
			case "spins":
				go spin()
			}
			fault.Store(string(text))
			return "content: " + string(text), err
		},
		Vote: func(*provider.Event) provider.Vote {
			switch fault.Load() {
			case "crash":
				os.Exit(8)
			case "stuck":
				select {}
			}
			return provider.Allow()
		},
	}
}

func spin() {
	for { //nolint:staticcheck // that is what it is for
	}
}

// court keeps what the roster says about the panel.
type court struct {
	mu      sync.Mutex
	members []*docket.Member
	awaited []event.Type
	ended   int
}

func (c *court) Forget(*docket.Memory)        {}
func (c *court) Heard(*docket.Memory, string) {}

func (c *court) SetMembers(m []*docket.Member, awaited ...event.Type) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members, c.awaited = m, awaited
}

// expects reports whether events go on arriving for who is not up.
func (c *court) expects() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.awaited) > 0
}

func (*court) Voted(*session.Session, uint64, event.Vote, event.Reason) {}

func (c *court) Ended(*session.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended++
}

func (c *court) panel() []*docket.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// notes keeps the change journal's entries.
type notes struct {
	mu    sync.Mutex
	codes []string
}

func (n *notes) Note(note journal.Note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.codes = append(n.codes, note.Code)
}

func (n *notes) has(code string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.codes, code)
}

// logbook keeps the roster's log.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) says(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), what)
}

// rig is a roster with what it needs.
type rig struct {
	t         testing.TB
	r         *roster.Roster
	court     *court
	notes     *notes
	log       *logbook
	providers string
	state     string
	pids      map[int]bool // every process that was ever seen
	store     *store.Store // of the roster that was opened last
}

func newRig(t testing.TB) *rig {
	t.Helper()
	base, err := os.MkdirTemp("", "keepout-roster-") // another user must be able to pass through
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	must(t, os.Chmod(base, 0o711))
	g := &rig{
		t: t, court: &court{}, notes: &notes{}, log: &logbook{}, pids: map[int]bool{},
		providers: filepath.Join(base, "installed"), state: filepath.Join(base, "state"),
	}
	for _, dir := range []string{g.state, filepath.Join(g.state, "providers")} {
		must(t, os.Mkdir(dir, 0o711))
	}
	g.r = g.open()
	t.Cleanup(g.close)
	return g
}

// open makes a roster on the rig's state folder.
func (g *rig) open() *roster.Roster {
	g.t.Helper()
	return g.openWith(func(*roster.Config) {})
}

func (g *rig) openWith(change func(*roster.Config)) *roster.Roster {
	g.t.Helper()
	numbers := supervisor.Defaults()
	numbers.FirstWait, numbers.MaxWait = 50*time.Millisecond, time.Second
	st, err := store.Open(store.Config{Dir: filepath.Join(g.state, "store")})
	must(g.t, err)
	c := roster.Config{
		Store: st, StateDir: g.state, Court: g.court, Notes: g.notes, Supervisor: numbers,
		Log: slog.New(slog.NewTextHandler(g.log, nil)),
	}
	change(&c)
	g.store = c.Store
	r, err := roster.New(c)
	must(g.t, err)
	return r
}

// close ends the roster and checks that it leaves no process.
func (g *rig) close() {
	g.t.Helper()
	for _, s := range g.r.Status() {
		g.pids[s.PID] = true
	}
	start := time.Now()
	g.r.Close()
	if took := time.Since(start); took > 5*time.Second {
		g.t.Errorf("closing took %v", took)
	}
	for pid := range g.pids {
		if pid != 0 && unix.Kill(pid, 0) == nil {
			g.t.Errorf("process %d is left", pid)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const manifest = `version: 1
id: %s
title: Test
roles: [test]
executable: ` + childName + `
protocol: [1]
events: [{type: open, content: metadata}]
settings: [fault, note]
grants: {processes: 64, fds: 128, mounts: [/lib, /lib64, /usr/lib, /proc]}
health: {heartbeat: 1s}
`

// install puts a provider on the disk and resolves its configuration.
func (g *rig) install(id string, p config.Provider) config.Installed {
	g.t.Helper()
	dir := filepath.Join(g.providers, id)
	if _, err := os.Stat(dir); err != nil {
		must(g.t, os.MkdirAll(dir, 0o755))
		self, err := os.Executable()
		must(g.t, err)
		b, err := os.ReadFile(self)
		must(g.t, err)
		must(g.t, os.WriteFile(filepath.Join(dir, childName), b, 0o755))
		must(g.t, os.WriteFile(filepath.Join(dir, config.ManifestFile), fmt.Appendf(nil, manifest, id), 0o644))
		_, err = config.Seal(dir)
		must(g.t, err)
	}
	m, err := config.LoadManifest(dir)
	must(g.t, err)
	p.ID = id
	if p.Mode == "" {
		p.Mode = event.Enforce
	}
	in, err := config.Installed{Provider: p}.Under(m)
	must(g.t, err)
	return in
}

// reseal changes a provider's package without changing what it does.
func (g *rig) reseal(id, title string) {
	g.t.Helper()
	path := filepath.Join(g.providers, id, config.ManifestFile)
	text, err := os.ReadFile(path)
	must(g.t, err)
	must(g.t, os.WriteFile(path, []byte(strings.Replace(string(text), "title: Test", "title: "+title, 1)), 0o644))
}

// content makes a folder of content.
func (g *rig) content(name, text string) string {
	g.t.Helper()
	dir := filepath.Join(filepath.Dir(g.state), name)
	must(g.t, os.MkdirAll(dir, 0o700)) // the provider's user cannot reach it, and need not
	must(g.t, os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o600))
	return dir
}

func (g *rig) apply(installed ...config.Installed) {
	g.t.Helper()
	l := &config.Loaded{Config: config.Default()}
	l.Updates.Trial, l.Updates.TrialIdle, l.Updates.Samples, l.Updates.Settle = 0, 0, 0, 0
	l.Budgets.Content = config.Duration(voteTime)
	must(g.t, g.r.Apply(installed, l))
}

func (g *rig) status(id string) roster.Status {
	for _, s := range g.r.Status() {
		g.pids[s.PID] = true
		if s.ID == id {
			return s
		}
	}
	return roster.Status{}
}

func (g *rig) until(what string, cond func() bool) {
	g.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	g.t.Fatalf("waited in vain until %s: %+v", what, g.r.Status())
}

// runs waits until a provider votes, with a process other than not, and returns its process.
func (g *rig) runs(id string, not int) int {
	g.t.Helper()
	var s roster.Status
	g.until(id+" votes", func() bool { s = g.status(id); return s.State == supervisor.Running && s.PID != not })
	g.until(id+" is on the panel", func() bool {
		return slices.ContainsFunc(g.court.panel(), func(m *docket.Member) bool {
			return m.Session.Provider() == id
		})
	})
	return s.PID
}

func TestStart(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(
		g.install("one", config.Provider{Content: g.content("there", "x"), OnFailure: "deny"}),
		g.install("two", config.Provider{Mode: event.Audit}),
	)
	g.runs("one", 0)
	g.runs("two", 0)
	panel := g.court.panel()
	b := config.Default().Budgets
	if len(panel) != 2 || panel[0].Session.Provider() != "one" || panel[0].Mode != event.Enforce ||
		!panel[0].FailClosed || panel[0].Metadata != time.Duration(b.Metadata) ||
		panel[0].Content != voteTime ||
		panel[1].Mode != event.Audit || panel[1].FailClosed {
		t.Errorf("panel %+v", panel)
	}
	g.until("it has said what it loaded", func() bool { return g.status("one").Content == "content: x" })
	s := g.status("one")
	if s.Engine != "child 1" || s.Restarts != 0 || !s.Confinement.NoNew || s.Mode != event.Enforce {
		t.Errorf("status %+v", s)
	}
	if os.Getuid() == 0 && (s.UID != sandbox.FirstUID || g.status("two").UID != sandbox.FirstUID+1) {
		t.Errorf("users %d and %d", s.UID, g.status("two").UID)
	}
	if !g.notes.has("provider.running") {
		t.Error("no note says that it runs")
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{}))
	pid := g.runs("p", 0)
	must(t, unix.Kill(pid, unix.SIGKILL))
	g.until("it is off the panel", func() bool { return len(g.court.panel()) == 0 })
	g.until("the crash is noted", func() bool { return g.notes.has("provider.ended") })
	again := g.runs("p", pid)
	if s := g.status("p"); again == pid || s.Restarts != 1 || !strings.HasPrefix(s.Cause, "signal: killed") {
		t.Errorf("status %+v", s)
	}
	g.court.mu.Lock()
	defer g.court.mu.Unlock()
	if g.court.ended != 1 {
		t.Errorf("%d sessions have ended, want 1", g.court.ended)
	}
}

// TestAwaited: what the manifest of a provider names is awaited until it votes, and again while it is away, and not of
// one that an administrator switched off.
func TestAwaited(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{}))
	g.until("it is awaited, or here already", func() bool { return g.court.expects() || len(g.court.panel()) == 1 })
	pid := g.runs("p", 0)
	g.until("it votes", func() bool { return len(g.court.panel()) == 1 && !g.court.expects() })
	must(t, unix.Kill(pid, unix.SIGKILL))
	g.until("it is awaited again", func() bool { return len(g.court.panel()) == 0 && g.court.expects() })
	g.runs("p", pid)
	must(t, g.r.SetEnabled("p", false))
	g.until("nobody is awaited", func() bool { return len(g.court.panel()) == 0 && !g.court.expects() })
}

// TestRefusesToStart: a provider that cannot load is tried three times and then left alone for a while, and says why.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	in := g.install("p", config.Provider{Settings: map[string]string{"fault": "refuses"}})
	g.apply(in)
	g.until("it has been tried three times", func() bool {
		return strings.Contains(g.status("p").Cause, "quarantined: 3 crashes in ")
	})
	s := g.status("p")
	if s.State != supervisor.Backoff || s.RetryMS < 1000 || !strings.Contains(s.Cause, "will not load") {
		t.Errorf("status %+v", s)
	}
	if len(g.court.panel()) != 0 {
		t.Error("it is on the panel")
	}
	g.until("a note tells of the quarantine", func() bool { return g.notes.has("provider.quarantined") })
}

// TestReplace: a change that the process must know of replaces it; another one does not.
func TestReplace(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{}))
	first := g.runs("p", 0)
	g.apply(g.install("p", config.Provider{Mode: event.Audit}))
	g.until("the mode is in force", func() bool {
		p := g.court.panel()
		return len(p) == 1 && p[0].Mode == event.Audit
	})
	if pid := g.runs("p", 0); pid != first {
		t.Error("a change of mode replaced the process")
	}
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"note": "changed"}}))
	second := g.runs("p", first)
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"note": "changed"}}))
	if pid := g.runs("p", 0); pid != second {
		t.Error("the same configuration replaced the process")
	}
	g.apply(g.install("q", config.Provider{}))
	g.runs("q", 0)
	g.until("the other one is gone", func() bool { return unix.Kill(second, 0) != nil })
	if s := g.r.Status(); len(s) != 1 || s[0].ID != "q" || len(g.court.panel()) != 1 {
		t.Errorf("status %+v", s)
	}
	g.apply(g.install("q", config.Provider{}), g.install("p", config.Provider{}))
	g.runs("p", second)
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{}))
	pid := g.runs("p", 0)
	must(t, g.r.SetEnabled("p", false))
	g.until("it is gone", func() bool { return unix.Kill(pid, 0) != nil && len(g.court.panel()) == 0 })
	if s := g.status("p"); s.State != supervisor.Disabled || s.Cause != "disabled" {
		t.Errorf("status %+v", s)
	}
	must(t, g.r.SetEnabled("p", true))
	g.runs("p", pid)
	if err := g.r.SetEnabled("nobody", true); !errors.Is(err, roster.ErrUnknown) {
		t.Errorf("an unknown provider: %v", err)
	}
}

// TestCloseEndsTheStubborn: a provider that does not listen is ended all the same.
func TestCloseEndsTheStubborn(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"fault": "hangs"}}))
	g.until("it loads", func() bool { return g.status("p").State == supervisor.Loading })
	g.r.Close() // the cleanup checks that no process is left
	if err := g.r.Apply(nil, &config.Loaded{}); err == nil {
		t.Error("a closed roster takes a configuration")
	}
}

// TestCloseEndsTheRemoved: a provider that was removed and still has its time to finish is waited for, too.
func TestCloseEndsTheRemoved(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"fault": "hangs"}}))
	g.until("it loads", func() bool { return g.status("p").State == supervisor.Loading })
	g.apply()
	g.r.Close() // the cleanup checks that no process is left
}

// TestRemovedAndBack: a provider that comes back has one process at a time.
func TestRemovedAndBack(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("p", config.Provider{Settings: map[string]string{"fault": "hangs"}}))
	g.until("it loads", func() bool { return g.status("p").State == supervisor.Loading })
	old := g.status("p").PID
	g.apply()
	g.apply(g.install("p", config.Provider{}))
	g.until("there is a new process", func() bool { return g.status("p").PID != 0 })
	if unix.Kill(old, 0) == nil {
		t.Error("the new process was started beside the old one")
	}
	g.runs("p", old)
}

// TestUserIDs: a provider keeps its user id for good, because its state folder belongs to it.
func TestUserIDs(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.apply(g.install("a", config.Provider{}), g.install("b", config.Provider{}))
	g.runs("b", 0)
	g.r.Close()
	g.r = g.open()
	g.apply(g.install("c", config.Provider{}), g.install("b", config.Provider{}))
	g.runs("b", 0)
	g.runs("c", 0)
	if os.Getuid() == 0 {
		for id, slot := range map[string]uint32{"b": 1, "c": 6} {
			if uid := g.status(id).UID; uid != sandbox.FirstUID+slot {
				t.Errorf("%s has user id %d, want %d", id, uid, sandbox.FirstUID+slot)
			}
		}
	}
	for text, word := range map[string]string{
		"not json": "invalid", `{"a": 64}`: "out of range", `{"a": -1}`: "out of range",
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "slots.json"), []byte(text), 0o600))
		if _, err := roster.New(roster.Config{StateDir: dir}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %q", text, err, word)
		}
	}
}

// TestTooManyUserIDs: the range of user ids ends, and the message says what to do.
func TestTooManyUserIDs(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var b strings.Builder
	for i := range sandbox.MaxProviders {
		fmt.Fprintf(&b, `,"x%d": %d`, i, i)
	}
	must(t, os.WriteFile(filepath.Join(g.state, "slots.json"), []byte("{"+b.String()[1:]+"}"), 0o600))
	g.r = g.open()
	err := g.r.Apply([]config.Installed{g.install("p", config.Provider{})}, &config.Loaded{})
	if err == nil || !strings.Contains(err.Error(), "slots.json") {
		t.Errorf("%v", err)
	}
}

// TestRefusedApplyChangesNothing: when a new provider cannot have a user id, the others stay as they are.
func TestRefusedApplyChangesNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	p := g.install("p", config.Provider{})
	g.apply(p)
	g.runs("p", 0)
	taken := make([]string, 0, sandbox.MaxProviders)
	for slot := 3; slot < sandbox.MaxProviders; slot++ {
		taken = append(taken, fmt.Sprintf("%q: %d", fmt.Sprintf("other-%d", slot), slot))
	}
	g.r.Close()
	must(t, os.WriteFile(filepath.Join(g.state, "slots.json"),
		[]byte(`{"p": 0, "p.b": 1, "p.trial": 2, `+strings.Join(taken, ", ")+`}`), 0o600))
	g.r = g.open()
	g.apply(p)
	pid := g.runs("p", 0)
	both := []config.Installed{g.install("new", config.Provider{}), p}
	if g.r.Apply(both, &config.Loaded{Config: config.Default()}) == nil {
		t.Fatal("a 65th user id was given")
	}
	if s := g.r.Status(); len(s) != 1 || s[0].ID != "p" || s[0].PID != pid {
		t.Errorf("after the refusal: %+v", s)
	}
}
