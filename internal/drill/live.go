package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// live is a run of drills on this host's daemon.
type live struct {
	aim
	daemon  playground.Daemon
	bait    *bait
	poison  string // whose self-test object the bad files are; "": there are none
	because string // why there are none
}

// Live runs drills on the daemon in opt.RunDir, which it does not start: those whose fault is a signal. It changes
// nothing else there, opens only files of its own in a folder that it takes away again, and needs root. Errors are
// those of Run, a health.Problem when it is refused, and control.ErrUnreachable. Ending ctx ends it in order.
func Live(ctx context.Context, opt Options) (err error) {
	drills, err := SelectLive(opt.Names)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return refused("sudo "+control.Command(opt.RunDir, command(opt, drills)),
			"it needs root, to signal the daemon's processes")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	l := &live{daemon: playground.Daemon{Run: opt.RunDir}}
	if err := l.prepare(ctx, opt, drills); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.bait.remove()) }()
	if err := l.lace(); err != nil {
		return err
	}
	report := &Report{Live: opt.RunDir}
	if !opt.JSON {
		fmt.Fprintln(opt.Out, l.where()+"\n")
	}
	return perform(ctx, opt, report, drills, func(d *Drill) Result {
		*d = l.here(*d)
		e, err := l.play(ctx, d, opt.For)
		return d.result(&e, l.others(), err)
	})
}

// prepare looks at the daemon, refuses what must not be, and lays files out.
func (l *live) prepare(ctx context.Context, opt Options, drills []Drill) error {
	if err := errors.Join(l.look(ctx), ctx.Err()); err != nil {
		return err
	}
	if err := l.choose(opt.Provider); err != nil {
		return err
	}
	var costs []string
	for i := range drills {
		if err := l.possible(&drills[i]); err != nil {
			return err
		}
		d := l.here(drills[i])
		costs = append(costs, l.cost(&d))
	}
	if !opt.Yes {
		return refused(control.Command(opt.RunDir, command(opt, drills)+" --yes"),
			"it interrupts protection for a moment. %s", strings.Join(costs, "; "))
	}
	return l.lay(ctx)
}

// command is what the person typed, but for the words that say where and how it is told.
func command(opt Options, drills []Drill) string {
	words := []string{"drill", "--live"}
	for i := range drills {
		words = append(words, drills[i].Name)
	}
	if opt.Provider != "" {
		words = append(words, "--provider", opt.Provider)
	}
	if opt.For != DefaultFor {
		words = append(words, "--for", opt.For.String())
	}
	return strings.Join(words, " ")
}

// look asks the daemon how it is.
func (l *live) look(ctx context.Context) (err error) {
	if l.status, err = l.daemon.Status(ctx); err != nil {
		return err
	}
	r, err := l.daemon.Ask(ctx, control.Request{Do: "checkup"})
	if l.checkup = r.Checkup; err == nil && r.Checkup == nil {
		err = errors.New("the daemon does not know the request checkup")
	}
	return err
}

// lay lays good files out below the first watched path that takes them.
func (l *live) lay(ctx context.Context) error {
	why := []string{"none is watched for opens"}
	for _, w := range l.checkup.Watch {
		if !slices.Contains(w.Events, event.Open) {
			continue
		}
		b, err := layBait(ctx, w.Path)
		if err == nil {
			l.bait = b
			return nil
		}
		if ctx.Err() != nil {
			return errors.New("interrupted; the files are removed")
		}
		why = append(why, err.Error())
	}
	return refused("watch a folder that can be written, with events: [open]", "files can be laid out below no watched "+
		"path: %s", why[len(why)-1])
}

// lace adds bad files, which a provider denies here and now.
func (l *live) lace() error {
	l.because = "no provider denies here that has a self-test object"
	for _, id := range l.poisoners() {
		works, err := l.bait.poison(l.of(id).Selftest)
		if err != nil {
			return err
		}
		if works {
			l.poison = id
			return nil
		}
		l.because = id + " does not deny its self-test object (keepout doctor)"
	}
	return nil
}

// where says what is hit, and what is opened.
func (l *live) where() string {
	text := fmt.Sprintf("on the daemon in %s: provider %s, files in %s; ", l.daemon.Run, orElse(l.id, "none"), l.bait.dir)
	if l.poison == "" {
		return text + "what is let through cannot be seen: " + l.because
	}
	return text + "the bad ones are the self-test object of " + l.poison
}

// play runs one drill and returns what was observed.
func (l *live) play(ctx context.Context, d *Drill, length time.Duration) (evidence, error) {
	d.Explanation = l.where()
	if d.GoodOnly = l.poison == ""; !d.Core && l.poison == l.id {
		d.OpenFor = patience // nobody else denies them
	}
	if err := l.again(ctx, d); err != nil {
		return evidence{}, err
	}
	v := &venue{
		drill: d, daemon: l.daemon, trail: l.checkup.Disk.JournalDir, good: l.bait.good, bad: l.bait.bad,
		open: l.bait.open, lastResort: func() {}, // it is not ours to end
	}
	w, err := v.observe(ctx, length)
	w.read()
	return w.evidence(), err
}

// again waits until every provider that ran at first runs, after the drill before, and looks whether this one is still
// possible.
func (l *live) again(ctx context.Context, d *Drill) error {
	running := append(l.others(), l.id)
	now, err := l.daemon.Until(ctx, "every provider votes again", func(st *control.Status) error {
		for _, id := range running {
			if p := playground.Find(st, id); id != "" && (p == nil || p.State != supervisor.Running) {
				return fmt.Errorf("%s does not vote", id)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.status = now
	return l.possible(d)
}
