package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
)

// Bounds of laying out and touching.
const (
	together = 8                // canaries that are touched at one time
	actTime  = 45 * time.Second // for all of them; a provider that hangs holds each up to its budget
	oldAfter = time.Hour        // a canary of this age was left behind
	maxLook  = 512              // entries of a folder that are looked at
)

// aviary lays out canaries and takes them away again.
type aviary struct {
	name string // how the names of this run's canaries begin

	mu    sync.Mutex
	roots map[string]*os.Root
	laid  []placed
}

type placed struct {
	root *os.Root
	name string
}

func newAviary() *aviary {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return &aviary{
		name: event.SelftestName + hex.EncodeToString(id[:]), roots: map[string]*os.Root{},
	}
}

// layAll puts the canaries in place, several at a time: making a file is an open, too, and a provider that hangs holds
// each. What cannot be done is said in the trials.
func (a *aviary) layAll(ctx context.Context, trials []trial) {
	turns := make(chan struct{}, together)
	var all sync.WaitGroup
	for i := range trials {
		turns <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			a.lay(&trials[i], i)
			<-turns
		})
	}
	all.Wait()
}

func (a *aviary) lay(t *trial, number int) {
	if t.skipped != "" {
		return
	}
	dir, err := filepath.EvalSymlinks(t.watch) // the core sees a path without links
	if err != nil {
		t.skipped = err.Error()
		return
	}
	root, err := a.open(dir)
	if err == nil {
		name := fmt.Sprintf("%s-%d", a.name, number)
		t.path = filepath.Join(dir, name)
		if err = a.write(root, name, t); err == nil {
			return
		}
	}
	t.skipped = "no canary can be laid out: " + reason(err)
}

// instead returns a trial with a file that is there already for each watch on which nothing could be laid out: it
// proves that the path is watched, and nothing about providers.
func instead(c *control.Checkup, trials []trial) (more []trial) {
	for _, w := range c.Watch {
		laid := slices.ContainsFunc(trials, func(t trial) bool { return t.watch == w.Path && t.skipped == "" })
		if laid || !slices.Contains(w.Events, event.Open) {
			continue
		}
		dir, err := filepath.EvalSymlinks(w.Path)
		if err != nil {
			continue
		}
		if file := readable(dir); file != "" {
			more = append(more, trial{watch: w.Path, act: event.Open, path: file})
		}
	}
	return more
}

// filter is how the names of all files begin that are touched; empty when some are not canaries.
func (a *aviary) filter(trials []trial) string {
	for i := range trials {
		if t := &trials[i]; t.skipped == "" && !strings.HasPrefix(filepath.Base(t.path), a.name) {
			return ""
		}
	}
	return a.name
}

func (a *aviary) open(dir string) (*os.Root, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.roots[dir]; r != nil {
		return r, nil
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	a.roots[dir] = r
	sweep(r, dir)
	return r, nil
}

// write makes the file under another name first, so that the only acts on its own name are those of the test.
func (a *aviary) write(root *os.Root, name string, t *trial) error {
	mode := fs.FileMode(0o600)
	if t.act == event.Exec {
		mode = 0o700
	}
	fresh := name + ".new"
	a.mu.Lock()
	a.laid = append(a.laid, placed{root, fresh}, placed{root, name})
	a.mu.Unlock()
	f, err := root.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("make canary: %w", err)
	}
	_, err = f.Write(t.content)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write canary: %w", err)
	}
	if err := root.Rename(fresh, name); err != nil {
		return fmt.Errorf("name canary: %w", err)
	}
	return nil
}

// remove takes all canaries away. It may be called more than once.
func (a *aviary) remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, p := range a.laid {
		if _, err := p.root.Lstat(p.name); errors.Is(err, fs.ErrNotExist) {
			continue // on a read-only file system, removing what is not there fails in another way
		}
		if err := p.root.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove canary: %w", err))
		}
	}
	for _, r := range a.roots {
		errs = append(errs, r.Close())
	}
	a.laid, a.roots = nil, map[string]*os.Root{}
	return errors.Join(errs...)
}

// sweep removes canaries that a run left behind which was killed. It is best effort.
func sweep(root *os.Root, dir string) {
	for _, name := range entries(dir) {
		if !strings.HasPrefix(name, event.SelftestName) {
			continue
		}
		info, err := root.Lstat(name)
		if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > oldAfter {
			_ = root.Remove(name)
		}
	}
}

// entries returns some names of a folder: enough to find what is there in a small one.
func entries(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	names, _ := f.Readdirnames(maxLook)
	return names
}

// readable finds a regular file that can be opened without consequences, or "".
func readable(path string) string {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		return path
	}
	for _, name := range entries(path) {
		file := filepath.Join(path, name)
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o444 != 0 {
			return file
		}
	}
	return ""
}

// touch does with every canary what it is for, several at a time, and returns when all have come back or time is up.
func touch(ctx context.Context, trials []trial) {
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	turns := make(chan struct{}, together)
	done := make(chan outcome, len(trials)) // room for all: who comes back late finds nobody
	pending := 0
	for i := range trials {
		if trials[i].skipped != "" {
			continue
		}
		pending++
		act, path := trials[i].act, trials[i].path
		go func() {
			select {
			case turns <- struct{}{}:
				done <- perform(ctx, i, act, path)
				<-turns
			case <-ctx.Done():
			}
		}()
	}
	back := map[int]bool{}
	for len(back) < pending && ctx.Err() == nil {
		select {
		case o := <-done:
			back[o.trial] = true
			trials[o.trial].take(o)
		case <-ctx.Done():
		}
	}
	for i := range trials {
		if trials[i].skipped == "" && !back[i] {
			trials[i].skipped = "the act did not come back in time"
		}
	}
}

// outcome is how an act ended.
type outcome struct {
	trial int
	err   error
}

// perform opens or executes a file. The kernel holds the caller meanwhile.
func perform(ctx context.Context, number int, act event.Type, path string) outcome {
	if act == event.Exec {
		cmd := exec.CommandContext(ctx, path)
		cmd.Dir, cmd.Env = "/", []string{}
		return outcome{number, cmd.Run()}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return outcome{number, err}
	}
	return outcome{number, f.Close()}
}

// take notes how the act ended.
func (t *trial) take(o outcome) {
	switch {
	case errors.Is(o.err, syscall.EPERM):
		t.refused = true
	case errors.Is(o.err, syscall.ENOEXEC) && t.act == event.Exec: // allowed; it is no program
	case errors.Is(o.err, syscall.EACCES) && t.act == event.Exec:
		t.skipped = "nothing can be executed there (noexec)"
	case o.err != nil:
		t.skipped = reason(o.err)
	}
}

// reason is an error without the path, which is said already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Op + ": " + p.Err.Error()
	}
	return err.Error()
}
