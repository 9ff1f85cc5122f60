package guard

import (
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

// alone is a guard without a core, whose group has no mark.
func alone(t *testing.T) *Guard {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Fanotify)
	group, err := fanotify.NewPermission()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { group.Stop(); _ = group.Close() })
	pulse, page, err := link.NewPulse()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = page.Close() })
	g := &Guard{group: group, pulse: pulse, say: make(chan<- string)}
	for i := range g.poll {
		g.poll[i] = unix.PollFd{Fd: -1, Events: unix.POLLIN}
	}
	g.poll[onGroup].Fd = int32(group.FD())
	return g
}

// child makes a child of the test a guard's core, and returns the core's end of the socket.
func child(t *testing.T, g *Guard, name string, args ...string) (sock int) {
	t.Helper()
	p, err := os.StartProcess(name, append([]string{name}, args...), &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	pid := p.Pid
	_ = p.Release() // the guard waits for it
	ours, theirs, err := link.Pair()
	if err != nil {
		t.Fatal(err)
	}
	g.core, g.due, g.poll[onSocket].Fd = pid, now()+idleLimit, int32(ours)
	return theirs
}

// ended waits until the guard has buried its core.
func ended(t *testing.T, g *Guard) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); g.core != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the core does not end")
		}
		g.bury()
	}
}

// TestStartsThatFail: cores that never take over are started less and less often, however long that goes on.
func TestStartsThatFail(t *testing.T) {
	g := alone(t)
	g.ever, g.since = true, now()-time.Hour
	for range 12 {
		_ = unix.Close(child(t, g, "/bin/false"))
		ended(t, g)
	}
	if wait := g.due - now(); wait < longestWait/2 {
		t.Errorf("the next start is due in %v", wait)
	}
	// One that has read for long is started anew at once.
	_ = unix.Close(child(t, g, "/bin/false"))
	g.reading, g.since = true, now()-steady
	ended(t, g)
	if wait := g.due - now(); wait > 0 {
		t.Errorf("after a steady one the next start is due in %v", wait)
	}
}

// TestCoreThatHangsAtTheStart is ended, too.
func TestCoreThatHangsAtTheStart(t *testing.T) {
	g := alone(t)
	g.ever = true
	sock := child(t, g, "/bin/sleep", "600")
	t.Cleanup(func() { _ = unix.Close(sock) })
	if !g.serve() || g.killed != link.None {
		t.Fatal("ended before its time")
	}
	g.due = now()
	if !g.serve() {
		t.Fatal("the guard gives up")
	}
	ended(t, g)
	if g.gap.Cause != link.Stalled {
		t.Errorf("cause %v", g.gap.Cause)
	}
}

// TestCoreThatIsSilent: a core that has closed its socket and is not gone yet does not keep the guard awake.
func TestCoreThatIsSilent(t *testing.T) {
	g := alone(t)
	sock := child(t, g, "/bin/sleep", "600")
	pid := g.core
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL); ended(t, g) })
	_ = unix.Close(sock)
	for range 3 {
		g.due = now() + 10*time.Millisecond
		g.sleep()
		g.hear()
	}
	if g.poll[onSocket].Revents != 0 {
		t.Error("its socket wakes the guard again")
	}
}

// TestReloadWaitsForTheCore: until a core has taken over it may not listen to signals yet, and would be ended by one.
func TestReloadWaitsForTheCore(t *testing.T) {
	// As in prepare: the child of somebody who ignores it, under nohup(1), would ignore it as well.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGHUP)
	t.Cleanup(func() { signal.Stop(caught) })
	g := alone(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	g.poll[onSignal].Fd = int32(pipe[0])
	sock := child(t, g, "/bin/sleep", "600")
	pid := g.core
	t.Cleanup(func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		ended(t, g)
		for _, fd := range append(pipe[:], sock) {
			_ = unix.Close(fd)
		}
	})
	if _, err := unix.Write(pipe[1], []byte{byte(unix.SIGHUP)}); err != nil {
		t.Fatal(err)
	}
	g.pass()
	if g.bury(); g.core == 0 {
		t.Fatal("it was told, and ended")
	}
	if _, err := unix.Write(sock, []byte{link.TakeOver}); err != nil {
		t.Fatal(err)
	}
	g.ever = true
	g.hear()
	if !g.reading {
		t.Fatal("it has not taken over")
	}
	ended(t, g) // sleep does not listen
	if want := int(unix.SIGHUP); g.gap.Cause != link.Killed || g.gap.Detail != want {
		t.Errorf("gap %+v, want signal %d", g.gap, want)
	}
}
