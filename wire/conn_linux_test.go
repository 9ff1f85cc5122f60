package wire_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/wire"
)

const patience = 10 * time.Second

// pair gives both ends as connections; they are shut down and closed at the end of the test.
func pair(t *testing.T) (ours, theirs *wire.Conn) {
	t.Helper()
	ours, file, err := wire.Pair(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	theirs, err = wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Shutdown()
		if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
			t.Error(err)
		}
	})
	return ours, theirs
}

// openFiles counts the descriptors of this process that refer to path.
func openFiles(t *testing.T, path string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && target == path {
			count++
		}
	}
	return count
}

func contentFile(t *testing.T, content string) (*os.File, string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "object")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, path
}

func TestSendKeepsPacketsApart(t *testing.T) {
	ours, theirs := pair(t)
	for _, p := range []string{"one", "a second one", strings.Repeat("x", wire.MaxPacket)} {
		if err := ours.Send([]byte(p), -1); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, wire.MaxPacket)
		n, file, err := theirs.RecvFile(buf)
		if err != nil || file != -1 || string(buf[:n]) != p {
			t.Fatalf("received %d bytes, descriptor %d, error %v; want %d bytes", n, file, err, len(p))
		}
		if err := theirs.SendWait(buf[:n], -1); err != nil {
			t.Fatal(err)
		}
		if n, err := ours.Recv(buf); err != nil || n != len(p) {
			t.Fatalf("came back as %d bytes, error %v", n, err)
		}
	}
}

func TestSendPassesADescriptor(t *testing.T) {
	ours, theirs := pair(t)
	object, path := contentFile(t, "content")
	if err := ours.Send([]byte("event"), int(object.Fd())); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, fd, err := theirs.RecvFile(buf)
	if err != nil || n != 5 || fd < 0 {
		t.Fatalf("received %d bytes, descriptor %d, error %v", n, fd, err)
	}
	passed := os.NewFile(uintptr(fd), "passed")
	defer passed.Close()
	if flags, err := unix.FcntlInt(passed.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, error %v: a passed descriptor must not survive exec", flags, err)
	}
	if content, err := io.ReadAll(passed); err != nil || string(content) != "content" {
		t.Errorf("read %q, error %v", content, err)
	}
	if got := openFiles(t, path); got != 2 {
		t.Errorf("%d descriptors of the object, want ours and the passed one", got)
	}
}

// TestUnwantedDescriptorsAreClosed covers every way in which a peer could fill the receiver's table.
func TestUnwantedDescriptorsAreClosed(t *testing.T) {
	object, path := contentFile(t, "content")
	fd := int(object.Fd())
	for name, c := range map[string]struct {
		packet  []byte
		passed  []int
		plain   bool // received with Recv
		wantErr error
		keeps   int
	}{
		"two descriptors":              {[]byte("event"), []int{fd, fd}, false, nil, 1},
		"many descriptors":             {[]byte("event"), []int{fd, fd, fd, fd, fd, fd, fd}, false, nil, 1},
		"not asked for":                {[]byte("event"), []int{fd, fd}, true, nil, 0},
		"beside an over-long packet":   {make([]byte, 200), []int{fd}, false, wire.ErrTooLong, 0},
		"beside an empty packet":       {nil, []int{fd}, false, io.EOF, 0},
		"over-long and not asked for":  {make([]byte, 200), []int{fd, fd}, true, wire.ErrTooLong, 0},
		"empty packet, two beside it":  {nil, []int{fd, fd}, false, io.EOF, 0},
		"over-long packet, two beside": {make([]byte, 200), []int{fd, fd}, false, wire.ErrTooLong, 0},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[0])
			conn, err := wire.NewConn(fds[1])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sendRaw(t, fds[0], c.packet, unix.UnixRights(c.passed...))
			buf, file := make([]byte, 100), -1
			if c.plain {
				_, err = conn.Recv(buf)
			} else {
				_, file, err = conn.RecvFile(buf)
			}
			if !errors.Is(err, c.wantErr) || (file >= 0) != (c.keeps > 0) {
				t.Errorf("descriptor %d, error %v; want error %v", file, err, c.wantErr)
			}
			if got := openFiles(t, path) - 1; got != c.keeps {
				t.Errorf("%d descriptors left open, want %d", got, c.keeps)
			}
			if file >= 0 {
				_ = unix.Close(file)
			}
		})
	}
}

// sendRaw is sendmsg(2) itself: unix.Sendmsg adds a byte to an empty packet.
func sendRaw(t *testing.T, fd int, packet, control []byte) {
	t.Helper()
	msg := unix.Msghdr{Control: &control[0]}
	msg.SetControllen(len(control))
	var iov unix.Iovec
	if len(packet) > 0 {
		iov.Base = &packet[0]
		iov.SetLen(len(packet))
		msg.Iov = &iov
		msg.SetIovlen(1)
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 0)
	runtime.KeepAlive(packet)
	if errno != 0 {
		t.Fatalf("sendmsg: %v", errno)
	}
}

func TestOverLongPacketIsLostAlone(t *testing.T) {
	ours, theirs := pair(t)
	for _, p := range [][]byte{make([]byte, 200), []byte("next")} {
		if err := ours.Send(p, -1); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	if _, err := theirs.Recv(buf); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("error %v, want ErrTooLong", err)
	}
	if n, err := theirs.Recv(buf); err != nil || string(buf[:n]) != "next" {
		t.Errorf("then %q, error %v", buf[:n], err)
	}
}

func TestShutdownEndsBothSides(t *testing.T) {
	ours, theirs := pair(t)
	ended := make(chan error, 4)
	for range 2 {
		go func() { _, err := ours.Recv(make([]byte, 10)); ended <- err }()
		go func() { _, _, err := theirs.RecvFile(make([]byte, 10)); ended <- err }()
	}
	ours.Shutdown()
	for range 4 {
		select {
		case err := <-ended:
			if !errors.Is(err, io.EOF) {
				t.Errorf("error %v, want io.EOF", err)
			}
		case <-time.After(patience):
			t.Fatal("a receiver still waits after Shutdown")
		}
	}
	if err := theirs.Send([]byte("x"), -1); !errors.Is(err, unix.EPIPE) {
		t.Errorf("send after the end: %v, want EPIPE", err)
	}
}

func TestShutdownReadKeepsWhatIsQueued(t *testing.T) {
	ours, theirs := pair(t)
	if err := ours.Send([]byte("queued"), -1); err != nil {
		t.Fatal(err)
	}
	theirs.ShutdownRead()
	buf := make([]byte, 100)
	if n, err := theirs.Recv(buf); err != nil || string(buf[:n]) != "queued" {
		t.Errorf("received %q, error %v", buf[:n], err)
	}
	if _, err := theirs.Recv(buf); !errors.Is(err, io.EOF) {
		t.Errorf("then error %v, want io.EOF", err)
	}
	if err := ours.Send([]byte("late"), -1); err == nil {
		t.Error("a send still worked")
	}
	if err := theirs.Send([]byte("answer"), -1); err != nil {
		t.Errorf("answer: %v", err)
	}
	if n, err := ours.Recv(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("received %q, error %v", buf[:n], err)
	}
}

// TestSendNeverBlocks fills a socket whose peer does not read.
func TestSendNeverBlocks(t *testing.T) {
	ours, theirs := pair(t)
	packet := bytes.Repeat([]byte("x"), 512)
	filled := make(chan int, 1)
	go func() {
		for sent := 0; ; sent++ {
			if err := ours.Send(packet, -1); err != nil {
				if !errors.Is(err, wire.ErrFull) {
					t.Errorf("error %v, want ErrFull", err)
				}
				filled <- sent
				return
			}
		}
	}()
	var sent int
	select {
	case sent = <-filled:
	case <-time.After(patience):
		t.Fatal("Send blocks, or the buffer has no bound")
	}
	if sent == 0 {
		t.Fatal("nothing could be sent")
	}
	buf := make([]byte, 1024)
	for range sent {
		if n, err := theirs.Recv(buf); err != nil || n != len(packet) {
			t.Fatalf("received %d bytes, error %v", n, err)
		}
	}
	if err := ours.Send(packet, -1); err != nil {
		t.Errorf("send after the peer caught up: %v", err)
	}
}

func TestNewConnRefusesOtherDescriptors(t *testing.T) {
	object, _ := contentFile(t, "")
	if _, err := wire.NewConn(int(object.Fd())); err == nil {
		t.Error("took a file")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, err := wire.NewConn(fds[0]); err == nil {
		t.Error("took a stream socket")
	}
}

// TestSendAfterClose: a number that was given back may be somebody else's, so it is not used again.
func TestSendAfterClose(t *testing.T) {
	t.Parallel()
	ours, theirs, err := wire.Pair(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours.Shutdown()
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ours.Send([]byte("x"), -1); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("send after close: %v", err)
	}
	ours.Shutdown() // does nothing
}
