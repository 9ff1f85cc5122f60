//go:build linux

package bootguard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

// every is the pause between two looks at the facts.
const every = 5 * time.Second

// AwaitGood looks at the facts again and again and marks the boot as good when it is. Preconditions: the system has
// come up, which is why the unit that calls it is ordered after the target. When ctx ends first, the error lists what
// was missing; that alone restarts nothing.
func (g *Guard) AwaitGood(ctx context.Context, n boot.Numbers) error {
	if err := os.WriteFile(filepath.Join(g.RunDir, Reached), nil, 0o644); err != nil {
		return fmt.Errorf("mark that the system came up: %w", err)
	}
	w := watcher{runDir: g.RunDir, crashed: map[string]crashes{}, numbers: n}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		missing := boot.Judge(w.facts(ctx, g.uptime()), n)
		if len(missing) == 0 {
			return g.Good()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("this boot is not good: %s", strings.Join(missing, "; "))
		case <-tick.C:
		}
	}
}

// uptime is the time since the kernel started, 0 when that is not known.
func (g *Guard) uptime() time.Duration {
	data, err := os.ReadFile(filepath.Join(g.Root, "proc", "uptime"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// Deadline restarts the machine if the system has not come up. What is wrong with Keepout alone is no reason: then the
// machine is of use without it. Where boots are not counted nothing would end the restarts, so that there are none.
func (g *Guard) Deadline() error {
	in, err := g.instruction()
	switch {
	case err != nil:
		return err // nothing was counted in this boot: a restart could go on for ever
	case in.Good, in.Menu, in.Uncounted:
		return nil
	}
	if _, err := os.Stat(filepath.Join(g.RunDir, Reached)); err == nil {
		return nil
	}
	return g.Restart()
}

// crashes is how often a provider was restarted, and since when that number stands.
type crashes struct {
	count int
	since time.Time
}

// watcher gathers the facts.
type watcher struct {
	runDir  string
	crashed map[string]crashes
	numbers boot.Numbers
	canary  *canary
}

// facts asks the core, and touches the canaries once it answers. They are touched again only while something else is
// missing for so long that they may be out of date.
func (w *watcher) facts(ctx context.Context, up time.Duration) boot.Facts {
	f := boot.Facts{Uptime: up, Target: true}
	s, err := ask(ctx, w.runDir)
	if err != nil {
		w.canary = nil
		return f
	}
	f.Core = true
	now := time.Now()
	for _, p := range s.Providers {
		seen, known := w.crashed[p.ID]
		if !known || seen.count != p.Restarts {
			seen = crashes{count: p.Restarts, since: now}
			if !known && s.Since.Before(now) {
				seen.since = s.Since
			}
			w.crashed[p.ID] = seen
		}
		if p.State == "disabled" {
			continue // it is not to run, so that there is nothing to wait for
		}
		f.Providers = append(f.Providers, boot.ProviderFact{
			ID: p.ID, Required: p.Mode == "enforce", Connected: p.State == "running",
			Degraded: p.State == "degraded", Calm: now.Sub(seen.since),
		})
	}
	if up < w.numbers.Uptime {
		return f
	}
	if w.canary == nil || !w.canary.fine() {
		w.canary = touch(ctx, w.runDir, s, w.numbers.Answer)
	}
	f.Open, f.Exec = w.canary.open, w.canary.exec
	return f
}
