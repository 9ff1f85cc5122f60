//go:build linux

package bootguard

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

// maxWatches bounds the paths in which canaries are touched.
const maxWatches = 4

// canary is what became of one round of them.
type canary struct{ open, exec boot.Canary }

func (c *canary) fine() bool {
	return (!c.open.Tried || c.open.Seen) && (!c.exec.Tried || c.exec.Seen)
}

// touch opens and executes a file of its own in the watched paths, and compares what the core counted before and
// after. A file that is no program is enough: the kernel asks before it looks at what it is, and then says ENOEXEC.
func touch(ctx context.Context, runDir string, before *status, limit time.Duration) *canary {
	c := &canary{}
	// Where nobody subscribes the kernel asks about nothing. A checkup makes it ask all the same.
	if err := prove(ctx, runDir); err != nil {
		c.open = boot.Canary{Tried: true, Wrong: err.Error()}
		c.exec = c.open
		return c
	}
	for i, w := range before.Watching {
		if i == maxWatches || w.Remote {
			continue
		}
		file, err := lay(w.Path)
		if err != nil {
			continue // nothing can be proved where nothing can be written
		}
		c.open.Tried, c.exec.Tried = true, true
		c.open = longer(c.open, timed(limit, func() error { return look(file) }))
		c.exec = longer(c.exec, timed(limit, func() error { return run(ctx, file) }))
		_ = os.Remove(file) // it says what it is, and lies in no one's way
	}
	if !c.open.Tried {
		return c
	}
	after, err := ask(ctx, runDir)
	switch {
	case err != nil:
		c.open.Wrong = err.Error()
	case after.events() < before.events()+2:
		c.open.Wrong = "it was answered, and the core did not count it"
	default:
		c.open.Seen, c.exec.Seen = true, true
	}
	c.exec.Wrong = c.open.Wrong
	return c
}

// longer keeps the longest time.
func longer(c boot.Canary, took time.Duration) boot.Canary {
	c.Took = max(c.Took, took)
	return c
}

// timed is how long an act took; one that does not come back takes longer than the limit.
func timed(limit time.Duration, act func() error) time.Duration {
	began := time.Now()
	done := make(chan struct{})
	go func() {
		_ = act() // only whether it was answered counts, not how
		close(done)
	}()
	select {
	case <-done:
		return time.Since(began)
	case <-time.After(limit + time.Second):
		return limit + time.Second
	}
}

// lay writes a file that may be executed, and closes it: an open file for writing could not be.
func lay(dir string) (string, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", errors.Join(err, fs.ErrInvalid)
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	file := filepath.Join(dir, ".keepout-boot-canary-"+hex.EncodeToString(id[:]))
	text := []byte("This file shows that opens and execs are answered. It may be removed.\n")
	if err := os.WriteFile(file, text, 0o700); err != nil {
		return "", err
	}
	return file, nil
}

func look(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// run executes a file that is no program.
func run(ctx context.Context, file string) error {
	err := exec.CommandContext(ctx, file).Run()
	if errors.Is(err, syscall.ENOEXEC) || err != nil && strings.Contains(err.Error(), "exec format") {
		return nil
	}
	return err
}
