package rescue

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestASerialLineThatTakesNothing does not hold up the screen for good, nor keep another line from what is said.
func TestASerialLineThatTakesNothing(t *testing.T) {
	t.Parallel()
	_, stuck := line(t)
	far, near := line(t)
	s := &screen{serial: []*os.File{stuck, near}}
	heard := make(chan string)
	go func() {
		all, buf := "", make([]byte, 4096)
		for !strings.Contains(all, "keepout-rescue: the end") {
			n, err := far.Read(buf)
			if err != nil {
				break
			}
			all += string(buf[:n])
		}
		heard <- all
	}()
	said := make(chan bool)
	go func() {
		s.log("%s", strings.Repeat("more than a line takes\n", 1000))
		s.log("the end")
		close(said)
	}()
	const patience = 30 * time.Second
	select {
	case <-said:
	case <-time.After(patience):
		t.Fatal("the screen waits for a line that takes nothing")
	}
	select {
	case all := <-heard:
		if !strings.Contains(all, "the end") {
			t.Errorf("the other line heard %d bytes and no end", len(all))
		}
	case <-time.After(patience):
		t.Fatal("the other line heard no end")
	}
}

// line is a terminal, opened as openScreen opens a serial line, and its other side.
func line(t *testing.T) (far, near *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	number, err := unix.IoctlGetInt(int(far.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(far.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	return far, near
}
