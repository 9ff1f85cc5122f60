package root

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// listener is a permission group on one file system with one reader.
type listener struct {
	t       testing.TB
	g       *fanotify.Group
	decide  decision
	end     chan struct{} // closed by close
	read    chan struct{} // closed when the reader has ended
	answers sync.WaitGroup
	once    sync.Once

	mu   sync.Mutex
	seen []sight
}

// decision answers one event, on a goroutine of its own. If it waits, it must also wait for l.end.
type decision func(l *listener, ev fanotify.Event) bool

func refuse(*listener, fanotify.Event) bool { return false }

// sight is what is kept of an event.
type sight struct {
	mask uint64
	pid  int32
	ino  uint64
	text string // first bytes of the content
}

// both is what is marked for programs.
const both = fanotify.OpenPerm | fanotify.OpenExecPerm

// listen marks the file system of dir; a nil decision allows all.
func listen(t testing.TB, dir string, mask uint64, decide decision) *listener {
	t.Helper()
	if !testenv.InPrivateMounts() {
		t.Fatal("mark: not in a private mount namespace")
	}
	g, err := fanotify.NewPermission()
	must(t, err)
	l := &listener{t: t, g: g, decide: decide, end: make(chan struct{}), read: make(chan struct{})}
	testenv.Watchdog(t, 30*time.Second, l.close)
	go l.loop()
	t.Cleanup(l.close)
	must(t, g.MarkFilesystem(dir, mask))
	return l
}

// close gives the group up; the kernel allows what waits.
func (l *listener) close() {
	l.once.Do(func() {
		close(l.end)
		l.g.Stop()
		<-l.read
		l.answers.Wait()
		if err := l.g.Close(); err != nil {
			l.t.Errorf("close group: %v", err)
		}
	})
}

func (l *listener) loop() {
	defer close(l.read)
	buf := make([]byte, 4096)
	for {
		n, err := l.g.ReadBlocking(buf)
		if errors.Is(err, fanotify.ErrTaken) {
			continue // the opener was killed meanwhile
		}
		if err != nil {
			return
		}
		for rest := buf[:n]; len(rest) > 0; {
			var ev fanotify.Event
			if ev, rest, err = fanotify.Parse(rest); err != nil {
				l.t.Error(err)
				return
			}
			l.note(ev)
			l.answers.Go(func() { l.answer(ev) })
		}
	}
}

func (l *listener) note(ev fanotify.Event) {
	s := sight{mask: ev.Mask, pid: ev.PID}
	var st unix.Stat_t
	if err := unix.Fstat(ev.File, &st); err == nil {
		s.ino = st.Ino
	}
	head := make([]byte, 64)
	if n, err := unix.Pread(ev.File, head, 0); err == nil {
		s.text = string(head[:n])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, s)
}

func (l *listener) answer(ev fanotify.Event) {
	allow := l.decide == nil || l.decide(l, ev)
	select {
	case <-l.end: // the kernel answers
	default:
		_ = l.g.Answer(ev.File, allow) // an error means that decide has answered already
	}
	_ = unix.Close(ev.File)
	if ev.PIDFD >= 0 {
		_ = unix.Close(ev.PIDFD)
	}
}

// hold makes a decision that waits for release and then allows. holding gets a value for each event that
// waits.
func hold() (decide decision, holding chan struct{}, release func()) {
	holding, released := make(chan struct{}, 16), make(chan struct{})
	decide = func(l *listener, _ fanotify.Event) bool {
		holding <- struct{}{}
		select {
		case <-released:
		case <-l.end:
		}
		return true
	}
	return decide, holding, sync.OnceFunc(func() { close(released) })
}

// of returns what was seen of one file, oldest first.
func (l *listener) of(ino uint64) []sight {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.seen), func(s sight) bool { return s.ino != ino })
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Ino
}

// masks renders the sights of one process, for comparison.
func masks(seen []sight, pid int) (words []string) {
	for _, s := range seen {
		word := fmt.Sprintf("%#x", s.mask)
		switch s.mask {
		case fanotify.OpenPerm:
			word = "open"
		case fanotify.OpenExecPerm:
			word = "exec"
		}
		if s.pid != int32(pid) {
			word += fmt.Sprintf(" by %d", s.pid)
		}
		words = append(words, word)
	}
	return words
}
