package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/playground"
)

const (
	trafficEvery = time.Second
	readTime     = 8 * time.Second // to read the story before the live view covers it
	lineEvery    = time.Second     // one line of plain output at most
	statusEvery  = 5               // lines between two of the status
)

// live stays up, with a little traffic to look at, until ctx ends or the person has had enough.
func (s *show) live(ctx context.Context) error {
	s.title("The live view, until Ctrl-C")
	s.note("a file is opened every second, now and then the EICAR, for something to see")
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.traffic(ctx) })
	err := s.view(ctx)
	select {
	case <-s.p.Exited:
		return errors.New("keepoutd has ended by itself")
	default:
		return ignoreEnd(ctx, err)
	}
}

// view is the live view that the output allows.
func (s *show) view(ctx context.Context) error {
	if s.opt.Width == 0 {
		return s.plain(ctx)
	}
	s.command("keepout --run-dir run top")
	s.note("it opens in %.0f s, or with Enter", readTime.Seconds())
	if !enter(ctx, readTime) {
		return nil
	}
	err := s.opt.Live(ctx, filepath.Join(s.dir, playground.RunDir))
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.note("no live view on this terminal: %v", err)
	return s.plain(ctx)
}

// ignoreEnd drops the errors that come from our own end.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C is how one leaves
	}
	return err
}

// traffic lets programs open and execute things on the playground. What becomes of them is what the view
// shows.
func (s *show) traffic(ctx context.Context) {
	for n := 0; wait(ctx, trafficEvery) == nil; n++ {
		// The shell opens the file and stays for a moment, so that its name can still be looked up.
		line := "(cat; sleep 0.1) < " + noteFile(n)
		switch n % 5 {
		case 2:
			line = helloFile
		case 4:
			line = "cat " + eicarFile
		}
		_ = s.quietly(ctx, line)
	}
}

// enter waits for a line on the terminal, at most d, and reports whether ctx goes on. It reads nothing but
// that line, so that the view gets every key after it.
func enter(ctx context.Context, d time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(os.Stdin.Fd()), Events: unix.POLLIN}}
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		n, err := unix.Poll(fds, 100)
		if n > 0 && err == nil {
			var line [256]byte
			if n, err := os.Stdin.Read(line[:]); n == 0 || err != nil {
				return wait(ctx, time.Until(end)) == nil // nobody is there to press it
			}
			break
		}
	}
	return ctx.Err() == nil
}

// plain is the live view of a pipe or a log: at most a line a second.
func (s *show) plain(ctx context.Context) error {
	const line = "events --follow"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.command("keepout --run-dir run " + line)
	cmd := exec.CommandContext(ctx, s.opt.Exe, "--run-dir", playground.RunDir, "events", "--follow", "--last", "1")
	cmd.Dir, cmd.Stderr = s.dir, os.Stderr
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			select {
			case lines <- in.Text():
			default: // more than can be shown; the command itself has them all
			}
		}
	}()
	err = s.relay(ctx, lines)
	cancel()
	for range lines { // until its end, which Wait must come after
	}
	_ = cmd.Wait() // we ended it
	return err
}

// relay prints one line a tick, the newest there is, and now and then the status.
func (s *show) relay(ctx context.Context, lines <-chan string) error {
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-s.p.Exited:
			return errors.New("keepoutd has ended")
		case <-tick.C:
		}
		if n%statusEvery == 0 {
			st, err := s.p.Status(ctx)
			if err != nil {
				return err
			}
			s.note("%s", statusLine(st))
			continue
		}
		if line, more := newest(lines); more {
			s.output(line)
		}
	}
}

// newest takes all lines that are there and returns the last.
func newest(lines <-chan string) (line string, some bool) {
	for {
		select {
		case next, open := <-lines:
			if !open {
				return line, some
			}
			line, some = next, true
		default:
			return line, some
		}
	}
}

func statusLine(st *control.Status) string {
	word := "healthy"
	if health.Degraded(st.Problems) {
		word = "degraded: " + st.Problems[0].Title
	}
	return fmt.Sprintf("%s, mode %s, %d allowed, %d denied, %d providers, up %s", word, st.Mode,
		st.Verdicts.Allowed, st.Verdicts.Denied, len(st.Providers), time.Since(st.Since).Round(time.Second))
}
