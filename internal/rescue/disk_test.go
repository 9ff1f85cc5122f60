package rescue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/rescue/plan"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// forever is a call into a disk that hangs.
func forever() { select {} }

// hung is a visit in which something never ends. Time passes while nothing is under way, or in the phase that waits for
// that.
type hung struct {
	*Visit
	r      *rig
	silent bool         // it is the boot file system: nothing is kept at the end
	phase  atomic.Value // plan.Phase, of now
	stuck  atomic.Value // plan.Phase, in which it hangs
}

func (h *hung) Show(s plan.State) {
	h.phase.Store(s.Phase)
	h.Visit.Show(s)
	h.r.idle.Store(s.Phase == plan.Waiting || s.Phase == plan.Menu)
}

// hang never returns.
func (h *hung) hang() {
	h.stuck.Store(h.phase.Load())
	forever()
}

// visit plays it to its end. At the menu, after a day, a person presses F10.
func (h *hung) visit() {
	h.r.t.Helper()
	v, facts := Open(h.r.m)
	h.Visit = v
	if h.silent {
		v.patience = time.Millisecond
	}
	tick, keys := make(chan time.Time), make(chan plan.Key, 1)
	done := make(chan plan.State, 1)
	go func() {
		done <- Run(h.r.t.Context(), h, Clock{Now: h.r.clock, Tick: tick}, keys, h.r.config, facts)
	}()
	patience := time.After(time.Minute)
	for pressed := false; ; {
		step := 5 * time.Second
		if stuck := h.stuck.Load(); !h.r.idle.Load() && (stuck == nil || stuck != h.phase.Load()) {
			step = 0
			time.Sleep(time.Millisecond)
		}
		select {
		case <-done:
			return
		case tick <- time.Time{}:
			h.r.now.Add(int64(step))
		case <-patience:
			h.r.t.Fatalf("the visit has no end: %v have passed", time.Duration(h.r.now.Load()))
		}
		if !pressed && time.Duration(h.r.now.Load()) > 24*time.Hour {
			keys <- plan.Off
			pressed = true
		}
	}
}

// hangingFS never opens a file.
type hangingFS struct {
	fs.FS
	hang func()
}

func (f hangingFS) Open(string) (fs.File, error) {
	f.hang()
	return nil, fs.ErrInvalid
}

// TestADiskThatHangs: whatever never answers, limits and keys work: the visit restarts by itself where the remedy could
// be written down, and else stands at a menu that hears F10.
func TestADiskThatHangs(t *testing.T) {
	t.Parallel()
	fix := answerWith(func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) })
	for name, c := range map[string]struct {
		with func(m *Machine, hang func())
		left plan.Act
	}{
		"the panic records": {func(m *Machine, hang func()) {
			m.Panics = hangingFS{m.Panics, hang}
		}, plan.Restart},
		"the bundle": {func(m *Machine, hang func()) {
			m.Bundle = func(Evidence) (Bundle, error) { hang(); return Bundle{}, nil }
		}, plan.Restart},
		"the firmware's memory": {func(m *Machine, hang func()) {
			m.Forget = func(string) error { hang(); return nil }
		}, plan.Restart},
		"the loader's counter, and the boot file system with it": {func(m *Machine, hang func()) {
			m.Arm = func(int, int) error { hang(); return nil }
		}, plan.PowerOff},
	} {
		for _, server := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil)
				if server {
					r.serve(fix, ServerOptions{})
				}
				h := &hung{r: r, silent: c.left == plan.PowerOff}
				c.with(&r.m, h.hang)
				h.visit()
				if !slices.Equal(r.left, []plan.Act{c.left}) {
					t.Errorf("it ended with %q, want %s", r.left, c.left)
				}
			})
		}
	}
}

// TestTheEndDoesNotWaitForTheDisk: what is to be restarted, is, although the story of it cannot be kept.
func TestTheEndDoesNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v, facts := Open(r.m)
	v.patience = time.Millisecond
	s, _ := plan.Begin(r.clock(), r.config, facts)
	s.Phase = plan.Leaving
	v.disk <- struct{}{} // somebody waits for a disk that hangs
	v.Show(s)
	if v.Leave(plan.Restart); !slices.Equal(r.left, []plan.Act{plan.Restart}) {
		t.Errorf("it ended with %q", r.left)
	}
	<-v.disk
	<-v.kept
}

// TestADiskThatHangsAtTheBeginning: the visit goes on without it, at the menu.
func TestADiskThatHangsAtTheBeginning(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	found := r.m.Dir
	r.m.Dir = nil
	_, facts := openWithin(time.Millisecond, r.m, func(*Machine) { forever() })
	if facts.Unusable != errSilent.Error() {
		t.Errorf("a disk that hangs: %+v", facts)
	}
	v, facts := openWithin(time.Minute, r.m, func(m *Machine) { m.Dir = found })
	if facts.Unusable != "" || facts.Suspect.Provider != "acme-av" || v.m.Dir != found {
		t.Errorf("a disk that answers: %+v", facts)
	}
}

// TestHoldIsForOne: at most one effect uses the boot file system; who waits for it leaves when its context ends, also
// when the disk comes free at that moment.
func TestHoldIsForOne(t *testing.T) {
	t.Parallel()
	v, _ := Open(newRig(t, nil).m)
	var users, most int
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			release, err := v.hold(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			users++
			most = max(most, users)
			time.Sleep(time.Millisecond)
			users--
		})
	}
	if wait.Wait(); most != 1 {
		t.Errorf("%d at once", most)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.hold(ctx); err == nil {
		t.Error("who was cancelled got the disk")
	}
	if _, err := v.hold(t.Context()); err != nil {
		t.Errorf("the disk was not given back: %v", err)
	}
	if _, err := v.hold(ctx); err == nil {
		t.Error("two have the disk")
	}
}

// TestARemedyThatWasGivenUp: one whose place another took while the disk did not answer changes nothing any more.
func TestARemedyThatWasGivenUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v, _ := Open(r.m)
	v.disk <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan plan.Applied, 1)
	go func() { given <- v.Apply(ctx, plan.Remedy{Source: plan.Person, Mode: boot.Safe}) }()
	cancel()
	if a := <-given; a.Trouble != errSilent.Error() {
		t.Errorf("it waits on: %+v", a)
	}
	<-v.disk
	if a := v.Apply(t.Context(), plan.Remedy{Source: plan.Person, Mode: boot.LastKnownGood}); a.Trouble != "" {
		t.Error(a.Trouble)
	}
	if s := r.dir.State().State; s.Once != boot.LastKnownGood {
		t.Errorf("the next boot is %q", s.Once)
	}
}

// fill takes all room that is left on the file system of dir.
func fill(t *testing.T, dir, name string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
		return
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if closed := f.Close(); !errors.Is(err, syscall.ENOSPC) || closed != nil {
		t.Errorf("fill the disk: %v, %v", err, closed)
	}
}

// TestOldBundlesMakeRoomOnAFullDisk: on a partition with what earlier visits kept and no room, this visit's evidence
// and its fix take their place; a revocation, too.
func TestOldBundlesMakeRoomOnAFullDisk(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root, testenv.MountNS)
	for name, c := range map[string]struct {
		revocations [][]byte
		source      plan.Source
		intents     int
	}{
		"the fix":             {nil, plan.Server, 1},
		"what was taken back": {[][]byte{revocation(t, "first")}, plan.Local, 0},
	} {
		dir := testenv.Tmpfs(t, "512k")
		give := func(q protocol.FixRequest) []byte { return fixFor(t, q, nil) }
		r := newRigOn(t, dir, answerWith(give, c.revocations...))
		if err := os.Mkdir(r.dir.Join(esp.Diag), 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range esp.MaxBundles {
			old := r.dir.Join(fmt.Sprintf("diag/bundle-20200101-00000%d-0", i))
			if err := os.WriteFile(old, make([]byte, 12<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fill(t, dir, "before")
		r.m.Connect = func(context.Context) (string, error) {
			fill(t, dir, "meanwhile") // what the evidence left
			return "192.0.2.7", nil
		}
		s := r.visit()
		r.wantOutcome(s, plan.Leaving)
		intents, err := r.dir.Intents()
		if s.Remedy.Source != c.source || !s.Saved || len(intents) != c.intents || err != nil {
			t.Errorf("%s: %s (%s), saved %v, %d intents: %v", name, s.Remedy, s.Remedy.Why, s.Saved, len(intents), err)
		}
		own := r.dir.Join("diag/bundle-" + r.start.UTC().Format("2006") + "*")
		if kept, _ := filepath.Glob(own); len(kept) != 1 {
			t.Errorf("%s: of this visit %q stay", name, kept)
		}
	}
}
