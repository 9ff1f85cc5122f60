package sensor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// picky wants what lies below a folder and has a size, of some types.
type picky struct {
	types   map[event.Type]bool
	below   string
	minSize int64
}

func (p *picky) Wants(t event.Type) bool { return p.types[t] }
func (p *picky) Judge(*Question)         {}
func (p *picky) Observe(*event.Event)    {}
func (p *picky) Could(ev *event.Event, withOpen bool) bool {
	return (p.types[ev.Type] || withOpen && p.types[event.Open]) && ev.File.Size >= p.minSize &&
		(ev.File.PathUnsure || under(ev.File.Path, p.below))
}

// atOnce is the question that there is about an event if everything is found out first, or nil.
func (s *Sensor) atOnce(raw fanotify.Event, t event.Type, now time.Time) *event.Event {
	var room names
	obj, err := identify(raw.File, &room)
	if err != nil || obj.Mode&unix.S_IFMT != unix.S_IFREG || raw.PID == s.self {
		return nil
	}
	obj.Path = pathHint(raw.File, &room)
	ev := &event.Event{Type: t, Time: now, Actor: actorBehind(raw.PID, raw.PIDFD), File: obj.File}
	f := s.scope.Load().find(&ev.File)
	if s.provider(ev.Actor.UID) || f == nil || !f.covers(t, ev.File.Path, obj.mount) || s.vital.has(&ev.File) ||
		t == event.Open && s.pairs.take(ev) {
		return nil
	}
	ev.File.PathUnsure = !f.knows(ev.File.Path, obj.mount)
	if !s.judge.Wants(t) || !s.judge.Could(ev, t == event.Exec && f.covers(event.Open, ev.File.Path, obj.mount)) {
		return nil
	}
	if t == event.Exec {
		ev.Actor.Comm = Program(raw.PID)
	}
	return ev
}

// TestClassify: looking at an object step by step, and stopping as soon as nobody can be asked, comes to the same
// questions as looking at everything at once.
func TestClassify(t *testing.T) {
	t.Parallel()
	dir := realPath(t, t.TempDir())
	files := objects(t, dir)
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(pidfd) })
	scopes := []*scope{{}}
	for _, w := range [][]Watch{
		{{Path: dir, Events: []event.Type{event.Open, event.Exec}}},
		{{Path: filepath.Join(dir, "in"), Events: []event.Type{event.Open}}},
		{{Path: filepath.Join(dir, "in"), Events: []event.Type{event.Exec, event.Create}}},
	} {
		sc, err := newScope(w)
		if err != nil {
			t.Fatal(err)
		}
		scopes = append(scopes, sc)
	}
	rapid.Check(t, func(t *rapid.T) {
		own := rapid.Bool().Draw(t, "a provider's")
		s := &Sensor{provider: func(uid uint32) bool { return own && uid == uint32(os.Getuid()) }, judge: &picky{
			types:   events(rapid.SliceOf(rapid.SampledFrom(event.Types())).Draw(t, "types")...),
			below:   rapid.SampledFrom([]string{"/", dir, filepath.Join(dir, "in")}).Draw(t, "below"),
			minSize: rapid.Int64Range(0, 3).Draw(t, "size"),
		}}
		s.scope.Store(rapid.SampledFrom(scopes).Draw(t, "scope"))
		s.vital.set.Store(&map[vitalKey]struct{}{})
		raw := fanotify.Event{PID: int32(os.Getpid()), PIDFD: pidfd, File: rapid.SampledFrom(files).Draw(t, "file")}
		typ, now := event.Open, time.Now()
		if rapid.Bool().Draw(t, "exec") {
			typ, raw.Mask = event.Exec, fanotify.OpenExecPerm
		}
		if rapid.Bool().Draw(t, "our own") {
			s.self = raw.PID
		}
		if half := s.half(raw); half != nil && rapid.Bool().Draw(t, "second half") {
			s.pairs.expect(half, now)
			if q := s.classified(raw, typ, now); typ == event.Open && q != nil {
				t.Fatalf("the second half is asked about: %+v", q)
			}
			return
		}
		if rapid.Bool().Draw(t, "another's half") {
			s.pairs.expect(&event.Event{Actor: event.Process{PID: raw.PID}}, now)
		}
		want, got := s.atOnce(raw, typ, now), s.classified(raw, typ, now)
		if (want == nil) != (got == nil) || want != nil && *want != *got {
			t.Fatalf("%v by %+v:\nstep by step %+v\nat once      %+v", typ, s.judge, got, want)
		}
	})
}

// TestWithOpen: the open half of an exec is judged with it where opens are watched and somebody wants to hear of them,
// and nowhere else: nothing is kept for it then.
func TestWithOpen(t *testing.T) {
	t.Parallel()
	dir := realPath(t, t.TempDir())
	file := objects(t, dir)[0]
	for name, c := range map[string]struct {
		watched, wanted []event.Type
		want            bool
	}{
		"both":                  {[]event.Type{event.Open, event.Exec}, []event.Type{event.Open, event.Exec}, true},
		"opens are wanted only": {[]event.Type{event.Open, event.Exec}, []event.Type{event.Open}, true},
		"nobody wants opens":    {[]event.Type{event.Open, event.Exec}, []event.Type{event.Exec}, false},
		"opens are not watched": {[]event.Type{event.Exec}, []event.Type{event.Open, event.Exec}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc, err := newScope([]Watch{{Path: dir, Events: c.watched}})
			if err != nil {
				t.Fatal(err)
			}
			s := &Sensor{judge: &picky{types: events(c.wanted...), below: "/"}}
			s.scope.Store(sc)
			q := newQuestion()
			q.Event.Type, q.Event.Time = event.Exec, time.Now()
			obj, err := look(file)
			if err != nil {
				t.Fatal(err)
			}
			q.Event.File = obj.File
			if reason := s.place(q, file, obj.mount); reason != "" || q.WithOpen != c.want {
				t.Errorf("with its open half: %v, want %v (%s)", q.WithOpen, c.want, reason)
			}
		})
	}
}

// half is the exec that was judged before an open that is its second half.
func (s *Sensor) half(raw fanotify.Event) *event.Event {
	obj, err := identify(raw.File, new(names))
	if err != nil {
		return nil
	}
	return &event.Event{Type: event.Exec, Actor: actorBehind(raw.PID, raw.PIDFD), File: obj.File}
}

// classified is the question that classify leaves, or nil.
func (s *Sensor) classified(raw fanotify.Event, t event.Type, now time.Time) *event.Event {
	q := newQuestion()
	q.Event.Type, q.Event.Time = t, now
	var who actors
	defer who.close()
	if s.classify(q, raw, &who) != "" {
		return nil
	}
	ev := q.Event
	return &ev
}

// objects opens files of several kinds.
func objects(t *testing.T, dir string) (files []int) {
	t.Helper()
	for _, name := range []string{"in", "out"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"empty": "", "short": "12", "long": "123456"} {
			if err := os.WriteFile(filepath.Join(dir, name, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(filepath.Join(dir, name, file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, fd)
		}
	}
	pipe := filepath.Join(dir, "in", "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(pipe, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, fd, -1)
	t.Cleanup(func() {
		for _, fd := range files {
			closeFD(fd)
		}
	})
	return files
}
