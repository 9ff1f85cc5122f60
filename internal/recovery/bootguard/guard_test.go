//go:build linux

package bootguard_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/bootguard"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
)

// host is a machine on a folder: an ESP that outlives its boots, and a run folder that does not.
type host struct {
	t        *testing.T
	root     string
	run      string
	dir      *esp.Dir
	boots    int
	restarts int
	verify   bootguard.Verifier
	learn    bootguard.Revoker
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir()}
	h.dir = esp.Open(filepath.Join(h.root, "boot", "efi", "keepout"))
	if err := h.dir.Prepare(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// grub arms GRUB's counter and installs a recovery environment.
func (h *host) grub() {
	h.t.Helper()
	var env loader.Env
	env.Set(loader.EnvLeft, "3")
	block, err := env.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("boot/efi/keepout/"+esp.GrubEnv, string(block))
	h.write("boot/efi/keepout/"+esp.KernelA, "kernel")
	h.write("boot/efi/keepout/"+esp.ImageA, "image")
}

func (h *host) env() loader.Env {
	h.t.Helper()
	block, err := os.ReadFile(h.dir.Join(esp.GrubEnv))
	if err != nil {
		h.t.Fatal(err)
	}
	env, err := loader.ParseEnv(block)
	if err != nil {
		h.t.Fatal(err)
	}
	return env
}

func (h *host) guard() *bootguard.Guard {
	return &bootguard.Guard{
		Root: h.root, RunDir: h.run, Verify: h.verify, Learn: h.learn, Now: time.Now,
		Restart: func() error { h.restarts++; return nil },
	}
}

// boot begins a boot and returns the instruction; nothing when the machine restarts instead.
func (h *host) boot() boot.Instruction {
	h.t.Helper()
	h.boots++
	h.run = filepath.Join(h.root, fmt.Sprint("run-", h.boots))
	h.write("proc/sys/kernel/random/boot_id", fmt.Sprintf("boot-%d\n", h.boots))
	h.write("proc/sys/kernel/panic", "10\n")
	if err := h.guard().Begin(); err != nil {
		h.t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(h.run, bootguard.InstructionFile))
	if errors.Is(err, os.ErrNotExist) {
		return boot.Instruction{}
	}
	if err != nil {
		h.t.Fatal(err)
	}
	in, err := boot.ParseInstruction(data)
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

func TestTheLadderOnADisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.grub()
	for i, want := range []boot.Mode{boot.Normal, boot.LastKnownGood, boot.Safe} {
		if in := h.boot(); in.Mode != want || in.Attempt != i+1 || in.Trouble != "" || in.Dir != h.dir.Path() {
			t.Fatalf("boot %d: %+v, want %s", i+1, in, want)
		}
	}
	if in := h.boot(); in.Mode != "" || h.restarts != 1 {
		t.Fatalf("the fourth boot goes on: %+v, %d restarts", in, h.restarts)
	}
	if env := h.env(); env.Get(loader.EnvNext) != "recovery" {
		t.Errorf("the loader was not asked: %+v", env)
	}
}

func TestGoodAndShutdownArmTheLoader(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.grub()
	h.boot()
	h.boot()
	if err := h.guard().ShutDown(); err != nil {
		t.Fatal(err)
	}
	if env := h.env(); env.Get(loader.EnvLeft) != "2" {
		t.Errorf("after a shutdown on the second rung: %+v", env)
	}
	if in := h.boot(); in.Mode != boot.LastKnownGood {
		t.Errorf("after a shutdown: %+v", in)
	}
	if err := h.guard().Good(); err != nil {
		t.Fatal(err)
	}
	in, err := os.ReadFile(filepath.Join(h.run, bootguard.InstructionFile))
	if err != nil || !strings.Contains(string(in), `"good": true`) {
		t.Errorf("the core is not told: %s %v", in, err)
	}
	if err := h.guard().ShutDown(); err != nil {
		t.Fatal(err)
	}
	if env := h.env(); env.Get(loader.EnvLeft) != "3" || env.Get(loader.EnvVisits) != "0" {
		t.Errorf("after a good boot: %+v", env)
	}
	if in := h.boot(); in.Mode != boot.Normal || in.Attempt != 1 {
		t.Errorf("a rung lower is not tried again: %+v", in)
	}
}

func TestTheSameBootCountsOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.boot()
	h.boots--
	if in := h.boot(); in.Attempt != 1 || in.Mode != boot.Normal {
		t.Errorf("%+v", in)
	}
}

// TestAnythingOnTheDiskBoots: whatever the partition is like, there is an instruction, it says what is wrong, and the
// machine does not restart.
func TestAnythingOnTheDiskBoots(t *testing.T) {
	t.Parallel()
	inPlaceOf := func(h *host, names ...string) {
		for _, name := range names {
			if err := errors.Join(os.RemoveAll(h.dir.Join(name)), os.MkdirAll(h.dir.Join(name)+"/x", 0o700)); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage  func(h *host)
		trouble string
	}{
		"nothing was armed": {func(h *host) { _ = os.RemoveAll(h.dir.Path()) }, ""},
		"one copy torn":     {func(h *host) { h.write("boot/efi/keepout/state-a.json", "{") }, "copy a"},
		"both copies torn": {func(h *host) {
			h.write("boot/efi/keepout/state-a.json", "{")
			h.write("boot/efi/keepout/state-b.json", "garbage\n{}")
		}, "copy b"},
		"a newer format": {func(h *host) {
			h.write("boot/efi/keepout/state-a.json", `{"version":7,"sequence":1,"length":2,"crc32c":"x"}`+"\n{}")
			h.write("boot/efi/keepout/state-b.json", "")
		}, "another version"},
		"it cannot be written": {func(h *host) { inPlaceOf(h, esp.StateA, esp.StateB) }, "keep boot state"},
		"grubenv torn":         {func(h *host) { h.write("boot/efi/keepout/grubenv", "# GRUB") }, ""},
		"a torn crumb":         {func(h *host) { h.write("boot/efi/keepout/crumb", "x") }, ""},
		"an intent nobody can verify": {func(h *host) {
			h.write("boot/efi/keepout/intents/1.json", "x")
		}, "cannot verify"},
	} {
		h := newHost(t)
		c.damage(h)
		for n := range 6 {
			in := h.boot()
			if h.restarts > 0 || in.Boot == "" {
				t.Fatalf("%s: boot %d restarts", name, n+1)
			}
			if n == 0 && !strings.Contains(in.Trouble, c.trouble) || c.trouble == "" && in.Trouble != "" {
				t.Errorf("%s: trouble %q, want %q", name, in.Trouble, c.trouble)
			}
		}
	}
}

// TestAnUnknownLoaderStopsRestarts: without a recovery environment, after safe mode the machine stays where it fails.
func TestAnUnknownLoaderStopsRestarts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var last boot.Instruction
	for range 4 {
		last = h.boot()
	}
	panics, err := os.ReadFile(filepath.Join(h.root, "proc", "sys", "kernel", "panic"))
	if !last.Menu || last.Mode != boot.Safe || string(panics) != "0\n" || err != nil || h.restarts != 0 {
		t.Errorf("%+v, kernel.panic %q", last, panics)
	}
	if err := h.guard().Deadline(); err != nil || h.restarts != 0 {
		t.Errorf("the deadline restarts: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.boot()
	if err := h.guard().Deadline(); err != nil || h.restarts != 1 {
		t.Errorf("a system that has not come up: %v, %d restarts", err, h.restarts)
	}
	if err := os.WriteFile(filepath.Join(h.run, bootguard.Reached), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.guard().Deadline(); err != nil || h.restarts != 1 {
		t.Errorf("a system that came up: %v, %d restarts", err, h.restarts)
	}
	_ = os.RemoveAll(h.run)
	if err := h.guard().Deadline(); err == nil || h.restarts != 1 {
		t.Errorf("a boot that was not counted restarts: %v", err)
	}
}

// TestDeadlineWithTrouble: what is wrong and does not keep boots from being counted does not switch the deadline off,
// as the copy of the state that a power cut tore. Where they cannot be counted, it never restarts.
func TestDeadlineWithTrouble(t *testing.T) {
	t.Parallel()
	const a, b = "boot/efi/keepout/" + esp.StateA, "boot/efi/keepout/" + esp.StateB
	for name, c := range map[string]struct {
		damage   func(h *host)
		trouble  string
		restarts []int // after the deadlines of the boots that follow
	}{
		"nothing":       {func(*host) {}, "", []int{1, 2}},
		"one copy torn": {func(h *host) { h.write(a, "{") }, "copy a", []int{1, 2}},
		"a refused intent": {func(h *host) {
			h.verify = func([]byte, string) (boot.Remedy, error) { return boot.Remedy{}, errors.New("forged") }
			h.write("boot/efi/keepout/intents/1", "x")
		}, "refused", []int{1, 2}},
		"a file that no copy is there of": {func(h *host) {
			h.verify = func([]byte, string) (boot.Remedy, error) {
				return boot.Remedy{Restore: []boot.Restore{{Path: "config/keepout.yaml", SHA256: strings.Repeat("0", 64)}}}, nil
			}
			h.write("boot/efi/keepout/intents/1", "x")
		}, "no copy", []int{1, 2}},
		"both copies torn": {func(h *host) {
			h.write(a, "{")
			h.write(b, "{")
		}, "copy b", []int{0, 1}}, // it is begun anew, and counts from the next boot on
		"it cannot be written": {func(h *host) {
			for _, name := range []string{esp.StateA, esp.StateB} {
				if err := errors.Join(os.Remove(h.dir.Join(name)), os.MkdirAll(h.dir.Join(name)+"/x", 0o700)); err != nil {
					h.t.Fatal(err)
				}
			}
		}, "keep boot state", []int{0, 0}},
	} {
		h := newHost(t)
		c.damage(h)
		for n, want := range c.restarts {
			in := h.boot()
			if n == 0 && !strings.Contains(in.Trouble, c.trouble) {
				t.Errorf("%s: trouble %q, want %q", name, in.Trouble, c.trouble)
			}
			if err := h.guard().Deadline(); err != nil || h.restarts != want {
				t.Errorf("%s, boot %d: %d restarts, want %d: %v", name, n+1, h.restarts, want, err)
			}
		}
	}
}

func TestIntentsBecomeOrders(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.verify = func(envelope []byte, _ string) (boot.Remedy, error) {
		if string(envelope) != "signed" {
			return boot.Remedy{}, errors.New("not signed")
		}
		return boot.Remedy{Orders: boot.Orders{Disabled: []string{"acme-av"}, Source: "campaign 7"}}, nil
	}
	for name, text := range map[string]string{"1": "signed", "2": "forged"} {
		if err := h.dir.LeaveIntent(esp.Intent{Name: name, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	in := h.boot()
	if !slices.Equal(in.Orders.Disabled, []string{"acme-av"}) || !strings.Contains(in.Trouble, "2 is refused") {
		t.Errorf("%+v", in)
	}
	if left, err := h.dir.Intents(); len(left) > 0 || err != nil {
		t.Errorf("left over: %v, %v", left, err)
	}
	if in = h.boot(); !in.Disables("acme-av") || in.Disables("other") {
		t.Errorf("the orders do not stay: %+v", in)
	}
	if err := h.guard().Release("test"); err != nil {
		t.Fatal(err)
	}
	if in = h.boot(); in.Disables("acme-av") {
		t.Errorf("the orders were not taken back: %+v", in)
	}
}

// TestAFixThatWaits: one that was believed and cannot be applied now stays, is told of in the instruction and, once, in
// the history, and is applied when it can be; a refusal is in the history, too.
func TestAFixThatWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	room := false
	h.verify = func(envelope []byte, _ string) (boot.Remedy, error) {
		switch {
		case string(envelope) != "signed":
			return boot.Remedy{}, health.Problem{Code: "KO-2521", Title: "nobody signed", Fix: "ask"}
		case !room:
			return boot.Remedy{Later: true}, health.Problem{Code: "KO-2530", Title: "no space left", Fix: "make room"}
		}
		return boot.Remedy{Orders: boot.Orders{Disabled: []string{"acme-av"}, Source: "campaign 7"}}, nil
	}
	for name, text := range map[string]string{"1": "signed", "2": "forged"} {
		if err := h.dir.LeaveIntent(esp.Intent{Name: name, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		in := h.boot()
		if !strings.Contains(in.Trouble, "1 waits") || !strings.Contains(in.Trouble, "no space left") || !in.Orders.None() {
			t.Errorf("boot %d: %+v", n+1, in)
		}
		if left, err := h.dir.Intents(); err != nil || len(left) != 1 || left[0].Name != "1" {
			t.Fatalf("boot %d: there are %v, %v", n+1, left, err)
		}
	}
	var told []string
	for _, e := range h.dir.State().State.History {
		if e.What == boot.Unfixed {
			told = append(told, e.Why)
		}
	}
	if want := []string{"KO-2530: no space left", "KO-2521: nobody signed"}; !slices.Equal(told, want) {
		t.Errorf("the history has %q, want %q", told, want)
	}
	room = true
	if in := h.boot(); !in.Disables("acme-av") || in.Trouble != "" {
		t.Errorf("with room: %+v", in)
	}
	if left, err := h.dir.Intents(); len(left) > 0 || err != nil {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestAMissedRehearsalIsTakenBack: a mark that a start of the system finds would make the next real visit a rehearsal.
// It goes, and is reported; one that was left in this very boot stays.
func TestAMissedRehearsalIsTakenBack(t *testing.T) {
	t.Parallel()
	const mark = "boot/efi/keepout/" + esp.Rehearsal
	h := newHost(t)
	h.grub()
	h.boot()
	if _, err := rehearsal.Read(h.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody asked for one, and there is a report: %v", err)
	}
	h.write(mark, "rehearsal\n")
	h.boots--
	h.boot()
	if _, err := os.Stat(h.dir.Join(esp.Rehearsal)); err != nil {
		t.Errorf("what was asked for in this boot is gone: %v", err)
	}
	if in := h.boot(); in.Trouble != "" {
		t.Errorf("trouble %q", in.Trouble)
	}
	if _, err := os.Stat(h.dir.Join(esp.Rehearsal)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next visit would be a rehearsal: %v", err)
	}
	if r, err := rehearsal.Read(h.dir); err != nil || r.Passed || !strings.Contains(r.Trouble, "started the system") {
		t.Errorf("report %+v, %v", r, err)
	}
}

// systemdBoot makes systemd-boot the loader, with a recovery environment.
func (h *host) systemdBoot() {
	h.t.Helper()
	h.write("boot/efi/loader/entries/"+loader.RecoveryEntry, "title x\n")
	h.write("boot/efi/loader/entries/debian+3.conf", "title x\n")
	h.write("boot/efi/keepout/"+esp.KernelA, "kernel")
	h.write("boot/efi/keepout/"+esp.ImageA, "image")
	vars := h.vars()
	if err := os.MkdirAll(vars.Dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	for name, text := range map[string]string{"LoaderInfo": "systemd-boot 252", "LoaderEntrySelected": "debian.conf"} {
		if err := vars.Set(name, text); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) vars() loader.Variables {
	return loader.Variables{Dir: filepath.Join(h.root, "sys", "firmware", "efi", "efivars")}
}

// TestSystemdBootIsAsked: the fourth boot asks for the recovery environment's entry, once. Where the firmware's memory
// takes nothing more, the machine boots in safe mode, says so, and does not restart.
func TestSystemdBootIsAsked(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.systemdBoot()
	for range 4 {
		h.boot()
	}
	if id, err := h.vars().Get("LoaderEntryOneShot"); id != loader.RecoveryEntry || err != nil || h.restarts != 1 {
		t.Errorf("asked for %q, %v, %d restarts", id, err, h.restarts)
	}

	h = newHost(t)
	h.systemdBoot()
	full := filepath.Join(h.vars().Dir, "LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
	if err := os.MkdirAll(full, 0o700); err != nil { // a file that cannot be written
		t.Fatal(err)
	}
	var last boot.Instruction
	for range 4 {
		last = h.boot()
	}
	if last.Mode != boot.Safe || !last.Menu || !strings.Contains(last.Trouble, "LoaderEntryOneShot") || h.restarts != 0 {
		t.Errorf("with a full NVRAM: %+v, %d restarts", last, h.restarts)
	}
}

// TestGoodBootEndsTheStory: the record of the last failure says that a good boot followed, boot.json tells of it for a
// while, and a rehearsal or an old failure is nothing to tell.
func TestGoodBootEndsTheStory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	keep := func(r crash.Record) {
		t.Helper()
		r.Format = crash.Format
		data, err := crash.Encode(&r)
		if err != nil {
			t.Fatal(err)
		}
		h.write("boot/efi/keepout/diag/"+r.FileName(), string(data))
	}
	now := time.Now().UTC().Truncate(time.Second)
	keep(crash.Record{Code: "AAAA-AAAA", Time: now.Add(-20 * 24 * time.Hour)})
	if in := h.boot(); in.Told != nil {
		t.Errorf("an old failure is told: %+v", in.Told)
	}
	keep(crash.Record{Code: "BBBB-BBBB", Time: now.Add(-time.Minute), Test: true})
	keep(crash.Record{Code: "CCCC-CCCC", Time: now.Add(-time.Hour), Outcome: &crash.Outcome{
		Action: "Next start: disable acme", By: "the local rule",
	}})
	in := h.boot()
	if in.Told == nil || in.Told.Code != "KO-2501" || !strings.Contains(in.Told.Fix, "CCCC-CCCC") {
		t.Fatalf("before the boot is good it tells %+v", in.Told)
	}
	if err := h.guard().Good(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(h.run, bootguard.InstructionFile))
	if err != nil {
		t.Fatal(err)
	}
	in, err = boot.ParseInstruction(data)
	if err != nil || in.Told == nil || in.Told.Code != "KO-2502" || in.Told.Until.Before(now.Add(13*24*time.Hour)) {
		t.Errorf("after a good boot it tells %+v, %v", in.Told, err)
	}
	records, err := crash.List(os.DirFS(h.dir.Join(esp.Diag)))
	if err != nil || len(records) != 3 {
		t.Fatal(records, err)
	}
	for _, r := range records {
		ended := r.Outcome != nil && r.Outcome.Recovered
		if ended != (r.Code == "CCCC-CCCC") {
			t.Errorf("record %s: outcome %+v", r.Code, r.Outcome)
		}
		if ended && (r.Outcome.Action != "disable acme" || r.Outcome.By != "the local rule") {
			t.Errorf("what was done is lost: %+v", r.Outcome)
		}
	}
}

// TestAFixRestoresFiles: after a good boot a file that was broken since is given back before the core starts, and safe
// mode is taken back; what no copy is there of is said, and the rest of the fix holds.
func TestAFixRestoresFiles(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const config, text = "etc/keepout/keepout.yaml", "watch: [/srv]\n"
	h.write(config, text)
	h.boot()
	if err := h.guard().Good(); err != nil {
		t.Fatal(err)
	}
	h.write(config, "}{")
	sum := sha256.Sum256([]byte(text))
	restore := func(path string, digest [32]byte) boot.Restore {
		return boot.Restore{Path: path, SHA256: hex.EncodeToString(digest[:])}
	}
	wants := map[string]boot.Remedy{
		"1": {Orders: boot.Orders{Safe: true, Disabled: []string{"acme-av"}, Source: "fix 1"}},
		"2": {Unset: true, Restore: []boot.Restore{restore("config/keepout.yaml", sum)}},
	}
	h.verify = func(envelope []byte, _ string) (boot.Remedy, error) { return wants[string(envelope)], nil }
	leave := func(name string) boot.Instruction {
		t.Helper()
		if err := h.dir.LeaveIntent(esp.Intent{Name: name, Data: []byte(name)}); err != nil {
			t.Fatal(err)
		}
		return h.boot()
	}
	if in := leave("1"); in.Mode != boot.Safe {
		t.Fatalf("%+v", in)
	}
	if err := h.guard().ShutDown(); err != nil {
		t.Fatal(err)
	}
	in := leave("2")
	if in.Orders.Safe || in.Trouble != "" || !in.Disables("acme-av") {
		t.Errorf("%+v", in)
	}
	if got, err := os.ReadFile(filepath.Join(h.root, config)); string(got) != text || err != nil {
		t.Errorf("the file is %q, %v", got, err)
	}
	wants["3"] = boot.Remedy{
		Orders:  boot.Orders{Disabled: []string{"other"}},
		Restore: []boot.Restore{restore("config/keepout.yaml", [32]byte{1}), restore("config/../../passwd", sum)},
	}
	if in = leave("3"); !strings.Contains(in.Trouble, "no copy") || !strings.Contains(in.Trouble, "Keepout's own") ||
		!in.Disables("other") {
		t.Errorf("%+v", in)
	}
}
