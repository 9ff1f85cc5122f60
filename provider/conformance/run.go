package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// defaultPatience bounds each wait for the program; it is also the longest budget the platform ever gives.
const defaultPatience = 10 * time.Second

// Command says how to start the program under test, and what it should find.
type Command struct {
	Path string   // of the executable; relative to the test's working folder, or absolute
	Args []string // after the program's name
	Env  []string // the whole environment, as KEY=value; the platform gives none
	Dir  string   // working folder; empty means "/", as under the platform

	Content  string            // sent in Welcome: path of the provider's content, absolute; may be empty
	StateDir string            // sent in Welcome: a folder the program may write to, absolute; may be empty
	Settings map[string]string // sent in Welcome

	Deny  []byte // content of a file that it must deny; nil leaves the case out
	Allow []byte // content of a file that it must vote ALLOW on, not ABSTAIN; nil leaves the case out

	// Selftest is what the file holds that the manifest names under health.selftest; nil leaves the case out.
	Selftest []byte

	// Patience bounds each wait for the program, loading included; 0 means 10 s.
	Patience time.Duration
}

func (c Command) patience() time.Duration {
	if c.Patience > 0 {
		return c.Patience
	}
	return defaultPatience
}

// Case is one requirement of the protocol.
type Case struct {
	Name  string
	Title string // the requirement in one sentence

	// Check plays the platform to a program that has just been started; nil means that the program met the
	// requirement, ErrNotApplicable that its subscription or the Command leaves nothing to check.
	Check func(ctx context.Context, p *Peer) error
}

// ErrNotApplicable reports that a case says nothing about this program.
var ErrNotApplicable = errors.New("not applicable")

// Run checks every case, each as a subtest with a process of its own, several at a time, and returns when all
// are done. A failed case shows what the program wrote to its standard error.
func Run(t *testing.T, cmd Command) {
	t.Helper()
	t.Run("protocol", func(t *testing.T) { // the group waits for its parallel cases
		for _, c := range Cases() {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel() // cases mostly wait for heartbeats
				err := Check(t.Context(), cmd, c)
				switch {
				case errors.Is(err, ErrNotApplicable):
					t.Logf("%s: %v", c.Title, err)
				case err != nil:
					t.Errorf("%s: %v", c.Title, err)
				}
			})
		}
	})
}

// Check starts the program, runs one case and ends the program. Errors carry the end of its standard error.
func Check(ctx context.Context, cmd Command, c Case) error {
	p, err := start(ctx, cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	err = c.Check(ctx, p)
	p.stop()
	if err != nil && !errors.Is(err, ErrNotApplicable) {
		if wrote := p.stderr.String(); wrote != "" {
			return fmt.Errorf("%w\nthe program wrote:\n%s", err, wrote)
		}
	}
	return err
}
