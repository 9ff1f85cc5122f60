//go:build linux

package bootguard_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

var errRefused = errors.New("nobody has signed it")

const stagedList = "var/lib/keepout/staging/" + protocol.RevocationsFile

// TestRevocationsAreLearned: what the fetcher staged is given to who verifies it, with the folder of the keys and this
// machine's id, when bootguard is asked to, and at the next start before any fix is believed.
func TestRevocationsAreLearned(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("etc/machine-id", "some-machine\n")
	var learned []string
	h.verify = func([]byte, string) (boot.Remedy, error) {
		if len(learned) == 0 {
			t.Error("a fix was looked at before what was taken back")
		}
		return boot.Remedy{}, errors.New("it was taken back")
	}
	h.learn = func(text []byte, trust, id string, now time.Time) error {
		if trust != h.dir.Join(esp.Trust) || strings.TrimSpace(id) != "some-machine" || now.IsZero() {
			t.Errorf("keys in %s, machine %q, at %s", trust, id, now)
		}
		learned = append(learned, string(text))
		return nil
	}
	h.boot()
	if len(learned) > 0 {
		t.Errorf("learned %q before there was any", learned)
	}
	h.write(stagedList, "the list")
	if err := h.guard().Revoke(); err != nil || len(learned) != 1 || learned[0] != "the list" {
		t.Fatalf("learned %q: %v", learned, err)
	}
	learned = nil
	h.write("boot/efi/keepout/"+esp.Intents+"/fix.json", "a fix")
	if in := h.boot(); len(learned) != 1 || !strings.Contains(in.Trouble, "it was taken back") {
		t.Errorf("learned %q, trouble %q", learned, in.Trouble)
	}
}

// TestStagedNonsenseChangesNoBoot: whatever the fetcher's folder holds, the boot is counted and judged as ever; only
// who asked for it hears of it.
func TestStagedNonsenseChangesNoBoot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage   func(h *host)
		refused bool
	}{
		"refused": {func(h *host) { h.write(stagedList, "a stranger's") }, true},
		"a link out of the folder": {func(h *host) {
			h.write("etc/passwd", "root:x:0:0")
			h.write("var/lib/keepout/staging/orders.json", "{}")
			if err := os.Symlink("/etc/passwd", filepath.Join(h.root, stagedList)); err != nil {
				h.t.Fatal(err)
			}
		}, true},
		"a folder":  {func(h *host) { h.write(stagedList+"/x", "") }, true},
		"no folder": {func(*host) {}, false},
		"no list":   {func(h *host) { h.write("var/lib/keepout/staging/orders.json", "{}") }, false},
	} {
		h := newHost(t)
		h.learn = func([]byte, string, string, time.Time) error { return errRefused }
		c.stage(h)
		in := h.boot()
		if in.Mode != boot.Normal || in.Trouble != "" {
			t.Errorf("%s: %+v", name, in)
		}
		if err := h.guard().Deadline(); err != nil || h.restarts != 1 {
			t.Errorf("%s: the deadline does not restart: %v", name, err)
		}
		if err := h.guard().Revoke(); (err != nil) != c.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
