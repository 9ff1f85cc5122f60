package root

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// TestFactDescriptorRaisesNoEvent: the descriptor that comes with an event is readable, also after a
// duplicate outlived the event, without another event; opening the file again through /proc raises one.
func TestFactDescriptorRaisesNoEvent(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	kept := make(chan int, 2)
	l := listen(t, dir, fanotify.OpenPerm, func(_ *listener, ev fanotify.Event) bool {
		fd, err := unix.FcntlInt(uintptr(ev.File), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		kept <- fd
		return true
	})
	allowed(t, open(path))
	fd := <-kept
	defer unix.Close(fd)
	b := make([]byte, 16)
	n, err := unix.Pread(fd, b, 0)
	if err != nil || string(b[:n]) != "content" || l.of(inode(t, path))[0].text != "content" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if l.count() != 1 {
		t.Errorf("%d events after reading the descriptor, want 1", l.count())
	}
	allowed(t, open(fmt.Sprintf("/proc/self/fd/%d", fd)))
	if l.count() != 2 {
		t.Errorf("%d events after opening the descriptor again, want 2", l.count())
	}
	_ = unix.Close(<-kept)
}

// TestFactWaitingOpenerCanBeKilled: SIGKILL ends a process that waits for an answer. The kernel still takes
// the answer, once: who answers cannot tell that nobody waits any more.
func TestFactWaitingOpenerCanBeKilled(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	answers := make(chan error, 2)
	wait, holding, release := hold()
	defer release()
	listen(t, dir, fanotify.OpenPerm, func(l *listener, ev fanotify.Event) bool {
		wait(l, ev)
		answers <- l.g.Answer(ev.File, true)
		answers <- l.g.Answer(ev.File, true)
		return true
	})
	cmd := actor(t, "open", path)
	must(t, cmd.Start())
	<-holding
	must(t, cmd.Process.Kill())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := result(t, done); err == nil {
		t.Error("the opener ended well, want killed")
	}
	release()
	allowed(t, <-answers)
	if err := <-answers; !errors.Is(err, fanotify.ErrAnswered) {
		t.Errorf("the second answer: %v, want %v", err, fanotify.ErrAnswered)
	}
}

// TestFactLastCloseAllows: when the last descriptor of the group is closed, the kernel allows what waits.
func TestFactLastCloseAllows(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	wait, holding, release := hold()
	defer release()
	l := listen(t, dir, fanotify.OpenPerm, func(l *listener, ev fanotify.Event) bool { return !wait(l, ev) })
	done := opening(path)
	<-holding
	held(t, done)
	l.close()
	allowed(t, result(t, done))
	allowed(t, open(path))
}

// TestFactFullTableRefuses: when the reader has no room for another descriptor, read(2) says EMFILE and the
// opener gets EPERM, whatever anybody's policy is. TestManyOpens proves that the daemon keeps out of this.
func TestFactFullTableRefuses(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	cmd := actor(t, "small-table", dir)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	testenv.Watchdog(t, patience, func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the reader said %q, %v", line, err)
	}
	denied(t, result(t, opening(path)))
	if err := cmd.Wait(); err != nil {
		t.Errorf("the reader: %v", err)
	}
	_ = in.Close()
}

// TestFactAnswerWakesAll: each answer wakes everybody who waits in the group, so that answering n waiting
// openers costs the kernel n² wake-ups: 250 took some 40 ms on two processors, 1000 more than half a
// second. That bounds what a host with thousands of simultaneous questions can do, whatever the platform
// does.
func TestFactAnswerWakesAll(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	waits, passes := files(t, dir, "waits", 1)[0], files(t, dir, "passes", 1)[0]
	wait, holding, release := hold()
	defer release()
	listen(t, dir, fanotify.OpenPerm, func(l *listener, ev fanotify.Event) bool {
		var st unix.Stat_t
		return unix.Fstat(ev.File, &st) == nil && (st.Ino == inode(t, passes) || wait(l, ev))
	})
	cmd := actor(t, "open", waits)
	must(t, cmd.Start())
	<-holding
	const answers = 100
	before := sleeps(t, cmd.Process.Pid)
	for range answers {
		allowed(t, open(passes))
		time.Sleep(time.Millisecond) // lets the one who waits go back to sleep, so that it is counted
	}
	if n := sleeps(t, cmd.Process.Pid) - before; n < answers/2 {
		t.Errorf("who waits slept %d times while %d others were answered: the kernel got better", n, answers)
	}
	release()
	must(t, cmd.Wait())
}

// sleeps is how often the threads of a process have gone to sleep.
func sleeps(t testing.TB, pid int) (n int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	must(t, err)
	for _, task := range tasks {
		n += number(t, task, "voluntary_ctxt_switches")
	}
	return n
}

// number reads one number from a file of "key: value" lines.
func number(t testing.TB, file, key string) (n int) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, err = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(value, " kB\n")))
			must(t, err)
			return n
		}
	}
	t.Fatalf("%s: no %s", file, key)
	return 0
}
