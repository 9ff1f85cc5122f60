// Package enginetest runs an engine under the smallest possible platform, over the real sockets and the real
// SDK, so that a test of a provider covers the way from a packet and a descriptor to a vote.
//
// It guarantees that nothing waits for ever: whatever the engine does not do within Patience fails the test.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// Patience bounds each wait for the engine. It is long because a test machine may be busy; a test that passes
// does not spend it.
const Patience = 60 * time.Second

// sendBuffer, in bytes, holds more than any test sends at one time.
const sendBuffer = 1 << 20

// maxPackets bounds what a test may leave unread.
const maxPackets = 1024

// Host is a platform with one provider. Its methods are for one goroutine.
type Host struct {
	t             testing.TB
	auth, control *wire.Conn
	votes, said   chan *pb.FromProvider
	ended         chan error // Run's result, or the process's
	lastID        uint64
	subscription  *pb.Subscribe
}

// Start runs the engine in this process, welcomes it with the settings and waits until it subscribes. The
// engine is stopped when the test ends.
func Start(t testing.TB, engine provider.Engine, settings provider.Settings) *Host {
	t.Helper()
	h := launch(t, inProcess(engine))
	h.welcome(settings)
	h.awaitSubscription()
	return h
}

// LoadError runs the engine and returns the error with which it refuses to start. It fails the test if the
// engine subscribes.
func LoadError(t testing.TB, engine provider.Engine, settings provider.Settings) error {
	t.Helper()
	h := launch(t, inProcess(engine))
	h.welcome(settings)
	select {
	case err := <-h.ended:
		h.ended <- nil // for the cleanup
		if err == nil {
			t.Fatal("the engine ended without an error")
		}
		return err
	case <-time.After(Patience):
		t.Fatal("the engine neither failed nor ended")
	}
	return nil
}

// StartProcess is Start for a provider that runs as a process of its own: run starts it with the two
// descriptors as its 3 and 4 and returns a function that waits for its end.
func StartProcess(
	t testing.TB, run func(auth, control *os.File) (wait func() error, err error), settings provider.Settings,
) *Host {
	t.Helper()
	h := launch(t, func(auth, control *os.File, ended chan<- error) error {
		wait, err := run(auth, control)
		if err == nil {
			go func() { ended <- wait() }()
		}
		return errors.Join(err, auth.Close(), control.Close())
	})
	h.welcome(settings)
	h.awaitSubscription()
	return h
}

// inProcess runs the engine through the SDK, which takes over the descriptors.
func inProcess(engine provider.Engine) func(auth, control *os.File, ended chan<- error) error {
	return func(auth, control *os.File, ended chan<- error) error {
		authFD, err := take(auth)
		if err != nil {
			return err
		}
		controlFD, err := take(control)
		if err != nil {
			return err
		}
		go func() { ended <- provider.Run(context.Background(), engine, authFD, controlFD) }()
		return nil
	}
}

// take returns a descriptor that no os.File closes.
func take(f *os.File) (int, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return fd, f.Close()
}

func launch(t testing.TB, start func(auth, control *os.File, ended chan<- error) error) *Host {
	t.Helper()
	auth, authEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		t.Fatal(err)
	}
	control, controlEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{
		t: t, auth: auth, control: control, ended: make(chan error, 1),
		votes: make(chan *pb.FromProvider, maxPackets), said: make(chan *pb.FromProvider, maxPackets),
	}
	if err := start(authEnd, controlEnd, h.ended); err != nil {
		t.Fatal(err)
	}
	go h.listen(auth, h.votes)
	go h.listen(control, h.said)
	t.Cleanup(h.stop)
	return h
}

// stop lets the engine end as it does when the platform closes its sockets.
func (h *Host) stop() {
	h.auth.Shutdown()
	h.control.Shutdown()
	select {
	case err := <-h.ended:
		if err != nil {
			h.t.Errorf("the engine ended with: %v", err)
		}
	case <-time.After(Patience):
		h.t.Error("the engine did not end after its sockets were closed")
	}
	for range h.votes { // until the listeners have stopped using the sockets
	}
	for range h.said {
	}
	if err := errors.Join(h.auth.Close(), h.control.Close()); err != nil {
		h.t.Errorf("close sockets: %v", err)
	}
}

// Kill ends a provider that StartProcess started, by the number of its process, without a chance to tidy up.
func (h *Host) Kill(pid int) {
	h.t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
	select {
	case err := <-h.ended:
		h.t.Logf("process %d: %v", pid, err)
		h.ended <- nil // for the cleanup
	case <-time.After(Patience):
		h.t.Fatalf("process %d did not end", pid)
	}
}

// listen decodes packets as the platform does, and closes the channel at the end of the connection.
func (h *Host) listen(from *wire.Conn, to chan<- *pb.FromProvider) {
	defer close(to)
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := from.Recv(buf)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				h.t.Errorf("receive: %v", err)
			}
			return
		}
		m, err := wire.DecodeFromProvider(buf[:n])
		if err != nil {
			h.t.Errorf("the engine sent: %v", err)
			return
		}
		select {
		case to <- m:
		default: // a heartbeat that nobody waits for
		}
	}
}

func (h *Host) welcome(s provider.Settings) {
	h.t.Helper()
	h.await("hello", func(m *pb.FromProvider) bool { return m.GetHello() != nil })
	h.say(h.control, -1, &pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: &pb.Welcome{
		Major: wire.Major, Provider: s.Provider, Content: s.Content, StateDir: s.StateDir, Settings: s.Values,
		HeartbeatMs: 20, MaxPacket: wire.MaxPacket, Credit: 64,
	}}})
}

func (h *Host) awaitSubscription() {
	h.t.Helper()
	m := h.await("subscription", func(m *pb.FromProvider) bool { return m.GetSubscribe() != nil })
	h.subscription = m.GetSubscribe()
}

// Subscription returns what the engine subscribed to.
func (h *Host) Subscription() *pb.Subscribe { return h.subscription }

// Reload tells the engine that its content changed; AwaitHeartbeat sees the effect.
func (h *Host) Reload() {
	h.t.Helper()
	h.say(h.control, -1, &pb.ToProvider{Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}}})
}

// AwaitHeartbeat waits for a heartbeat for which want is true; what names it in the failure.
func (h *Host) AwaitHeartbeat(what string, want func(*pb.Heartbeat) bool) *pb.Heartbeat {
	h.t.Helper()
	m := h.await(what, func(m *pb.FromProvider) bool {
		return m.GetHeartbeat() != nil && want(m.GetHeartbeat())
	})
	return m.GetHeartbeat()
}

func (h *Host) await(what string, want func(*pb.FromProvider) bool) *pb.FromProvider {
	h.t.Helper()
	timeout := time.After(Patience)
	for last := (*pb.FromProvider)(nil); ; {
		select {
		case m, open := <-h.said:
			if !open {
				h.t.Fatalf("the engine ended while its %s was awaited; its last packet: %v", what, last)
			}
			if want(m) {
				return m
			}
			last = m
		case <-timeout:
			h.t.Fatalf("no %s within %v; the last packet: %v", what, Patience, last)
		}
	}
}

// Ask sends an exec event about the file at path, with a read-only descriptor, and returns the vote.
func (h *Host) Ask(path string, budget time.Duration) event.Vote {
	h.t.Helper()
	return h.AskAll(budget, path)[0]
}

// AskAll asks about all files at one time and returns the votes in the order of the paths.
func (h *Host) AskAll(budget time.Duration, paths ...string) []event.Vote {
	h.t.Helper()
	first := h.lastID + 1
	for _, path := range paths {
		h.send(path, budget)
	}
	votes := make([]event.Vote, len(paths))
	for range paths {
		id, v := h.vote()
		if id < first || id > h.lastID {
			h.t.Fatalf("vote on event %d, asked about %d to %d", id, first, h.lastID)
		}
		votes[id-first] = v
	}
	return votes
}

func (h *Host) send(path string, budget time.Duration) {
	h.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		h.t.Fatal(err)
	}
	h.lastID++
	ev := event.Event{ID: h.lastID, Type: event.Exec, Time: time.Now()}
	ev.File.Path, ev.File.Size = path, info.Size()
	m := wire.EventToProto(&ev)
	m.Seq, m.BudgetNs, m.Descriptor_ = h.lastID, uint64(budget), true
	h.say(h.auth, int(f.Fd()), &pb.ToProvider{Body: &pb.ToProvider_Event{Event: m}})
}

func (h *Host) vote() (id uint64, v event.Vote) {
	h.t.Helper()
	select {
	case m, open := <-h.votes:
		if !open {
			h.t.Fatal("the engine ended instead of voting")
		}
		v, known := wire.VoteFromProto(m.GetVote())
		if !known {
			h.t.Fatalf("vote with the action %v", m.GetVote().GetAction())
		}
		return m.GetVote().GetId(), v
	case <-time.After(Patience):
		h.t.Fatalf("no vote within %v", Patience)
	}
	return 0, event.Vote{}
}

func (h *Host) say(on *wire.Conn, file int, m *pb.ToProvider) {
	h.t.Helper()
	packet, err := wire.Encode(nil, m)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := on.Send(packet, file); err != nil {
		h.t.Fatal(err)
	}
}

// WriteFile writes a file into the folder, which must exist, and returns its path.
func WriteFile(t testing.TB, folder, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// EICAR returns the harmless file that antivirus engines agree to detect. It is put together here, so that no
// file of the repository is one.
func EICAR() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$` + `EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`)
}
