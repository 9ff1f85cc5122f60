package bench

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
)

// actEcho makes this test binary a provider that allows everything over one channel, with the descriptors that it
// inherits from 3 on: of the socket; or of the memory, its own doorbell and ours.
const actEcho = "echo"

// Of BenchmarkChannel.
const (
	channelRounds = 15
	channelAsks   = 1000
	slotSize      = 4096 // of a question, and of the vote after it
)

// channel is one way to ask a provider.
type channel interface {
	ask(id uint64, file int)
	vote(id uint64)
}

// BenchmarkChannel decides how questions travel (docs/decisions/0009-auth-channel.md): the time until the last of 1 and
// 3 processes has voted, by socket, by socket with a descriptor, and by shared memory with an eventfd each way. All is
// on one processor, with the codec and the waiting of the real path, and none of its policy. The ways take turns.
func BenchmarkChannel(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 8))
	for _, n := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d-providers", n), func(b *testing.B) {
			runtime.LockOSThread()
			keepTo(b, 0)
			var sockets, memories []channel
			for range n {
				sockets = append(sockets, socketTo(b))
				memories = append(memories, memoryTo(b))
			}
			ways := []struct {
				name     string
				channels []channel
				file     int
				per      []float64
			}{{"socket", sockets, -1, nil}, {"socket-with-file", sockets, 0, nil}, {"memory", memories, -1, nil}}
			id := uint64(0)
			for range b.N {
				for range channelRounds {
					for w := range ways {
						way := &ways[w]
						start := time.Now()
						for range channelAsks {
							id++
							for _, c := range way.channels {
								c.ask(id, way.file)
							}
							for _, c := range way.channels {
								c.vote(id)
							}
						}
						way.per = append(way.per, float64(time.Since(start).Nanoseconds())/1000/channelAsks)
					}
				}
			}
			b.ReportMetric(0, "ns/op") // the sum over all ways says nothing
			for _, way := range ways {
				b.ReportMetric(median(way.per), way.name+"-µs")
			}
			b.ReportMetric(median(ways[0].per)/median(ways[2].per), "socket-to-memory-ratio")
			b.ReportMetric(slices.Min(ways[0].per)/slices.Min(ways[2].per), "least-socket-to-memory-ratio")
			b.ReportMetric(slices.Min(ways[2].per), "least-memory-µs")
			b.ReportMetric(slices.Min(ways[0].per), "least-socket-µs")
			b.ReportMetric(slices.Min(ways[1].per), "least-socket-with-file-µs")
		})
	}
}

// echoed starts a process that has the files as descriptors from 3 on.
func echoed(b *testing.B, kind string, files ...*os.File) {
	b.Helper()
	self, err := os.Executable()
	must(b, err)
	cmd := exec.CommandContext(b.Context(), self, kind)
	cmd.Env = append(os.Environ(), actVariable+"="+actEcho)
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
}

// question is what is asked.
func question(out []byte, id uint64, file int) []byte {
	ev := event.Event{ID: id, Type: event.Open, Time: time.Unix(0, int64(id))}
	ev.Actor = event.Process{PID: 4711, Token: 99, UID: 1000, Comm: "make"}
	ev.File.Path, ev.File.Handle, ev.File.Ino, ev.File.Size = "/srv/src/some/file.c", "handle-of-a-file", 4711, 4096
	out, _ = wire.AppendEvent(out, &ev, wire.Stamp{Type: event.Open, Budget: time.Second, Descriptor: file >= 0})
	return out
}

// answer is what a provider makes of a packet; it is empty for one that is no question.
func answer(out, packet []byte, ev *event.Event, text *wire.Text) []byte {
	if _, ok := wire.ParseEvent(packet, ev, text); !ok {
		return out
	}
	return wire.AppendVote(out, ev.ID, event.Vote{Action: event.Allow, Confidence: event.Certain, Content: "27800"})
}

// socket is the auth socket.
type socket struct {
	b    *testing.B
	c    *wire.Conn
	from *wire.Receiver
	buf  []byte
	raw  wire.RawVote
}

func socketTo(b *testing.B) channel {
	b.Helper()
	c, theirs, err := wire.Pair(1 << 20)
	must(b, err)
	echoed(b, "socket", theirs)
	must(b, theirs.Close())
	b.Cleanup(func() { must(b, c.Close()) })
	return &socket{b: b, c: c, from: wire.NewReceiver(c, false, true), buf: make([]byte, wire.MaxPacket)}
}

func (s *socket) ask(id uint64, file int) {
	if err := s.c.Send(question(s.buf[:0], id, file), file); err != nil {
		s.b.Fatal(err)
	}
}

func (s *socket) vote(id uint64) {
	n, _, err := s.from.Recv(s.buf)
	if err != nil || !wire.ParseVote(s.buf[:n], &s.raw) || s.raw.ID != id {
		s.b.Fatalf("vote on %d, want %d: %v", s.raw.ID, id, err)
	}
}

// memory is a shared piece of memory: a question in front, its length first, and a vote behind it. Either side copies
// before it looks.
type memory struct {
	b            *testing.B
	shared       []byte
	theirs, ours int // doorbells
	buf          []byte
	raw          wire.RawVote
}

func memoryTo(b *testing.B) channel {
	b.Helper()
	fd, err := unix.MemfdCreate("channel", unix.MFD_CLOEXEC)
	must(b, err)
	must(b, unix.Ftruncate(fd, 2*slotSize))
	m := &memory{b: b, buf: make([]byte, slotSize)}
	m.shared, err = unix.Mmap(fd, 0, 2*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(b, err)
	m.theirs, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(b, err)
	m.ours, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(b, err)
	files := []*os.File{os.NewFile(uintptr(fd), "memory")}
	for _, bell := range []int{m.theirs, m.ours} {
		dup, err := unix.FcntlInt(uintptr(bell), unix.F_DUPFD_CLOEXEC, 0)
		must(b, err)
		files = append(files, os.NewFile(uintptr(dup), "bell"))
	}
	echoed(b, "memory", files...)
	for _, f := range files {
		must(b, f.Close())
	}
	b.Cleanup(func() {
		must(b, unix.Munmap(m.shared))
		must(b, unix.Close(m.theirs))
		must(b, unix.Close(m.ours))
	})
	return m
}

func (m *memory) ask(id uint64, _ int) {
	put(m.shared[:slotSize], question(m.buf[:0], id, -1))
	ring(m.theirs)
}

func (m *memory) vote(id uint64) {
	awaitBell(m.ours)
	if !wire.ParseVote(copied(m.buf, m.shared[slotSize:]), &m.raw) || m.raw.ID != id {
		m.b.Fatalf("vote on %d, want %d", m.raw.ID, id)
	}
}

func put(slot, packet []byte) {
	binary.LittleEndian.PutUint32(slot, uint32(len(packet)))
	copy(slot[4:], packet)
}

// copied copies the packet before anybody looks at it; the length is read once.
func copied(buf, slot []byte) []byte {
	n := min(int(binary.LittleEndian.Uint32(slot)), slotSize-4)
	return buf[:copy(buf, slot[4:4+n])]
}

func ring(bell int) {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = rawCall(unix.SYS_WRITE, bell, one[:])
}

func rawCall(trap uintptr, fd int, b []byte) (uintptr, unix.Errno) {
	n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return n, errno
}

// awaitBell waits as an eager receiver does.
func awaitBell(bell int) {
	var count [8]byte
	for {
		if _, errno := rawCall(unix.SYS_READ, bell, count[:]); errno == 0 {
			return
		}
		runtime.Gosched()
	}
}

// echo serves one channel until it is killed.
func echo(kind string) int {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(runtime.NumCPU() + 8)
	var ev event.Event
	var text wire.Text
	buf, out := make([]byte, wire.MaxPacket), make([]byte, 0, slotSize)
	if kind == "memory" {
		shared, err := unix.Mmap(3, 0, 2*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return 1
		}
		for {
			awaitBell(4)
			put(shared[slotSize:], answer(out, copied(buf, shared[:slotSize]), &ev, &text))
			ring(5)
		}
	}
	c, err := wire.NewConn(3)
	if err != nil {
		return 1
	}
	from := wire.NewReceiver(c, true, true)
	for {
		n, file, err := from.Recv(buf)
		if err != nil || c.SendWait(answer(out, buf[:n], &ev, &text), -1) != nil {
			return 0
		}
		if file >= 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(file), 0, 0)
		}
	}
}
