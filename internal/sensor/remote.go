package sensor

import (
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// patience is how long anything may take that could ask the server of a FUSE or network file system.
const patience = 3 * time.Second

// errNoAnswer reports a file system whose server does not answer.
var errNoAnswer = errors.New("the file system does not answer")

// within runs do on a goroutine of its own and waits for it with patience. What takes longer is left behind: it is
// stuck in the kernel, and ends when the server answers or the process does.
func within[T any](do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(patience):
		var none T
		return none, fmt.Errorf("%w within %v", errNoAnswer, patience)
	}
}

// remote is one FUSE or network file system: it has a group and a reader of its own, because the kernel opens the
// file inside read(2), which may wait for a server that never answers.
type remote struct {
	group *fanotify.Group
	ended chan struct{} // closed when its reader has ended
}

// watchRemote marks f, unless it is marked already. Preconditions: mu is held.
func (s *Sensor) watchRemote(f *filesystem) error {
	if s.remotes[f.dev] != nil {
		return nil
	}
	g, err := fanotify.NewPermission()
	if err != nil {
		return err
	}
	r := &remote{group: g, ended: make(chan struct{})}
	s.remotes[f.dev] = r
	go func() {
		defer close(r.ended)
		s.read(g, -1, s.passRemote)
	}()
	_, err = within(func() (struct{}, error) {
		return struct{}{}, g.MarkFilesystem(f.path, fanotify.OpenPerm|fanotify.OpenExecPerm)
	})
	if err != nil {
		s.leaveRemote(f.dev)
	}
	return err
}

// leaveRemote gives a file system's group up; closing it takes its mark away without asking the server for a path.
// It does not wait for a reader that is stuck. Preconditions: mu is held.
func (s *Sensor) leaveRemote(dev uint64) {
	r := s.remotes[dev]
	if r == nil {
		return
	}
	delete(s.remotes, dev)
	r.group.Stop()
	go func() {
		<-r.ended
		_ = r.group.Close() // nothing depends on it any more
	}()
}

// passRemote answers an event on a remote file system, from that file system's own thread.
func (s *Sensor) passRemote(g *fanotify.Group, raw fanotify.Event, _ time.Time) {
	s.counts.unasked[event.ReasonRemote].Add(1)
	release(g, raw)
}
