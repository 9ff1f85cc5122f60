package fetch

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// TestRevocationsAreStaged: what a check-in brings lies where bootguard looks, before the control plane is told so; it
// is written when it changes only, because each write starts bootguard.
func TestRevocationsAreStaged(t *testing.T) {
	t.Parallel()
	o := Options{StateDir: t.TempDir()}
	o.complete()
	f := &fetcher{o: &o}
	path := filepath.Join(o.Staging, protocol.RevocationsFile)
	answer := func(mark uint64, list ...string) error {
		out := &fleetpb.CheckInResponse{RevocationsMark: mark}
		for _, sealed := range list {
			out.Revocations = append(out.Revocations, []byte(sealed))
		}
		return f.revoke(out)
	}
	staged := func() (list [][]byte, written time.Time) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if list, err = protocol.DecodeRevocations(text); err != nil {
			t.Fatal(err)
		}
		return list, info.ModTime()
	}
	if err := answer(7, "one"); err == nil || f.revoked != 0 {
		t.Fatalf("without a folder to stage it in: mark %d, %v", f.revoked, err)
	}
	if err := os.MkdirAll(o.Staging, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := answer(7, "one"); err != nil || f.revoked != 7 {
		t.Fatalf("mark %d, %v", f.revoked, err)
	}
	if list, _ := staged(); len(list) != 1 || string(list[0]) != "one" {
		t.Errorf("staged %q", list)
	}
	old := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	again := &fetcher{o: &o} // it was started anew, and is told all again
	for _, f = range []*fetcher{f, again} {
		if err := answer(7, "one"); err != nil || f.revoked != 7 {
			t.Fatalf("mark %d, %v", f.revoked, err)
		}
	}
	if _, written := staged(); !written.Equal(old) {
		t.Error("the same list was written again")
	}
	if err := answer(9, "one", "two"); err != nil {
		t.Fatal(err)
	}
	if list, _ := staged(); len(list) != 2 {
		t.Errorf("staged %q", list)
	}
}
