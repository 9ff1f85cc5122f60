package digest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/digest"
)

func file(t *testing.T, content []byte) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func goOn() bool { return false }

// TestDigest: both ways give the SHA-256 of the whole content, and none of another size.
func TestDigest(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 4096, digest.Small, digest.Small + 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1 << 20} {
		content := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		want := digest.Sum(sha256.Sum256(content))
		fd := file(t, content)
		got, err := digest.Of(fd, int64(size), goOn)
		if err != nil || got != want {
			t.Errorf("%d bytes: %x, %v; want %x", size, got, err, want)
		}
		if text := got.Text(); text != hex.EncodeToString(want[:]) {
			t.Errorf("as text: %s", text)
		}
		if got, ok := digest.Cached(fd, int64(size)); ok && (got != want || size > digest.Small) {
			t.Errorf("%d bytes, cached: %x, want %x", size, got, want)
		}
		for _, other := range []int64{int64(size) - 1, int64(size) + 1} {
			if _, err := digest.Of(fd, other, goOn); other >= 0 && !errors.Is(err, digest.ErrChanged) {
				t.Errorf("%d bytes that should be %d: %v", size, other, err)
			}
			if _, ok := digest.Cached(fd, other); ok {
				t.Errorf("%d bytes that should be %d are hashed", size, other)
			}
		}
	}
}

// TestStopped: a digest that is not wanted any more is given up between two reads.
func TestStopped(t *testing.T) {
	t.Parallel()
	reads := 0
	_, err := digest.Of(file(t, make([]byte, 1<<20)), 1<<20, func() bool { reads++; return reads > 2 })
	if !errors.Is(err, digest.ErrStopped) || reads != 3 {
		t.Errorf("%v after %d reads", err, reads)
	}
	if _, err := digest.Of(-1, 10, goOn); err == nil {
		t.Error("no error without a file")
	}
}

// TestTable: a version gives the digest that was put in last, or none.
func TestTable(t *testing.T) {
	table := digest.New()
	version := func(i int) *event.Version { return &event.Version{Handle: "handle", Ino: uint64(i)} }
	const n = 1000
	for i := range n {
		table.Put(version(i), digest.Sum{1})
		table.Put(version(i), digest.Sum{byte(i), 2})
	}
	for i := range n {
		if got, ok := table.Get(version(i)); !ok || got != (digest.Sum{byte(i), 2}) {
			t.Fatalf("version %d: %x, %v", i, got, ok)
		}
	}
	if _, ok := table.Get(version(n)); ok {
		t.Error("a version that was never put in has a digest")
	}
	if got := testing.AllocsPerRun(100, func() { table.Get(version(3)) }); got > 0 {
		t.Errorf("%v allocations a look-up", got)
	}
	for i := range 4 * digest.Places { // it is bounded, and newer ones push out older ones
		table.Put(version(i), digest.Sum{3})
	}
	if got, ok := table.Get(version(4*digest.Places - 1)); !ok || got != (digest.Sum{3}) {
		t.Error("the last one is not there")
	}
}

// TestCachedDoesNotAllocate: it runs on reader threads.
func TestCachedDoesNotAllocate(t *testing.T) {
	fd := file(t, make([]byte, 4096))
	if got := testing.AllocsPerRun(100, func() { digest.Cached(fd, 4096) }); got > 0 {
		t.Errorf("%v allocations", got)
	}
}
