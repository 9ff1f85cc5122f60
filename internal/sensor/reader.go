package sensor

import (
	"errors"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

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

// yieldEvery is how long a reader's turn lasts at most. By itself a turn would never end, because a reader only makes
// system calls; after 10 ms of one, Go's monitor takes the processor slot away in every call that waits (retake in
// runtime/proc.go), looks again 20 µs later, and the reader has to find another slot when it comes back. At first opens
// that was nearly one hand-over an event, and two wake-ups of the monitor.
const yieldEvery = 5 * time.Millisecond

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
	taken, yielded := 0, time.Now()
	for {
		n, err := g.ReadBlocking(buf)
		now := time.Now()
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
		if now.Sub(yielded) > yieldEvery {
			runtime.Gosched()
			yielded = now
		}
	}
}

// release lets go of an event without a question: nobody may wait for it. It is all that is ever done with a
// descriptor on a remote file system, where even a look at the file may wait for its server.
func release(g *fanotify.Group, raw fanotify.Event) {
	if raw.File >= 0 {
		_ = g.Answer(raw.File, true) // it cannot have been answered before
		closeFD(raw.File)
	}
	closeFD(raw.PIDFD)
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
