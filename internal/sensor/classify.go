package sensor

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// question looks at one permission event and answers it or asks the judge.
func (s *Sensor) question(g *fanotify.Group, raw fanotify.Event, now time.Time, who *actors) {
	if raw.File < 0 {
		// The kernel could not give us the file and has already refused the opener.
		s.counts.noFile.Add(1)
		return
	}
	q := newQuestion()
	q.pairs, q.group, q.File = &s.pairs, g, raw.File
	q.Event.Type, q.Event.Time = event.Open, now
	if raw.Mask&fanotify.OpenExecPerm != 0 {
		q.Event.Type = event.Exec
	}
	reason := s.classify(q, raw, who)
	if reason != "" {
		s.counts.unasked[reason].Add(1)
		release(g, raw)
		q.Free()
		return
	}
	q.Event.ID = s.nextID.Add(1)
	s.judge.Judge(q)
}

// classify fills in q and returns the reason for which it needs no question, or "". What takes more system calls is
// looked at later, and only while somebody can still be asked: most events that concern nobody end after one or two.
func (s *Sensor) classify(q *Question, raw fanotify.Event, who *actors) event.Reason {
	ev := &q.Event
	if raw.PID == s.self {
		return event.ReasonSelf
	}
	if !s.judge.Wants(ev.Type) {
		return event.ReasonNobody
	}
	obj, err := look(raw.File)
	if err != nil {
		return event.ReasonVanished
	}
	ev.File = obj.File
	if obj.Mode&unix.S_IFMT != unix.S_IFREG {
		return event.ReasonKind
	}
	named := false
	if ev.Type == event.Open && s.pairs.expects(raw.PID) {
		// Its first half was judged, so that all that follows here was found out then.
		if named, err = true, q.name(raw.File); err != nil {
			return event.ReasonVanished
		}
		ev.Actor = who.of(raw.PID)
		if s.pairs.take(ev) {
			return event.ReasonPair
		}
	}
	ev.File.PathUnsure = true // it is not known yet
	if !s.judge.Could(ev, ev.Type == event.Exec) {
		return event.ReasonNobody
	}
	if reason := s.place(q, raw.File, obj.mount); reason != "" {
		return reason
	}
	ev.Actor = who.of(raw.PID)
	if s.provider(ev.Actor.UID) {
		return event.ReasonProvider
	}
	if s.vital.has(&ev.File) {
		return event.ReasonVital
	}
	if !named && q.name(raw.File) != nil {
		return event.ReasonVanished
	}
	if ev.Type == event.Exec {
		ev.Actor.Comm = Program(raw.PID) // whoever starts the program is often gone when the record is written
	}
	return ""
}

// place finds out where the object lies, and whether that is watched and concerns anybody.
func (s *Sensor) place(q *Question, file int, mount uint64) event.Reason {
	ev := &q.Event
	ev.File.Path = pathHint(file, q.names)
	f := s.scope.Load().find(&ev.File)
	if f == nil || !f.covers(ev.Type, ev.File.Path, mount) {
		return event.ReasonScope
	}
	ev.File.PathUnsure = !f.knows(ev.File.Path, mount)
	q.WithOpen = s.withOpen(f, ev, mount)
	if !s.judge.Could(ev, q.WithOpen) {
		return event.ReasonNobody
	}
	if f.stable && settled(&ev.File.Version, ev.Time) {
		q.keeper, q.timed = s.keeper, f.timed
	}
	return ""
}

// withOpen reports whether the open half of ev is judged with it: where somebody may want to hear of it.
func (s *Sensor) withOpen(f *filesystem, ev *event.Event, mount uint64) bool {
	return ev.Type == event.Exec && s.judge.Wants(event.Open) && f.covers(event.Open, ev.File.Path, mount)
}

// name completes the object's version by its handle, where its file system has any.
func (q *Question) name(file int) error {
	handle, err := fileHandle(file, q.names)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	q.Event.File.Handle = handle
	return nil
}
