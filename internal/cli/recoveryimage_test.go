package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

// TestSecondBootPartition: entries on a partition of their own are found, and nothing else is taken for one.
func TestSecondBootPartition(t *testing.T) {
	t.Parallel()
	of := func(path string) (settings.Volume, error) {
		if strings.HasSuffix(path, "/boot") {
			return settings.Volume{Type: "vfat", ID: "2222-2222", Dir: "."}, nil
		}
		return settings.Volume{Type: "vfat", ID: "1111-1111", Dir: "keepout"}, nil
	}
	unreadable := func(path string) (settings.Volume, error) {
		if strings.HasSuffix(path, "/boot") {
			return settings.Volume{}, errors.New("it lies on xfs")
		}
		return of(path)
	}
	for name, c := range map[string]struct {
		entries string
		of      func(string) (settings.Volume, error)
		dir     string
		want    string
	}{
		"entries of their own": {"boot/loader/entries", of, "efi/keepout", "2222-2222"},
		"unified images":       {"boot/EFI/Linux", of, "efi/keepout", "2222-2222"},
		"no entries there":     {"boot/grub", of, "efi/keepout", ""},
		"the same file system": {"boot/loader/entries", of, "boot", ""},
		"one it cannot read":   {"boot/loader/entries", unreadable, "efi/keepout", ""},
	} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, c.entries), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := secondBoot(root, filepath.Join(root, c.dir), c.of); got.ID != c.want {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

// beginBoot leaves the state of a boot that was not judged yet.
func beginBoot(t *testing.T, dir string) {
	t.Helper()
	s := boot.New()
	s.Boot = "this-boot"
	if err := esp.Open(dir).Keep(&s); err != nil {
		t.Fatal(err)
	}
}

// TestRecoveryRehearsalCommand: without an armed machine, without an image, before the boot is good and without a
// report it says what to do.
func TestRecoveryRehearsalCommand(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if code, _, errs := command(t, "recovery", "test", "--root", root); code != exitFailure ||
		!strings.Contains(errs, "KO-2404") {
		t.Errorf("not armed: %d, %s", code, errs)
	}
	dir := filepath.Join(root, "boot", "efi", "keepout")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "recovery", "test", "--root", root); code != exitFailure ||
		!strings.Contains(errs, "no copy of the recovery image is good") {
		t.Errorf("without an image: %d, %s", code, errs)
	}
	beginBoot(t, dir)
	if code, _, errs := command(t, "recovery", "test", "--root", root); code != exitFailure ||
		!strings.Contains(errs, "KO-2406") || !strings.Contains(errs, "calls this boot good") {
		t.Errorf("before the boot is good: %d, %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, esp.Rehearsal)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was refused, and left a mark: %v", err)
	}
	if code, _, errs := command(t, "recovery", "test", "--report", "--root", root); code != exitFailure ||
		!strings.Contains(errs, "KO-2405") {
		t.Errorf("without a report: %d, %s", code, errs)
	}
	report := filepath.Join(dir, "rehearsal.json")
	write(t, report, []byte(`{"version":1,"passed":true,"kernel":"6.1","steps":[{"done":true,"text":"Network: wired"}]}`))
	if out := must(t, "recovery", "test", "--report", "--root", root); !strings.Contains(out, "passed") ||
		!strings.Contains(out, "done        Network: wired") {
		t.Errorf("the report: %s", out)
	}
	write(t, report, []byte(`{"version":1,"trouble":"no network","steps":[]}`))
	if code, out, _ := command(t, "recovery", "test", "--report", "--root", root); code != exitDegraded ||
		!strings.Contains(out, "did not pass: no network") || strings.Contains(out, "built") {
		t.Errorf("a rehearsal that did not pass: %d, %s", code, out)
	}
	must(t, "recovery", "test", "--cancel", "--root", root)
}
