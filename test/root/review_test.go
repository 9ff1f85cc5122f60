package root

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/test/testhost"
)

// TestLongPathIsJudged: a path that is too long to be read proves nothing, so what is behind it is judged, also where
// only a folder of a file system is watched.
func TestLongPathIsJudged(t *testing.T) {
	need(t)
	outside := mountPoint(t)
	must(t, unix.Mount("tmpfs", outside, "tmpfs", 0, "size=16m,mode=755"))
	t.Cleanup(func() { _ = unix.Unmount(outside, unix.MNT_DETACH) })
	watched := filepath.Join(outside, "watched")
	must(t, os.Mkdir(watched, 0o755))
	dir, err := unix.Open(watched, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	name := strings.Repeat("d", 250)
	for range 18 { // 4500 bytes, over PATH_MAX
		must(t, unix.Mkdirat(dir, name, 0o755))
		next, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(dir))
		dir = next
	}
	t.Cleanup(func() { _ = unix.Close(dir) })
	fd, err := unix.Openat(dir, "bad", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	must(t, err)
	_, err = unix.Write(fd, []byte(badText))
	must(t, err)
	must(t, unix.Close(fd))

	testhost.Start(t, testhost.Options{Watch: watched, Providers: []testhost.Provider{hashlist(t, badText)}})
	fd, err = unix.Openat(dir, "bad", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	denied(t, err)
}

// TestAllowWhileDenying: the administrator's list is written to a file system that is watched itself, while denials
// look at the list. Nobody may wait for the disk there, or all wait for each other.
func TestAllowWhileDenying(t *testing.T) {
	need(t)
	h := testhost.Prepare(t, testhost.Options{Providers: []testhost.Provider{hashlist(t, badText)}})
	h.State = filepath.Join(h.Dir, "state")
	h.Launch(testhost.Options{})
	bad := h.File("bad", badText)
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !over.Load() {
				_ = open(bad)
			}
		})
	}
	for i := range 60 {
		digest := sha256.Sum256(fmt.Appendf(nil, "content %d", i))
		must(t, h.Do(control.Request{
			Do: "allow", SHA256: hex.EncodeToString(digest[:]), Seconds: 3600, Reason: "test",
		}, func(control.Reply) {}))
	}
	over.Store(true)
	wg.Wait()
	denied(t, open(bad))
}
