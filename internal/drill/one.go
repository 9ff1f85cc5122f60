package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// run plays one drill from the first file to the last process.
func (s *scene) run(ctx context.Context, length time.Duration) Result {
	e, err := s.play(ctx, length)
	return s.drill.result(&e, good(), err)
}

// play runs the platform, the openers and the fault, and returns what was observed.
func (s *scene) play(ctx context.Context, length time.Duration) (e evidence, err error) {
	if err := s.furnish(); err != nil {
		return e, err
	}
	p, err := playground.Start(s.bin, s.dir, s.providers())
	if err != nil {
		return e, err
	}
	// Whatever goes wrong: with the platform ends every engine, and every open that waits.
	watchdog := time.AfterFunc(readyTime+length+patience+overtime, p.Kill)
	defer watchdog.Stop()
	if _, err := p.Until(ctx, "every provider votes", s.ready); err != nil {
		return e, errors.Join(err, fmt.Errorf("keepoutd said: %s", p.LastLog()), p.Stop())
	}
	v := &venue{
		drill: s.drill, daemon: p.Daemon, trail: filepath.Join(s.dir, playground.StateDir, "journal"),
		good: s.paths(goodFiles, goodFile), bad: s.paths(badFiles, badFile), open: os.Open,
		update: func(ctx context.Context, w *watcher) error { return s.commit(ctx, p, w) }, lastResort: p.Kill,
	}
	w, err := v.observe(ctx, length)
	stopped := p.Stop()
	if !s.drill.Core { // whose platform may be gone
		err = errors.Join(err, stopped)
	}
	w.read()
	return w.evidence(), err
}

// commit commits a fault that is an update.
func (s *scene) commit(ctx context.Context, p *playground.Platform, w *watcher) error {
	checked, err := s.update(ctx)
	if err != nil {
		return err
	}
	_, refused := p.Ask(ctx, control.Request{Do: "reload"})
	w.say(func(e *evidence) {
		e.checked = checked
		if refused != nil {
			e.refused = refused.Error()
		}
	})
	return nil
}

// ready accepts a status in which all three vote.
func (s *scene) ready(st *control.Status) error {
	for _, id := range append(good(), s.drill.Engine) {
		p := playground.Find(st, id)
		if p == nil || p.State != supervisor.Running {
			return fmt.Errorf("%s does not vote", id)
		}
	}
	return nil
}
