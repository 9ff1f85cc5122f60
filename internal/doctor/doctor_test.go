package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// good are the facts of a host on which all is well, with one provider.
func good() *facts {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	status := func(allowed uint64) *control.Status {
		s := &control.Status{
			Version: "1.2.3", Mode: event.Enforce, Config: "/k.yaml", Since: now.Add(-time.Hour), PID: 7,
			Guard:    control.GuardStatus{PID: 6, Cores: 1},
			Watching: []sensor.Filesystem{{Path: "/srv", Kind: "local"}},
			Providers: []roster.Status{{
				ID: "a", State: supervisor.Running, Mode: event.Enforce, PID: 8,
				Confinement: sandbox.Confinement{Layers: []sandbox.Layer{
					{Name: "user", Holds: true}, {Name: "net", Why: "granted"}, {Name: "landlock", Holds: true},
				}},
			}},
		}
		s.Verdicts.Allowed = allowed
		return s
	}
	f := &facts{
		version: "1.2.3", runDir: "/x", now: now, guard: guardFacts{name: "keepoutd", parent: 6, locked: true},
		status: status(10), after: status(12),
		checkup: &control.Checkup{
			Watch: []control.CheckupWatch{{Path: "/srv", Events: []event.Type{event.Open, event.Exec}}},
			Providers: []control.CheckupProvider{{
				ID: "a", Mode: event.Enforce, Events: []event.Type{event.Open, event.Exec}, Selftest: []byte("object"),
			}},
			ContentMS: 2000, Config: control.CheckupConfig{Mode: event.Enforce},
			Disk:      control.CheckupDisk{StateDir: "/state", JournalMax: 128 << 20},
			Files:     control.CheckupFiles{Open: 30, Limit: 20000, Wanted: 16384},
			ElapsedMS: time.Hour.Milliseconds(),
		},
		socket: socketFacts{mode: 0o660, group: -1, dirMode: 0o755},
		kernel: kernelFacts{
			release: "6.12.0-test", landlock: 7, seccomp: "kill_process errno allow", userns: 1000,
			lsm: "landlock,bpf", cgroup: 2,
		},
		host: hostFacts{
			stateFound: true, fileOpen: 1000, fileMax: 1_000_000,
			state: diskFacts{path: "/state", free: 10 << 30, total: 20 << 30, freeInodes: 1_000_000, maxInode: 2_000_000},
			clock: clockFacts{synced: true},
		},
	}
	f.trials = plan(f.checkup)
	for i := range f.trials {
		deny(&f.trials[i])
	}
	return f
}

// deny lets a canary be denied as it should be.
func deny(t *trial) {
	t.path, t.refused = "/srv/.keepout-selftest-1", true
	t.record = &event.Record{Verdict: event.Verdict{
		Outcome: event.Denied, Reason: event.ReasonDenied, DecidedBy: "a", Mode: event.Enforce,
		Ballots: []event.Ballot{{
			Provider: "a", Mode: event.Enforce, Counted: true, Reason: event.ReasonVoted, Latency: 1234 * time.Microsecond,
			Vote: event.Vote{Action: event.Deny, Confidence: event.Certain, Rule: event.SelftestRule},
		}},
	}}
}

// vote changes the first ballot of every trial.
func vote(f *facts, change func(b *event.Ballot)) {
	for i := range f.trials {
		change(&f.trials[i].record.Verdict.Ballots[0])
	}
}

func TestAllIsWell(t *testing.T) {
	t.Parallel()
	r := examine(good())
	if r.Degraded() || !r.Reachable || !r.Protected() || r.Counts.OK < 15 {
		t.Errorf("%+v", r.Counts)
	}
	for _, f := range r.Findings {
		if f.Severity != OK && f.Severity != health.Info {
			t.Errorf("%+v", f)
		}
	}
}

// TestFindings: each thing that can be wrong is found, alone, with its code, and says what to do.
func TestFindings(t *testing.T) {
	t.Parallel()
	type row struct {
		change func(f *facts)
		want   string // check, severity, code
		says   string
	}
	for name, c := range map[string]row{
		"allows everything": {
			func(f *facts) { vote(f, func(b *event.Ballot) { b.Vote = event.Vote{Action: event.Allow} }) },
			"proof error KO-1801", "it voted ALLOW: open and exec in /srv",
		},
		"audit provider misses": {func(f *facts) {
			vote(f, func(b *event.Ballot) { b.Mode, b.Vote = event.Audit, event.Vote{Action: event.Allow} })
		}, "proof error KO-1801", "it voted ALLOW"},
		"misses in monitor mode": {func(f *facts) {
			for i := range f.trials {
				f.trials[i].record.Verdict.Mode, f.trials[i].refused = event.Monitor, false
			}
			vote(f, func(b *event.Ballot) { b.Vote = event.Vote{Action: event.Abstain} })
		}, "proof error KO-1801", "it voted ABSTAIN"},
		"hangs": {func(f *facts) {
			vote(f, func(b *event.Ballot) { b.Counted, b.Reason, b.Vote = false, event.ReasonDeadline, event.Vote{} })
		}, "proof error KO-1802", "did not come (deadline)"},
		"dies meanwhile": {func(f *facts) {
			for i := range f.trials {
				f.trials[i].record.Verdict.Ballots = nil
			}
			f.after.Providers[0].State = supervisor.Backoff
		}, "proof error KO-1802", "ended while"},
		"is not asked": {
			func(f *facts) { f.trials[0].record.Verdict.Ballots = nil },
			"proof error KO-1804", "was not asked about its canary: open in /srv",
		},
		"does not know the object": {func(f *facts) {
			vote(f, func(b *event.Ballot) { b.Vote = event.Vote{Rule: event.SelftestRule + " (old database)"} })
		}, "proof warning KO-1803", "a is not provable: old database"},
		"no self-test": {func(f *facts) {
			f.checkup.Providers[0].Selftest, f.checkup.Providers[0].Problem = nil, "the manifest names no self-test file"
		}, "proof warning KO-1803", "a cannot be proved: the manifest names no self-test file"},
		"denied in vain": {func(f *facts) {
			for i := range f.trials {
				v := &f.trials[i].record.Verdict
				v.Allowed, v.Reason, f.trials[i].refused = true, event.ReasonAllowance, false
			}
		}, "proof error KO-1806", "allowed all the same (allowance)"},
		"the record says denied, the kernel did not": {func(f *facts) {
			f.trials[0].refused, f.trials[1].refused = false, false
		}, "proof error KO-1806", "allowed all the same"},
		"disabled": {
			func(f *facts) { f.status.Providers[0].State = supervisor.Disabled },
			"proof warning KO-1303", "disabled",
		},
		"crashed": {func(f *facts) {
			p := &f.status.Providers[0]
			p.State, p.PID, p.Cause = supervisor.Backoff, 0, "exit status 3\nand more"
		}, "proof error KO-1301", "a does not vote (backoff): exit status 3"},
		"not there": {func(f *facts) { f.status.Providers = nil }, "proof error KO-1301", "the core does not have it"},
		"no place for canaries": {func(f *facts) {
			for i := range f.trials {
				f.trials[i].skipped, f.trials[i].record = "read-only file system", nil
			}
			f.trials = append(f.trials, trial{watch: "/srv", act: event.Open, path: "/srv/x", record: &event.Record{}})
		}, "proof warning KO-1805", "not put to the test: open and exec in /srv: read-only"},
		"weak cage": {func(f *facts) {
			c := &f.status.Providers[0].Confinement
			c.Reduced, c.Layers[0] = true, sandbox.Layer{Name: "user", Why: "not root"}
			c.Layers[2].Why = "ABI 1"
		}, "cage warning KO-1304", "a is confined in part by landlock (ABI 1); without user (not root) and net (granted)"},
		"no cage": {
			func(f *facts) { f.status.Providers[0].Confinement = sandbox.Confinement{} },
			"cage warning KO-1304", "a is not confined",
		},
		"guard gone": {func(f *facts) { f.guard.parent = 1 }, "core.guard error KO-1819", "its parent is process 1"},
		"other guard": {
			func(f *facts) { f.guard.name = "sh" },
			"core.guard error KO-1819", `process 6 is "sh", not keepoutd`,
		},
		"guard not locked": {
			func(f *facts) { f.guard.locked = false },
			"core.guard warning KO-1819", "process 6, is not locked",
		},
		"old kernel": {func(f *facts) { f.kernel.release = "5.14.21-old" }, "kernel.release error KO-1811", "too old"},
		"no events": {
			func(f *facts) { f.kernel.events = errors.New("EINVAL") },
			"kernel.permission_events error KO-1811", "EINVAL",
		},
		"no Landlock": {
			func(f *facts) { f.kernel.landlockErr = errors.New("ENOSYS") },
			"kernel.landlock warning KO-1812", "ENOSYS",
		},
		"no seccomp": {func(f *facts) { f.kernel.seccomp = "log" }, "kernel.seccomp warning KO-1812", "log"},
		"no user namespaces": {
			func(f *facts) { f.kernel.userns = 0 },
			"kernel.user_namespaces warning KO-1812", "switched off",
		},
		"disk full": {func(f *facts) { f.host.state.free = 1 << 20 }, "disk.space error KO-1813", "only 1024 KiB are free"},
		"disk too small": {
			func(f *facts) { f.host.state.free = 100 << 20 },
			"disk.space warning KO-1813", "may still grow by 128 MiB, but only 100 MiB",
		},
		"no inodes": {func(f *facts) { f.host.state.freeInodes = 3 }, "disk.inodes error KO-1813", "only 3 inodes"},
		"impossible year": {func(f *facts) {
			f.now = time.Date(1970, 1, 1, 1, 0, 0, 0, time.UTC)
			f.status.Since = f.now.Add(-time.Hour)
		}, "clock.year error KO-1814", "1970"},
		"clock was set": {
			func(f *facts) { f.status.Since = f.now.Add(-2 * time.Hour) },
			"clock.jump warning KO-1814", "set by 1h0m0s",
		},
		"clock was set back": {func(f *facts) { f.status.Since = f.now }, "clock.jump warning KO-1814", "set by -1h0m0s"},
		"few descriptors": {
			func(f *facts) { f.checkup.Files.Limit = 1024 },
			"files.core warning KO-1815", "may open 1024",
		},
		"descriptors used up": {
			func(f *facts) { f.checkup.Files.Open = 19000 },
			"files.core warning KO-1815", "19000 of 20000",
		},
		"host out of files": {func(f *facts) { f.host.fileOpen = 900_000 }, "files.host warning KO-1815", "900000"},
		"another version":   {func(f *facts) { f.version = "2.0.0" }, "core.version warning KO-1816", "version 2.0.0"},
		"config changed": {
			func(f *facts) { f.checkup.Config.Changed = true },
			"core.config warning KO-1817", "/k.yaml says something else",
		},
		"config wrong": {
			func(f *facts) { f.checkup.Config.Wrong = "k:1:1: KO-1001: x. Next: y" },
			"core.config error KO-1817", "refused at the next start: k:1:1: KO-1001: x",
		},
		"could not start": {
			func(f *facts) { f.host.crashes = []crash.Record{{Code: "2FB4-12B9", Time: f.now.Add(-time.Hour)}} },
			"start warning KO-2501", "could not start",
		},
		"could not start and recovered": {func(f *facts) {
			f.host.crashes = []crash.Record{{Time: f.now, Outcome: &crash.Outcome{Recovered: true}}}
		}, "start warning KO-2502", "it has recovered"},
		"open socket":   {func(f *facts) { f.socket.mode = 0o666 }, "core.socket error KO-1818", "everybody"},
		"open folder":   {func(f *facts) { f.socket.dirMode = 0o777 }, "core.socket error KO-1818", "replace"},
		"foreign group": {func(f *facts) { f.socket.gid, f.socket.group = 5, 7 }, "core.socket warning KO-1818", "group 5"},
		"closed socket": {func(f *facts) { f.socket.mode = 0o600 }, "core.socket warning KO-1818", "0600"},
		"what the core says": {func(f *facts) {
			f.status.Problems = []health.Problem{{Code: "KO-1401", Severity: health.Warning, Title: "lost", Fix: "room"}}
		}, "core.problem warning KO-1401", "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := good()
			c.change(f)
			r := examine(f)
			var bad []string
			for _, f := range r.Findings {
				if f.Severity == OK || f.Severity == health.Info {
					continue
				}
				bad = append(bad, fmt.Sprintf("%s %s %s", f.Check, f.Severity, f.Code))
				if !strings.Contains(f.Title, c.says) || f.Fix == "" || strings.Contains(f.Title, "\n") {
					t.Errorf("it says %q (%q), want %q", f.Title, f.Fix, c.says)
				}
			}
			if !slices.Equal(bad, []string{c.want}) {
				t.Errorf("found %q, want only %q", bad, c.want)
			}
		})
	}
}

// TestUnwatched: where no canary is seen, the path is red, whether others were counted meanwhile or not.
func TestUnwatched(t *testing.T) {
	t.Parallel()
	for counted, says := range map[uint64]string{0: "nothing was counted", 5: "nobody was asked"} {
		f := good()
		for i := range f.trials {
			f.trials[i].record, f.trials[i].refused = nil, false
		}
		f.after.Verdicts.Allowed = f.status.Verdicts.Allowed + counted
		r := examine(f)
		found := slices.ContainsFunc(r.Findings, func(f Finding) bool {
			return f.Section == Watch && f.Severity == health.Failure && f.Code == "KO-1804" && f.Subject == "/srv" &&
				strings.Contains(f.Title, says)
		})
		if !found || r.Protected() {
			t.Errorf("%d counted: %+v", counted, r.Findings)
		}
	}
}

// TestReducedCage: a layer that others make up for is for information.
func TestReducedCage(t *testing.T) {
	t.Parallel()
	f := good()
	c := &f.status.Providers[0].Confinement
	c.Reduced, c.Layers = true, append(c.Layers, sandbox.Layer{Name: "cgroup", Why: "not delegated"})
	r := examine(f)
	said := slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Section == Cage && f.Severity == health.Info && f.Code == "KO-1304" && f.Provider == "a" &&
			f.Title == "a is confined by user and landlock; without net (granted) and cgroup (not delegated)"
	})
	if r.Degraded() || !said {
		t.Errorf("%+v", r.Findings)
	}
}

// TestWithoutCore: what could not be checked is said, and nothing is passed over.
func TestWithoutCore(t *testing.T) {
	t.Parallel()
	f := good()
	f.status, f.checkup, f.after, f.trials, f.host.stateFound = nil, nil, nil, nil, false
	f.unreachable = errors.New("no such file")
	f.kernel.eventsUntry = "only root can make a group"
	r := examine(f)
	if r.Reachable || r.Counts.Errors != 1 {
		t.Errorf("%+v", r)
	}
	var unchecked []string
	for _, f := range r.Findings {
		if strings.Contains(f.Title, "not checked") || strings.Contains(f.Title, "not tried: ") {
			unchecked = append(unchecked, f.Check)
		}
	}
	if want := []string{"core", "kernel.permission_events", "disk", "files"}; !slices.Equal(unchecked, want) {
		t.Errorf("not checked: %v, want %v", unchecked, want)
	}
}

// TestSleep: a host that slept is no host whose clock was set.
func TestSleep(t *testing.T) {
	t.Parallel()
	f := good()
	f.host.clock.suspended = 8 * time.Hour
	f.status.Since = f.now.Add(-9 * time.Hour)
	if r := examine(f); r.Degraded() {
		t.Errorf("%+v", r.Findings)
	}
}

// TestPlan: each provider's object, on each path, for each act that waits there and that it may see.
func TestPlan(t *testing.T) {
	t.Parallel()
	both := []event.Type{event.Open, event.Exec}
	c := &control.Checkup{
		Watch: []control.CheckupWatch{
			{Path: "/a", Events: both},
			{Path: "/b", Events: []event.Type{event.Exec, event.Rename}},
			{Path: "/c", Events: []event.Type{event.Rename}},
		},
		Providers: []control.CheckupProvider{
			{ID: "x", Events: both, Selftest: []byte("x")},
			{ID: "y", Events: []event.Type{event.Open}, Selftest: []byte("y")},
			{ID: "z", Events: both},
		},
	}
	var got []string
	for _, t := range plan(c) {
		got = append(got, t.provider+" "+t.place())
	}
	want := []string{"x open in /a", "x exec in /a", "y open in /a", "x exec in /b"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.Providers = c.Providers[2:]
	if got := plan(c); len(got) != 1 || got[0].provider != "" || got[0].watch != "/a" || got[0].act != event.Open {
		t.Errorf("nobody has an object: %+v", got)
	}
	for range maxTrials {
		c.Watch = append(c.Watch, c.Watch[0])
	}
	if got := plan(c); got[maxTrials-1].skipped != "" || got[maxTrials].skipped == "" {
		t.Error("the bound does not hold")
	}
}

// TestGuardFacts: what is read about a process is what the kernel says about this one.
func TestGuardFacts(t *testing.T) {
	t.Parallel()
	g := gatherGuard(os.Getpid(), os.Getpid())
	name, err := os.ReadFile("/proc/self/comm")
	if g.err != nil || err != nil || g.name != strings.TrimSpace(string(name)) || g.parent != os.Getppid() {
		t.Errorf("%+v, want name %q (%v) and parent %d", g, name, err, os.Getppid())
	}
	if g := gatherGuard(os.Getpid(), 0); g.err == nil {
		t.Error("no guard is one")
	}
}

// TestCanaries: they are laid out under names of their own, unique for each run, and gone afterwards; those of a run
// that was killed are removed by the next.
func TestCanaries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		when := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	left, fresh := write(event.SelftestName+"old", 2*oldAfter), write(event.SelftestName+"new", 0)
	other := write("x", 2*oldAfter)
	trials := []trial{
		{provider: "a", watch: dir, act: event.Open, content: []byte("a")},
		{provider: "a", watch: dir, act: event.Exec, content: []byte("a")},
		{provider: "a", watch: filepath.Join(dir, "none"), act: event.Open},
		{provider: "a", watch: other, act: event.Open},
	}
	birds := newAviary()
	birds.layAll(t.Context(), trials)
	for i := range trials[:2] {
		b, err := os.ReadFile(trials[i].path)
		if err != nil || string(b) != "a" || trials[i].skipped != "" {
			t.Errorf("%+v: %q, %v", trials[i], b, err)
		}
		if f := (&event.File{Path: trials[i].path}); !f.Canary() {
			t.Errorf("%s is not named as a canary", trials[i].path)
		}
	}
	if trials[2].skipped == "" || trials[3].skipped == "" {
		t.Errorf("laid out where nothing can be: %+v", trials[2:])
	}
	if birds.filter(trials) != birds.name || newAviary().name == birds.name {
		t.Error("the names of two runs are the same")
	}
	touch(t.Context(), trials)
	for i := range trials[:2] { // nobody watches: both are allowed, and the one that is executed is no program
		if trials[i].refused || trials[i].skipped != "" {
			t.Errorf("%+v", trials[i])
		}
	}
	if err := errors.Join(birds.remove(), birds.remove()); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("what an earlier run left is still there")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("another run's canary was removed")
	}
	more := instead(&control.Checkup{Watch: []control.CheckupWatch{
		{Path: other, Events: []event.Type{event.Open}}, {Path: dir, Events: []event.Type{event.Exec}},
	}}, trials[3:])
	if len(more) != 1 || more[0].path != other {
		t.Errorf("instead: %+v", more)
	}
}
