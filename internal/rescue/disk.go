package rescue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// lastWait is how long the end of a visit waits for the disk. A disk that hangs answers never, or after its driver gave
// up, which takes minutes.
const lastWait = 10 * time.Second

var errSilent = errors.New("the boot file system does not answer")

// hold takes the boot file system for one effect, and returns what gives it back: esp.Dir is for one at a time. Who
// waits for a disk that hangs keeps it for ever, so that those who come after it are let go when ctx ends. Show, which
// the keys and the limits wait for, takes it never.
func (v *Visit) hold(ctx context.Context) (release func(), err error) {
	select {
	case v.disk <- struct{}{}:
	case <-ctx.Done():
		return nil, errSilent
	}
	release = func() { <-v.disk }
	if ctx.Err() != nil {
		release()
		return nil, errSilent
	}
	return release, nil
}

// keepEvidence writes down what a fix is judged by at the next boot, and the bundle.
func (v *Visit) keepEvidence(ctx context.Context, failure *intent.Failure, bundle *Bundle) error {
	release, err := v.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	err = v.m.Dir.WithRoom(0, func() error { return intent.Note(v.m.Dir, failure) })
	if err != nil || bundle.Off {
		return err
	}
	return v.keepBundle(bundle)
}

// keepBundle keeps it beside those of earlier visits.
func (v *Visit) keepBundle(b *Bundle) error {
	dir := v.m.Dir.Join(esp.Diag)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the diagnostics: %w", err)
	}
	v.m.Dir.KeepBundles(esp.MaxBundles - 1)
	stamp := v.begun.UTC().Format("20060102-150405")
	name := fmt.Sprintf("%s%s-%s", esp.BundlePrefix, stamp, b.Digest[:min(8, len(b.Digest))])
	return v.m.Dir.WithRoom(0, func() error {
		return durable.WriteFileOn(esp.Disk(), filepath.Join(dir, name), b.Kept, 0o600)
	})
}

// within calls f and returns when that is done, or after limit, and reports which: what waits for a disk that hangs
// cannot be ended, only left behind.
func within(limit time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// openWithin finds the boot file system and opens the visit on it. One that does not answer within limit is taken for
// one that is not there, and what waits for it is left behind.
func openWithin(limit time.Duration, m Machine, find func(*Machine)) (*Visit, plan.Facts) {
	found := m
	var visit *Visit
	var facts plan.Facts
	opened := within(limit, func() {
		find(&found)
		visit, facts = Open(found)
	})
	if opened {
		return visit, facts
	}
	m.Absent = errSilent.Error()
	return Open(m)
}
