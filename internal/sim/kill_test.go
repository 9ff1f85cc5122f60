package sim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sim"
)

// killer is the real disk, whose process is killed at a write.
type killer struct {
	durable.Disk
	left int
}

func (k *killer) act() {
	if k.left--; k.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

func (k *killer) CreateTemp(dir string) (durable.File, error) {
	k.act()
	f, err := k.Disk.CreateTemp(dir)
	return &killerFile{f, k}, err
}

func (k *killer) MkdirTemp(dir string) (string, error) {
	k.act()
	return k.Disk.MkdirTemp(dir)
}

func (k *killer) Create(name string, mode fs.FileMode) (durable.File, error) {
	k.act()
	f, err := k.Disk.Create(name, mode)
	return &killerFile{f, k}, err
}

func (k *killer) Mkdir(name string, mode fs.FileMode) error {
	k.act()
	return k.Disk.Mkdir(name, mode)
}

func (k *killer) Chmod(name string, mode fs.FileMode) error {
	k.act()
	return k.Disk.Chmod(name, mode)
}

func (k *killer) Rename(from, to string) error {
	k.act()
	return k.Disk.Rename(from, to)
}

func (k *killer) Remove(name string) error {
	k.act()
	return k.Disk.Remove(name)
}

func (k *killer) SyncDir(name string) error {
	k.act()
	return k.Disk.SyncDir(name)
}

type killerFile struct {
	durable.File
	k *killer
}

// Write is killed with half of it written, sometimes.
func (f *killerFile) Write(b []byte) (int, error) {
	if f.k.left == 1 && len(b) > 1 {
		if n, err := f.File.Write(b[:len(b)/2]); err != nil {
			return n, err
		}
	}
	f.k.act()
	return f.File.Write(b)
}

func (f *killerFile) Sync() error {
	f.k.act()
	return f.File.Sync()
}

// killVariable makes the test binary live one life in the store that it names.
const killVariable = "KEEPOUT_TEST_KILL"

// report is one line of a child.
type report struct {
	State     rollback.State
	Committed bool
}

// TestKilled kills fifty processes at a write to the real file system, five in each store.
func TestKilled(t *testing.T) {
	if text := os.Getenv(killVariable); text != "" {
		die(t, text)
		return
	}
	t.Parallel()
	killed := 0
	for store := range 10 {
		dir := filepath.Join(t.TempDir(), "store")
		ledger := sim.NewLedger()
		for life := range 5 {
			s := *seed + uint64(10*store+life)
			if kill(t, fmt.Sprintf("%d %s", s, dir), ledger) {
				killed++
			}
			h := sim.NewHistory(durable.OS(), dir, rand.New(rand.NewPCG(s, 3)))
			h.Ledger = ledger
			err := h.Boot()
			if err == nil {
				err = h.Well()
			}
			if err != nil {
				t.Fatalf("make test-sim SEED=%d: store %d, life %d: %v", *seed, store, life, err)
			}
		}
	}
	if killed < 40 { // the others have come to their end before their write
		t.Errorf("only %d of 50 were killed", killed)
	}
}

// kill runs a child, notes what it was told and had done, and reports whether it was killed.
func kill(t *testing.T, variable string, ledger *sim.Ledger) bool {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killVariable+"="+variable)
	var stdout, stderr bytes.Buffer
	child.Stdout, child.Stderr = &stdout, &stderr
	err := child.Run()
	for line := range bytes.Lines(stdout.Bytes()) {
		var r report
		if json.Unmarshal(line, &r) != nil {
			continue // what the test binary says at its end
		}
		if r.Committed {
			ledger.Acked(r.State.Provider)
		} else {
			ledger.Tried(r.State)
		}
	}
	if err == nil {
		return false
	}
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s%s", err, stdout.Bytes(), stderr.Bytes())
	}
	return true
}

// die is the child.
func die(t *testing.T, text string) {
	t.Helper()
	var s uint64
	var dir string
	if _, err := fmt.Sscan(text, &s, &dir); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(s, 2))
	h := sim.NewHistory(&killer{Disk: durable.OS(), left: 1 + rng.IntN(300)}, dir, rng)
	out := json.NewEncoder(os.Stdout)
	h.Report = func(st rollback.State, committed bool) error { return out.Encode(report{st, committed}) }
	err := h.Boot()
	for n := 0; err == nil && n < 100; n++ {
		err = h.Act()
	}
	if err != nil {
		t.Fatal(err)
	}
}
