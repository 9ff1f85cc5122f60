package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/roster"
)

// ordered is a run folder in which bootguard left an instruction.
func ordered(t *testing.T, in boot.Instruction) string {
	t.Helper()
	data, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return runDirWith(t, data)
}

func runDirWith(t *testing.T, data []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, bootFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBootOrder(t *testing.T) {
	t.Parallel()
	id := bootID()
	if id == "" {
		t.Fatal("this kernel has no boot id")
	}
	command := func(args string) string { return "keepout " + args }
	for name, c := range map[string]struct {
		in    boot.Instruction
		of    roster.Caution // provider "a"
		open  bool
		codes []string
	}{
		"as configured": {boot.Instruction{Boot: id, Mode: boot.Normal}, roster.Caution{}, false, nil},
		"last-known-good": {
			boot.Instruction{Boot: id, Mode: boot.LastKnownGood, Reason: "why"},
			roster.Caution{Pinned: true},
			false,
			[]string{"KO-2302"},
		},
		"safe mode": {
			boot.Instruction{Boot: id, Mode: boot.Safe}, roster.Caution{Off: true}, true, []string{"KO-2301"},
		},
		"ordered": {
			boot.Instruction{Boot: id, Mode: boot.Normal, Orders: boot.Orders{Disabled: []string{"a"}}},
			roster.Caution{Off: true},
			false,
			[]string{"KO-2303"},
		},
		"another provider": {
			boot.Instruction{Boot: id, Mode: boot.Normal, Orders: boot.Orders{LastKnownGood: []string{"b"}}},
			roster.Caution{},
			false,
			[]string{"KO-2303"},
		},
		"stopped": {
			boot.Instruction{Boot: id, Mode: boot.Safe, Menu: true, Trouble: "read-only"},
			roster.Caution{Off: true},
			true,
			[]string{"KO-2301", "KO-2305", "KO-2306"},
		},
		"of another boot": {boot.Instruction{Boot: "other", Mode: boot.Safe, Trouble: "x"}, roster.Caution{}, false, nil},
	} {
		b := readBoot(ordered(t, c.in))
		var codes []string
		for _, p := range b.problems(command) {
			codes = append(codes, p.Code)
			if p.Title == "" || p.Fix == "" {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if b.caution("a") != c.of || b.failOpen() != c.open || !slices.Equal(codes, c.codes) {
			t.Errorf("%s: %+v %v %v", name, b.caution("a"), b.failOpen(), codes)
		}
	}
	b := readBoot(runDirWith(t, []byte("garbage")))
	if p := b.problems(command); len(p) != 1 || p[0].Code != "KO-2304" || b.caution("a") != (roster.Caution{}) {
		t.Errorf("garbage: %+v", p)
	}
	b = readBoot(t.TempDir())
	if p := b.problems(command); len(p) > 0 {
		t.Errorf("without bootguard: %+v", p)
	}
}

// TestSafeModeFailsOpen: in safe mode nothing is denied, whatever is configured.
func TestSafeModeFailsOpen(t *testing.T) {
	t.Parallel()
	d := &Daemon{boot: readBoot(ordered(t, boot.Instruction{Boot: bootID(), Mode: boot.Safe}))}
	d.config.Store(&config.Loaded{Config: config.Config{Mode: event.Enforce}})
	if p := d.Policy(); p.Mode != event.Monitor {
		t.Errorf("mode %s", p.Mode)
	}
}

func TestCrumbsUntilTheBootIsGood(t *testing.T) {
	t.Parallel()
	dir := esp.Open(filepath.Join(t.TempDir(), "keepout"))
	if err := dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	in := boot.Instruction{Boot: bootID(), Mode: boot.Normal, Dir: dir.Path()}
	runDir := ordered(t, in)
	d := &Daemon{opt: Options{RunDir: runDir}, boot: readBoot(runDir), log: discard()}
	d.leaveCrumb(boot.Crumb{Provider: "a"})
	if c := dir.Crumb(); c.Provider != "a" || c.Boot != bootID() {
		t.Errorf("%+v", c)
	}
	in.Good = true
	data, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(runDir, bootFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	d.leaveCrumb(boot.Crumb{Provider: "b"})
	if c := dir.Crumb(); c.Provider != "a" {
		t.Errorf("after a good boot: %+v", c)
	}
	if strings.Contains(runDir, "/run/keepout") {
		t.Fatal("the test writes to the host")
	}
}

// TestStatusTellsOfAFailedStart: what bootguard left of a recent failure is a problem until its time is over, and is
// read anew, because the story ends while the core runs.
func TestStatusTellsOfAFailedStart(t *testing.T) {
	t.Parallel()
	now := time.Now()
	in := boot.Instruction{Boot: bootID(), Mode: boot.Normal, Told: &boot.Told{
		Code: "KO-2501", Title: "it could not start", Fix: "keepout crash show", Until: now.Add(time.Hour),
	}}
	runDir := ordered(t, in)
	b := readBoot(runDir)
	in.Told.Code = "KO-2502"
	data, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(runDir, bootFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := b.told(now); len(got) != 1 || got[0].Code != "KO-2502" {
		t.Errorf("told: %v", got)
	}
	if got := b.told(now.Add(2 * time.Hour)); len(got) != 0 {
		t.Errorf("told for ever: %v", got)
	}
}
