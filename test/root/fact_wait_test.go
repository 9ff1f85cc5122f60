package root

import (
	"bufio"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// TestFactDescriptorRaisesNoEvent: the descriptor that comes with an event is readable, also after a duplicate
// outlived the event, without another event; opening the file again through /proc raises one.
func TestFactDescriptorRaisesNoEvent(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	kept := make(chan int, 2)
	l := listen(t, dir, fanotify.OpenPerm, func(ev fanotify.Event) bool {
		fd, err := unix.FcntlInt(uintptr(ev.File), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		kept <- fd
		return true
	})
	allowed(t, open(path))
	fd := <-kept
	defer unix.Close(fd) //nolint:errcheck // of a test
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

// TestFactWaitingOpenerCanBeKilled: SIGKILL ends a process that waits for an answer. The kernel still takes the
// answer, once: who answers cannot tell that nobody waits any more.
func TestFactWaitingOpenerCanBeKilled(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	var l *listener
	answers := make(chan error, 2)
	holdIt, holding, release := hold()
	defer release()
	ready := make(chan struct{})
	l = listen(t, dir, fanotify.OpenPerm, func(ev fanotify.Event) bool {
		<-ready
		holdIt(ev)
		answers <- l.g.Answer(ev.File, true)
		answers <- l.g.Answer(ev.File, true)
		return true
	})
	close(ready) // l is set
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
	if err := <-answers; !errors.Is(err, unix.ENOENT) {
		t.Errorf("the second answer: %v, want ENOENT", err)
	}
}

// TestFactLastCloseAllows: when the last descriptor of the group is closed, the kernel allows what waits.
func TestFactLastCloseAllows(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "16m")
	path := write(t, filepath.Join(dir, "file"), "content", 0o644)
	var l *listener
	ready, holding := make(chan struct{}), make(chan struct{}, 1)
	l = listen(t, dir, fanotify.OpenPerm, func(fanotify.Event) bool {
		<-ready
		holding <- struct{}{}
		<-l.end
		return false
	})
	close(ready)
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
