package sensor

import (
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// act is what a reader does with one event.
type act func(g *fanotify.Group, raw fanotify.Event, now time.Time)

// Every event wakes every reader. One that comes too late so many times running is on the wrong processor for what goes
// on, and stands back for a while, which spares the others a wake-up an event. It cannot come too late unless another
// reader is at work, so there is always one.
const (
	standBack    = 8
	standBackFor = 10 * time.Millisecond
)

// read is one reader thread; cpu is the processor it keeps to, or negative for any.
func (s *Sensor) read(g *fanotify.Group, cpu int, do act) {
	runtime.LockOSThread() // the thread ends with the goroutine, so its affinity needs no undoing
	if cpu >= 0 {
		// The reader on the opener's own processor is switched to without waking another one, which is five
		// times cheaper; where the set of processors is restricted this fails and any will do.
		var set unix.CPUSet
		set.Set(cpu)
		_ = unix.SchedSetaffinity(0, &set)
	}
	buf := make([]byte, readBuffer)
	taken := 0
	for {
		n, err := g.ReadBlocking(buf)
		if errors.Is(err, fanotify.ErrTaken) {
			if taken++; taken >= standBack {
				time.Sleep(standBackFor)
				taken = standBack - 1 // one look, and back if the others still suffice
			}
			continue
		}
		taken = 0
		if errors.Is(err, fanotify.ErrEvent) {
			s.counts.noFile.Add(1)
			continue
		}
		if err != nil {
			s.counts.readEnded(err)
			return
		}
		now := time.Now()
		for rest := buf[:n]; len(rest) > 0; {
			var raw fanotify.Event
			raw, rest, err = fanotify.Parse(rest)
			if raw.File >= 0 {
				g.Take()
			}
			if err != nil {
				s.counts.malformed.Add(1)
				release(g, raw)
				continue
			}
			do(g, raw, now)
		}
	}
}

// release lets go of an event without a question: nobody may wait for it. It is all that is ever done with a
// descriptor on a remote file system, where even a look at the file may wait for its server.
func release(g *fanotify.Group, raw fanotify.Event) {
	closeFD(raw.PIDFD)
	if raw.File >= 0 {
		_ = g.Answer(raw.File, true) // it cannot have been answered before
		closeFD(raw.File)
	}
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// question looks at one permission event and answers it or asks the judge.
func (s *Sensor) question(g *fanotify.Group, raw fanotify.Event, now time.Time) {
	if raw.File < 0 {
		// The kernel could not give us the file and has already refused the opener.
		s.counts.noFile.Add(1)
		closeFD(raw.PIDFD)
		return
	}
	q := newQuestion()
	q.pairs, q.group, q.File = &s.pairs, g, raw.File
	q.Event.Type, q.Event.Time = event.Open, now
	if raw.Mask&fanotify.OpenExecPerm != 0 {
		q.Event.Type = event.Exec
	}
	reason := s.classify(q, raw)
	if reason != "" {
		s.counts.unasked[reason].Add(1)
		release(g, raw)
		q.Free()
		return
	}
	closeFD(raw.PIDFD)
	q.Event.ID = s.nextID.Add(1)
	s.judge.Judge(q)
}

// classify fills in q and returns the reason for which it needs no question, or "". The cheap and common cases
// are first.
func (s *Sensor) classify(q *Question, raw fanotify.Event) event.Reason {
	ev := &q.Event
	if raw.PID == s.self {
		return event.ReasonSelf
	}
	if !s.judge.Wants(ev.Type) {
		return event.ReasonNobody
	}
	ev.Actor = actor(raw.PID, raw.PIDFD)
	if s.provider(ev.Actor.UID) {
		return event.ReasonProvider
	}
	obj, err := identify(raw.File, q.names)
	if err != nil {
		return event.ReasonVanished
	}
	ev.File = obj.File
	if obj.Mode&unix.S_IFMT != unix.S_IFREG {
		return event.ReasonKind
	}
	ev.File.Path = pathHint(raw.File, q.names)
	f := s.scope.Load().find(&ev.File)
	if f == nil || !f.covers(ev.Type, ev.File.Path, obj.mount) {
		return event.ReasonScope
	}
	ev.File.PathUnsure = !f.knows(ev.File.Path, obj.mount)
	if s.vital.has(&ev.File) {
		return event.ReasonVital
	}
	if ev.Type == event.Open && s.pairs.take(ev) {
		return event.ReasonPair
	}
	if f.stable && settled(&ev.File.Version, ev.Time) {
		q.keeper, q.timed = s.keeper, f.timed
	}
	if ev.Type == event.Exec {
		q.WithOpen = f.covers(event.Open, ev.File.Path, obj.mount)
		ev.Actor.Comm = Program(raw.PID) // whoever starts the program is often gone when the record is written
	}
	return ""
}
