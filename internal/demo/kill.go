package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
)

const (
	openers   = 4                    // that open files all the while
	openEvery = 2 * time.Millisecond // pause of each between two opens
	settle    = 200 * time.Millisecond
)

// opens counts what the openers saw.
type opens struct {
	done, failed atomic.Int64
	longest      atomic.Int64 // ns
	first        atomic.Pointer[error]
}

// once opens and reads a file and notes how that went.
func (o *opens) once(path string) {
	began := time.Now()
	f, err := os.Open(path)
	took := time.Since(began)
	if err == nil {
		_, err = io.ReadAll(f)
		err = errors.Join(err, f.Close())
	}
	o.done.Add(1)
	for old := o.longest.Load(); took.Nanoseconds() > old; old = o.longest.Load() {
		if o.longest.CompareAndSwap(old, took.Nanoseconds()) {
			break
		}
	}
	if err != nil {
		o.failed.Add(1)
		o.first.CompareAndSwap(nil, &err)
	}
}

// held accepts only if opens went on and none failed.
func (o *opens) held() error {
	if first := o.first.Load(); first != nil {
		return fmt.Errorf("%d of %d opens failed, first: %w", o.failed.Load(), o.done.Load(), *first)
	}
	if o.done.Load() == 0 {
		return errors.New("no open was made")
	}
	return nil
}

// open goes on in several goroutines until the returned function is called.
func (s *show) openAll(o *opens) (stop func()) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	for i := range openers {
		wg.Go(func() {
			tick := time.NewTicker(openEvery)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-over:
					return
				case <-tick.C:
					o.once(filepath.Join(s.dir, noteFile(n)))
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(over); wg.Wait() })
}

// victim chooses who is killed: an engine with a process of its own if there is one, so that more is at
// stake.
func (s *show) victim() string {
	if slices.Contains(s.ids, "clamav") {
		return "clamav"
	}
	return "hashlist"
}

func (s *show) kill(ctx context.Context) error {
	id := s.victim()
	st, err := s.p.Status(ctx)
	if err != nil {
		return err
	}
	before := playground.Find(st, id)
	if before == nil || before.PID <= 1 {
		return fmt.Errorf("%s has no process to kill", id)
	}
	var o opens
	stop := s.openAll(&o)
	defer stop()
	if err := wait(ctx, settle); err != nil {
		return err
	}
	undisturbed := o.done.Load()
	r := s.sh(ctx, fmt.Sprintf("kill -KILL %d    # %s, while %d openers go on", before.PID, id, openers))
	if err := r.want(succeeded); err != nil {
		return err
	}
	killed := time.Now()
	if err := s.outage(ctx, id, before.PID); err != nil {
		return err
	}
	after, err := s.p.Until(ctx, id+" is back", func(st *control.Status) error {
		p := playground.Find(st, id)
		if p == nil || p.State != supervisor.Running || p.PID == before.PID {
			return fmt.Errorf("%s does not vote", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	back := time.Since(killed)
	if err := wait(ctx, settle); err != nil {
		return err
	}
	stop()
	if err := o.held(); err != nil {
		return err
	}
	if o.done.Load() == undisturbed {
		return errors.New("no open was made while the provider was away")
	}
	s.good("%s was started again and votes as pid %d, %.1f s later", id, playground.Find(after, id).PID, back.Seconds())
	s.good("meanwhile %d opens, %d failed, the longest took %.1f ms", o.done.Load(), o.failed.Load(),
		float64(o.longest.Load())/1e6)
	return nil
}

// outage shows that the provider is gone, and that the others go on denying.
func (s *show) outage(ctx context.Context, id string, pid int) error {
	st, err := s.p.Until(ctx, id+" is gone", func(st *control.Status) error {
		p := playground.Find(st, id)
		if p != nil && p.PID == pid {
			return fmt.Errorf("%s is still there", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.note("%s: %s, %s", id, playground.Find(st, id).State, playground.Find(st, id).Cause)
	if len(s.ids) == 1 {
		s.note("no other engine is here: everything is allowed until it is back")
		return nil
	}
	if err := s.sh(ctx, "cat "+eicarFile).want(refused); err != nil {
		return err
	}
	s.good("the other providers went on denying")
	return nil
}

// wait lets time pass, or ends with ctx.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
