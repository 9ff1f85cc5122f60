package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/playground"
)

// stepTime bounds each command of the story.
const stepTime = 20 * time.Second

// show is a story being told.
type show struct {
	*teller
	opt  Options
	bin  string
	dir  string
	list []engine
	ids  []string // of the engines that take part
	p    *playground.Platform
}

// Perform tells the story in the folder that Run made, and leaves it as it found it. Run starts it as a
// process with a mount namespace of its own; anywhere else it refuses. It returns ErrTold when it has said
// itself what went wrong.
func Perform(ctx context.Context, opt Options, dir string) error {
	if err := playground.Entrusted(dir, "keepout demo"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	s := &show{teller: newTeller(opt), opt: opt, bin: filepath.Dir(opt.Exe), dir: dir}
	s.list = engines(s.bin, findProgram)
	s.ids = present(s.list)
	err := s.tell(ctx)
	if err == nil && !opt.Once {
		err = s.live(ctx)
	}
	return s.end(ctx, err)
}

// end says how it went and takes everything down.
func (s *show) end(ctx context.Context, err error) error {
	fmt.Fprintln(s.out)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		s.note("interrupted before the end of the story")
	default:
		s.bad("%v", err)
		if s.p != nil {
			s.note("keepoutd said:")
			s.output(s.p.LastLog())
		}
	}
	down := []error{err}
	if s.p != nil {
		down = append(down, s.p.Stop())
	}
	down = append(down, playground.Unmount(filepath.Join(s.dir, playgroundDir)), os.RemoveAll(s.dir))
	if untold := errors.Join(down[1:]...); untold != nil {
		s.bad("%v", untold)
	}
	if errors.Join(down...) != nil {
		return ErrTold
	}
	return nil
}

// tell goes through the steps and stops at the first that does not show what it says.
func (s *show) tell(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(s.out, s.paint(bold, "Keepout: security providers outside the kernel, at work on this machine"))
	fmt.Fprintln(s.out, s.paint(grey,
		"It watches one small file system of its own and touches nothing else. Ctrl-C ends it."))
	for _, step := range s.steps() {
		s.title(step.title)
		if err := step.do(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	s.note("the story took %.1f s", time.Since(began).Seconds())
	return nil
}

type step struct {
	title string
	do    func(context.Context) error
}

func (s *show) steps() []step {
	steps := []step{
		{"A playground, and the platform that watches it", s.start},
		{"The EICAR test file cannot be opened", s.open},
		{"Nor can it be executed", s.exec},
		{"Who decided, and why", s.explain},
	}
	if slices.Contains(s.ids, "yara") {
		steps = append(steps, step{"A changed copy: the list does not know it, another engine does", s.changed})
	}
	return append(steps,
		step{"Every provider is put to the test", s.doctor},
		step{"A clean program runs", s.clean},
		step{"A provider is killed while opens continue", s.kill})
}

// start mounts, furnishes and starts, and waits until everybody votes.
func (s *show) start(ctx context.Context) error {
	s.command("cd " + s.dir)
	s.command("mount -t tmpfs playground playground    " + s.paint(grey, "# in a mount namespace of its own"))
	if err := playground.Mount(filepath.Join(s.dir, playgroundDir)); err != nil {
		return err
	}
	if err := playground.ProbeMark(filepath.Join(s.dir, playgroundDir)); err != nil {
		return err
	}
	if err := furnish(s.dir, s.ids); err != nil {
		return err
	}
	s.command("keepoutd --config keepout.yaml --state-dir state --run-dir run &")
	p, err := playground.Start(s.bin, s.dir, filepath.Join(s.bin, "providers"))
	if err != nil {
		return err
	}
	s.p = p
	began := time.Now()
	if _, err := p.Until(ctx, "every provider votes", s.healthy); err != nil {
		return err
	}
	took := time.Since(began)
	if err := s.sh(ctx, "keepout --run-dir run status").want(succeeded); err != nil {
		return err
	}
	s.good("healthy after %.1f s; voting side by side: %s", took.Seconds(), strings.Join(s.ids, ", "))
	lacking := false
	for _, e := range s.list {
		if e.lacks != "" {
			s.note("without %s: %s", e.id, e.lacks)
			lacking = true
		}
	}
	if lacking {
		s.note("to see every provider: %s", s.paint(bold, installEngines))
	}
	return nil
}

func (s *show) open(ctx context.Context) error {
	if err := s.sh(ctx, "cat "+eicarFile).want(refused); err != nil {
		return err
	}
	s.good("the kernel held cat until the votes were in, and then refused: EPERM")
	return nil
}

func (s *show) exec(ctx context.Context) error {
	if err := s.sh(ctx, "chmod +x "+eicarFile).want(succeeded); err != nil {
		return err
	}
	if err := s.sh(ctx, eicarFile).want(refused); err != nil {
		return err
	}
	s.good("not one instruction of it ran")
	return nil
}

func (s *show) explain(ctx context.Context) error {
	// Either engine may be the first to deny; who is later is not waited for.
	if err := s.explained(ctx, eicarFile, event.Exec, s.ids); err != nil {
		return err
	}
	s.good("the first denial decides; what the others had said by then is kept with it")
	return nil
}

func (s *show) changed(ctx context.Context) error {
	if err := s.sh(ctx, "cat "+otherFile).want(refused); err != nil {
		return err
	}
	if err := s.explained(ctx, otherFile, event.Open, []string{"yara"}); err != nil {
		return err
	}
	s.good("providers complete each other; each votes for itself")
	return nil
}

// doctor lets each provider deny its own self-test object, opened and executed on the playground.
func (s *show) doctor(ctx context.Context) error {
	err := s.sh(ctx, "keepout --run-dir run doctor | grep denied").want(func(r result) error {
		for _, id := range s.ids {
			if err := contains(r, id+" denied its canary: open and exec in "); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.good("protection is proved, not claimed: one that runs but recognises nothing would be red")
	return nil
}

// explained shows why an act on a file was denied, and checks that one of the deciders decided.
func (s *show) explained(ctx context.Context, file string, act event.Type, deciders []string) error {
	path := filepath.Join(s.dir, file)
	if err := s.p.Denied(ctx, path, act); err != nil {
		return err
	}
	r := s.sh(ctx, "keepout --run-dir run explain $PWD/"+file)
	return r.want(func(r result) error { return explained(r, s.ids, deciders) })
}

func (s *show) clean(ctx context.Context) error {
	err := s.sh(ctx, helloFile).want(func(r result) error {
		if err := succeeded(r); err != nil {
			return err
		}
		return contains(r, "hello, I am")
	})
	if err != nil {
		return err
	}
	s.good("asked about, allowed, run")
	return nil
}

// sh runs a command line as a person would type it, in the demonstration's folder, and shows both.
func (s *show) sh(ctx context.Context, line string) result {
	s.command(line)
	r := s.quietly(ctx, line)
	s.output(r.out)
	return r
}

// quietly is sh without showing anything.
func (s *show) quietly(ctx context.Context, line string) result {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "NO_COLOR=1", "PATH="+s.bin+":"+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	r := result{line: line, out: string(out), code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		r.err = fmt.Errorf("%s: %w", line, ctx.Err())
	} else if cmd.ProcessState == nil {
		r.err = fmt.Errorf("%s: %w", line, err)
	}
	return r
}
