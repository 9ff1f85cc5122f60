package fetch

import (
	"os"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/folder"
)

// TestOthersTemporaryFilesStay: what a power cut left goes when a process begins, and what another process of this
// program may be writing stays until that has ended. While one cleans up, nobody begins to write.
func TestOthersTemporaryFilesStay(t *testing.T) {
	t.Parallel()
	k := newMarket(t, "acme")
	k.release("acme", "one", 1, time.Now())
	k.publish()
	o := Options{StateDir: k.dir}
	o.complete()
	k.must(os.MkdirAll(o.own(), 0o700))
	k.must(os.MkdirAll(o.Staging, 0o755))
	var left []string
	for _, dir := range []string{o.own(), o.Staging} {
		f, err := durable.OS().CreateTemp(dir)
		k.must(err)
		k.must(f.Close())
		left = append(left, f.Name())
	}
	there := func(when string, want bool) {
		t.Helper()
		for _, name := range left {
			if _, err := os.Stat(name); (err == nil) != want {
				t.Errorf("%s: there is %s: %v", when, name, err)
			}
		}
	}
	dir, err := folder.Open(o.own())
	k.must(err)
	defer func() { _ = dir.Close() }()
	at, err := dir.Reading() // as begin leaves it
	k.must(err)
	k.must(k.once())
	there("while another process is at work", true)
	k.must(at.Close())

	cleans, err := dir.Tidying()
	k.must(err)
	done := make(chan error, 1)
	go func() { done <- k.once() }()
	select {
	case err := <-done:
		t.Errorf("it began while another process cleaned up: %v", err)
	case <-time.After(5 * heldPause):
		k.must(cleans.Close())
		k.must(<-done)
	}
	mine, err := o.begin(t.Context())
	k.must(err)
	there("once it began alone", false)
	if _, err := dir.Tidying(); err == nil {
		t.Error("another process may clean up beside it")
	}
	k.must(mine.Close())
}
