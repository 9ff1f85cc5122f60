package sensor

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Prescanner has files looked at before anybody opens them.
type Prescanner interface {
	// Busy reports whether somebody waits for a verdict. It must not block.
	Busy() bool
	// Offer has providers vote on q, whose answer reaches nobody, and returns when that is over: at the latest when the
	// budget is. It takes over q.
	Offer(q *Question)
}

// Bounds of what is offered.
const (
	offerQueue    = 256 // files that were closed and not looked at yet; further ones are not offered
	offerAfter    = clockTick + 10*time.Millisecond
	offerPatience = 2 * time.Second // how long an offer waits for a moment in which nobody waits for a verdict
	offerRetry    = 5 * time.Millisecond
	offerRest     = 2 * time.Millisecond // between two of them, and at least as long as the last one took
)

// offer is a file that its writer has closed.
type offer struct {
	target fanotify.Handle
	who    event.Process
	at     time.Time
}

// offered queues a file, if there is room.
func (s *Sensor) offered(o offer) {
	select {
	case s.offers <- o:
	default:
		s.counts.unoffered.Add(1)
	}
}

// prescan offers files one at a time, until the sensor stops.
func (s *Sensor) prescan() {
	runtime.LockOSThread() // it opens files, which may take the disk's time
	for {
		select {
		case <-s.ended:
			return
		case o := <-s.offers:
			began := s.moment(&o)
			if began.IsZero() {
				s.counts.unoffered.Add(1)
				continue
			}
			if q := s.offerOf(&o); q != nil {
				s.keeper.Hold(true)
				s.scanner.Offer(q)
				s.keeper.Hold(false)
				s.counts.offered.Add(1)
			}
			s.pause(max(offerRest, time.Since(began)))
		}
	}
}

// moment waits until the file's version is settled and nobody waits for a verdict, and returns when that is; zero
// after offerPatience.
func (s *Sensor) moment(o *offer) time.Time {
	s.pause(time.Until(o.at.Add(offerAfter)))
	for time.Since(o.at) < offerPatience {
		if !s.scanner.Busy() {
			return time.Now()
		}
		s.pause(offerRetry)
	}
	return time.Time{}
}

// pause sleeps, but not beyond the end.
func (s *Sensor) pause(d time.Duration) {
	select {
	case <-s.ended:
	case <-time.After(d):
	}
}

// offerOf opens a file and makes a question about it, or nil where nothing is to be gained. Its own open raises an
// event that a reader answers at once, as for everything that this process opens.
func (s *Sensor) offerOf(o *offer) *Question {
	f := s.scope.Load().byFSID(o.target.FSID)
	if f == nil || f.remote || !f.timed {
		return nil
	}
	root, err := unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer closeFD(root)
	q := newQuestion()
	if fd, err := openHandle(root, o.target, unix.O_PATH); err == nil {
		wanted := s.offerable(q, f, fd)
		closeFD(fd)
		if wanted {
			// Not before it is known to be a regular file: opening anything else may do something.
			if q.File, err = openHandle(root, o.target, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME); err == nil {
				q.Event.Actor = o.who
				q.Event.ID = s.nextID.Add(1)
				return q
			}
		}
	}
	q.Free()
	return nil
}

// offerable fills in q from a descriptor that only names the file.
func (s *Sensor) offerable(q *Question, f *filesystem, fd int) bool {
	obj, err := identify(fd, q.names)
	if err != nil || obj.Mode&unix.S_IFMT != unix.S_IFREG || obj.Size == 0 {
		return false
	}
	ev := &q.Event
	ev.Time, ev.File, ev.Type = time.Now(), obj.File, event.Open
	ev.File.Path = pathHint(fd, q.names)
	if obj.Mode&0o111 != 0 && f.covers(event.Exec, ev.File.Path, obj.mount) && s.judge.Wants(event.Exec) {
		ev.Type = event.Exec // what is made to be executed is mostly executed next
	}
	if !s.judge.Wants(ev.Type) || !f.covers(ev.Type, ev.File.Path, obj.mount) || s.vital.has(&ev.File) ||
		!settled(&ev.File.Version, ev.Time) {
		return false
	}
	ev.File.PathUnsure = !f.knows(ev.File.Path, obj.mount)
	q.pairs, q.group, q.keeper, q.timed = &noPairs, nobody{}, s.keeper, f.timed
	q.WithOpen = s.withOpen(f, ev, obj.mount)
	return true
}

// nobody is who waits for the answer to an offer.
type nobody struct{}

// Answer implements Answerer.
func (nobody) Answer(int, bool) error { return nil }
