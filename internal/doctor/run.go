package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/control"
)

// askTime bounds one question to the core.
const askTime = 10 * time.Second

// slack is what a record may be later than the last vote that it can wait for.
const slack = 2 * time.Second

// Options say where to look.
type Options struct {
	RunDir  string // of the daemon
	Version string // of this command
}

// Run examines the host and the daemon. What cannot be checked becomes a finding; an error means that canaries could
// not be removed, or that ctx ended, and comes with the report as far as it goes. Without a core that answers the
// report has Reachable false and the checks that need none.
func Run(ctx context.Context, opt Options) (Report, error) {
	began := time.Now()
	f := facts{version: opt.Version, runDir: opt.RunDir, kernel: gatherKernel(), socket: gatherSocket(opt.RunDir)}
	f.status, f.unreachable = status(ctx, opt.RunDir)
	var err error
	if f.status != nil {
		f.guard = gatherGuard(f.status.PID, f.status.Guard.PID)
		f.checkup, f.checkupErr = checkup(ctx, opt.RunDir)
	}
	if f.checkup != nil {
		err = f.prove(ctx)
	}
	f.host = gatherHost(f.checkup)
	f.now = time.Now()
	report := examine(&f)
	report.TookMS = time.Since(began).Milliseconds()
	return report, errors.Join(err, ctx.Err())
}

// examine runs all checks. It is pure.
func examine(f *facts) Report {
	r := Report{Version: f.version, Time: f.now, Reachable: f.status != nil, Findings: []Finding{}}
	for _, check := range []func(*facts) []Finding{
		checkCore, checkProof, checkWatches, checkCages, checkKernel, checkHost,
	} {
		r.Findings = append(r.Findings, check(f)...)
	}
	r.settle()
	return r
}

// prove lays canaries out, touches them, takes them away and finds what the core recorded.
func (f *facts) prove(ctx context.Context) (err error) {
	f.trials = plan(f.checkup)
	birds := newAviary()
	defer func() { err = errors.Join(err, birds.remove()) }()
	birds.layAll(ctx, f.trials)
	f.trials = append(f.trials, instead(f.checkup, f.trials)...)
	began := time.Now()
	records, err := collect(ctx, f.runDir, birds.filter(f.trials), began)
	if err != nil {
		f.giveUp(err)
		return nil
	}
	touch(ctx, f.trials)
	err = birds.remove()
	records.settle(ctx, f.trials, time.Now().Add(time.Duration(f.checkup.ContentMS)*time.Millisecond+slack))
	if ended := records.close(); ended != nil {
		f.giveUp(ended)
		return err
	}
	f.lookAgain(ctx, began)
	f.after, _ = status(ctx, f.runDir) // without it, nothing counts as counted
	return err
}

// giveUp says in every trial without a record why it has none.
func (f *facts) giveUp(why error) {
	for i := range f.trials {
		if t := &f.trials[i]; t.record == nil && t.skipped == "" {
			t.skipped = fmt.Sprintf("its record cannot be looked up: %v", why)
		}
	}
}

// lookAgain asks for records that did not come, because a follower on a very busy host can miss some.
func (f *facts) lookAgain(ctx context.Context, since time.Time) {
	left := maxLookups
	for i := range f.trials {
		t := &f.trials[i]
		if t.record != nil || t.skipped != "" || left == 0 {
			continue
		}
		left--
		err := ask(ctx, f.runDir, control.Request{Do: "explain", Query: t.path}, func(r control.Reply) {
			if r.Record != nil && r.Record.Event.Type == t.act && !r.Record.Event.Time.Before(since) {
				t.record = r.Record
			}
		})
		if errors.Is(err, control.ErrUnreachable) {
			return // the status after this says so
		}
	}
}

// maxLookups bounds the questions of lookAgain: each may search the journal.
const maxLookups = 16

func status(ctx context.Context, runDir string) (s *control.Status, err error) {
	err = ask(ctx, runDir, control.Request{Do: "status"}, func(r control.Reply) { s = r.Status })
	if err == nil && s == nil {
		err = errors.New("the daemon sent no status")
	}
	return s, err
}

func checkup(ctx context.Context, runDir string) (c *control.Checkup, err error) {
	err = ask(ctx, runDir, control.Request{Do: "checkup"}, func(r control.Reply) { c = r.Checkup })
	if err == nil && c == nil {
		err = errors.New("it does not know the request")
	}
	return c, err
}

func ask(ctx context.Context, runDir string, req control.Request, each func(control.Reply)) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := control.Dial(ctx, runDir)
	if err != nil {
		return err
	}
	err = c.Do(ctx, req, func(r control.Reply) error { each(r); return nil })
	return errors.Join(err, ctx.Err(), c.Close())
}
