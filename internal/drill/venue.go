package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/playground"
)

// venue is where a drill happens: a platform of its own, or this host's daemon.
type venue struct {
	drill      *Drill
	daemon     playground.Daemon
	trail      string // folder of its journal
	good, bad  []string
	open       func(name string) (*os.File, error)
	update     func(ctx context.Context, w *watcher) error // commits a fault that is no signal
	lastResort func()                                      // when opens are never answered

	victim *os.Process // that got the drill's signal
}

// observe watches the daemon and lets openers open, commits the fault, and returns when all that must be seen has been
// seen, the fault is lifted and every opener is back. The watcher has not read the end of the journal yet.
func (v *venue) observe(ctx context.Context, length time.Duration) (*watcher, error) {
	began := time.Now()
	w := watch(ctx, v.daemon, v.trail, v.drill.Engine, began)
	defer w.end()
	o := openAll(v.open, v.good, v.bad, began)
	err := v.endure(ctx, w, length)
	w.say(func(e *evidence) { e.lifted = time.Since(began) })
	if v.victim != nil && v.drill.Signal == unix.SIGSTOP {
		_ = v.victim.Signal(unix.SIGCONT) // whoever watches over it has ended it, or will not
	}
	opens := make(chan []opened, 1)
	go func() { opens <- o.stop() }()
	for _, resort := range []func(){v.lastResort, func() {}} {
		select {
		case found := <-opens:
			w.say(func(e *evidence) { e.opens = found })
			return w, err
		case <-time.After(overtime):
			resort()
		}
	}
	return w, errors.Join(err, errors.New("opens were never answered"))
}

// endure lets the openers run warm, commits the fault, and waits until all that must be seen has been seen.
func (v *venue) endure(ctx context.Context, w *watcher, length time.Duration) error {
	if err := wait(ctx, warmUp); err != nil {
		return err
	}
	w.mark()
	commit := v.signal
	if v.drill.Update != nil {
		commit = func(ctx context.Context) error { return v.update(ctx, w) }
	}
	if err := commit(ctx); err != nil {
		return err
	}
	// What must be over after a while is watched for longer than that.
	if err := wait(ctx, max(length, v.drill.DenyFor+time.Second, v.drill.OpenFor+time.Second)); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		e := w.evidence()
		if v.drill.settled(&e) {
			return nil
		}
		if err := wait(ctx, lookEvery); err != nil {
			return err
		}
	}
	return nil // the judgement says what was not seen
}

// signal sends the drill's signal to the provider's process, or to the core's, and remembers to which.
func (v *venue) signal(ctx context.Context) error {
	pid, err := v.target(ctx)
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid) // holds a pidfd from here on
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	// Before that, the number may have gone to another process; one that still serves has kept it.
	if again, err := v.target(ctx); err != nil || again != pid {
		return errors.Join(fmt.Errorf("process %d ended before the drill began", pid), err)
	}
	v.victim = process
	if err := process.Signal(v.drill.Signal); err != nil {
		return fmt.Errorf("signal %d: %w", pid, err)
	}
	return nil
}

// target returns the process that the drill is about.
func (v *venue) target(ctx context.Context) (pid int, err error) {
	st, err := v.daemon.Status(ctx)
	if err != nil {
		return 0, err
	}
	// A daemon in another pid namespace names processes by numbers that are somebody else's here.
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.PID))
	if err != nil || !strings.Contains(exe, "keepout-core") {
		return 0, fmt.Errorf("process %d is not the core: it runs in another pid namespace", st.PID)
	}
	pid = st.PID
	if p := playground.Find(st, v.drill.Engine); !v.drill.Core {
		if p == nil || p.PID <= 1 {
			return 0, errors.New("there is no process to signal")
		}
		pid = p.PID
	}
	return pid, nil
}

// result sums up and judges what was observed, unless err kept the drill from its end.
func (d *Drill) result(e *evidence, others []string, err error) Result {
	r := Result{Name: d.Name, Title: d.Title, Provider: d.Engine, Explanation: d.Explanation}
	if err != nil {
		r.Error = err.Error()
	}
	r.FaultMS, r.LiftedMS = e.fault.Milliseconds(), e.lifted.Milliseconds()
	r.Host, r.Neighbours, r.Usage = e.host(d.rule()), e.neighbours(others), e.usage
	r.Host.GoodOnly = d.GoodOnly
	r.Timeline, r.Opens = d.timeline(e), e.buckets()
	for _, st := range e.states {
		r.States = append(r.States, State{AtMS: st.at.Milliseconds(), State: string(st.state)})
	}
	r.Passed = err == nil
	if err == nil {
		r.Checks = d.judge(e)
	}
	for _, c := range r.Checks {
		r.Passed = r.Passed && c.Passed
	}
	return r
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
