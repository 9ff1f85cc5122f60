package wire_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/wire"
)

// ends makes a connected pair of which the test closes both.
func ends(t *testing.T) (a, b *wire.Conn) {
	t.Helper()
	a, file, err := wire.Pair(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = wire.NewConn(fd); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	return a, b
}

// TestReceiver: eager or not, packets, descriptors, overlong packets and the end arrive, in a burst and after silence.
func TestReceiver(t *testing.T) {
	t.Parallel()
	for name, eager := range map[string]bool{"eager": true, "waiting": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := ends(t)
			r := wire.NewReceiver(b, true, eager)
			buf := make([]byte, 16)
			passed, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer passed.Close()
			for i := range 20 {
				file := -1
				if i%3 == 0 {
					file = int(passed.Fd())
				}
				if i%7 == 0 {
					time.AfterFunc(40*time.Millisecond, func() { _ = a.Send([]byte{byte(i)}, file) }) // after silence
				} else if err := a.Send([]byte{byte(i)}, file); err != nil {
					t.Fatal(err)
				}
				n, got, err := r.Recv(buf)
				if err != nil || n != 1 || buf[0] != byte(i) || (got >= 0) != (file >= 0) {
					t.Fatalf("packet %d: %d bytes, %d, descriptor %d (%v)", i, n, buf[0], got, err)
				}
				if got >= 0 {
					_ = unix.Close(got)
				}
			}
			if err := a.Send(make([]byte, 17), -1); err != nil {
				t.Fatal(err)
			}
			if _, _, err := r.Recv(buf); !errors.Is(err, wire.ErrTooLong) {
				t.Errorf("a packet over the buffer: %v", err)
			}
			a.Shutdown()
			if _, file, err := r.Recv(buf); !errors.Is(err, io.EOF) || file != -1 {
				t.Errorf("after the end: %d, %v", file, err)
			}
		})
	}
}

// TestEagerReceiverIsQuiet: after silence it says so, once it has waited; a plain Recv on the same socket still waits.
func TestEagerReceiverIsQuiet(t *testing.T) {
	t.Parallel()
	a, b := ends(t)
	r := wire.NewReceiver(b, false, true)
	buf := make([]byte, 16)
	if _, _, err := r.Soon(buf); !errors.Is(err, wire.ErrQuiet) {
		t.Fatalf("silence is %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = a.Send([]byte("x"), -1) })
	if n, err := b.Recv(buf); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = a.Send([]byte("y"), -1) })
	if err := r.Await(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := r.Soon(buf); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
}

// TestEagerReceiverYields: the collector, which must stop everybody, is not held up by goroutines that wait eagerly
// and occupy every processor slot.
func TestEagerReceiverYields(t *testing.T) {
	done := make(chan struct{})
	n := runtime.GOMAXPROCS(0)
	ended := make(chan struct{}, n)
	var conns []*wire.Conn
	for range n {
		a, b := ends(t)
		r := wire.NewReceiver(b, false, true)
		go func() {
			buf := make([]byte, 16)
			for {
				if _, _, err := r.Soon(buf); errors.Is(err, io.EOF) {
					ended <- struct{}{}
					return
				}
			}
		}()
		conns = append(conns, a)
	}
	go func() {
		for range 20 {
			runtime.GC()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the collector is held up")
	}
	for _, c := range conns {
		c.Shutdown()
	}
	for range n {
		<-ended
	}
}

// TestTry: it takes what is there, never waits, says when the peer has gone, and leaves a number alone that Close has
// given back.
func TestTry(t *testing.T) {
	t.Parallel()
	a, end, err := wire.Pair(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	r := wire.NewReceiver(a, false, true) // eager: with a time limit on the socket
	buf := make([]byte, 16)
	if _, _, err := r.Try(buf); !errors.Is(err, wire.ErrQuiet) {
		t.Errorf("of an empty socket: %v", err)
	}
	fd, err := unix.FcntlInt(end.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.NewConn(fd)
	if err = errors.Join(err, end.Close()); err != nil {
		t.Fatal(err)
	}
	if err := b.Send([]byte("vote"), -1); err != nil {
		t.Fatal(err)
	}
	if n, file, err := r.Try(buf); err != nil || file != -1 || string(buf[:n]) != "vote" {
		t.Errorf("%q, descriptor %d, %v", buf[:n], file, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Try(buf); !errors.Is(err, io.EOF) {
		t.Errorf("after the peer has gone: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	other, its, err := wire.Pair(1 << 20) // most likely under the number that was given back
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	defer its.Close()
	if _, _, err := r.Try(buf); !errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v", err)
	}
}
