package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const (
	sendBuffer  = 1 << 20         // bytes; at best, see wire.Pair
	inboxSize   = 4096            // packets that may wait for a case
	stderrSize  = 16 << 10        // bytes kept of what the program writes
	endPatience = 5 * time.Second // for an exit, as docs/protocol.md states
	heartbeatMS = 200             // interval asked for in Welcome
	creditGiven = 1024            // as the platform's default
)

// interval is the heartbeat interval asked for; silence is what the platform takes for a hang, three of them,
// and what a busy machine may add.
const (
	interval = heartbeatMS * time.Millisecond
	grace    = 900 * time.Millisecond
	silence  = 3*interval + grace
)

// Peer is the platform's side of one started program. Its methods are for one goroutine, except where they
// say otherwise.
type Peer struct {
	cmd           Command
	process       *exec.Cmd
	auth, control *wire.Conn
	stderr        *tail

	fromAuth, fromControl chan *pb.FromProvider // closed at the end of the stream; protocolErr then says why
	readers               sync.WaitGroup
	stopping              chan struct{}
	exited                chan struct{}
	exitErr               error // set before exited is closed

	errMu       sync.Mutex
	protocolErr error // the first packet that broke the protocol

	subscription *pb.Subscribe
	beat         *pb.Heartbeat // the latest
	beatAt       time.Time
	seq          [2]uint64 // events sent on auth, on control
	lastID       uint64
	open         map[uint64]bool // delivered auth events: true while there is no vote
	digests      map[uint64]readable
	dir          string // of object files
}

// start runs the program with its two sockets, and reads what it sends. The end of ctx ends the program too.
func start(ctx context.Context, cmd Command) (*Peer, error) {
	path, err := filepath.Abs(cmd.Path)
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}
	dir, err := os.MkdirTemp("", "keepout-conformance-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for samples: %w", err)
	}
	p := &Peer{
		cmd: cmd, dir: dir, stderr: &tail{},
		fromAuth: make(chan *pb.FromProvider, inboxSize), fromControl: make(chan *pb.FromProvider, inboxSize),
		stopping: make(chan struct{}), exited: make(chan struct{}),
	}
	if err := p.launch(ctx, path); err != nil {
		p.closeSockets()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.readers.Go(func() { p.read(p.auth, p.fromAuth) })
	p.readers.Go(func() { p.read(p.control, p.fromControl) })
	go func() {
		p.exitErr = p.process.Wait()
		close(p.exited)
	}()
	return p, nil
}

// launch makes the sockets and starts the process.
func (p *Peer) launch(ctx context.Context, path string) error {
	auth, authEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		return fmt.Errorf("auth socket: %w", err)
	}
	p.auth = auth
	defer authEnd.Close()
	control, controlEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	p.control = control
	defer controlEnd.Close()
	p.process = exec.CommandContext(ctx, path, p.cmd.Args...)
	p.process.Env = append([]string{}, p.cmd.Env...) // not nil, which would mean: inherit everything
	p.process.Dir = p.cmd.Dir
	if p.process.Dir == "" {
		p.process.Dir = string(filepath.Separator)
	}
	p.process.Stderr = p.stderr
	p.process.ExtraFiles = []*os.File{authEnd, controlEnd} // descriptors 3 and 4
	p.process.WaitDelay = endPatience                      // a grandchild may hold standard error open
	if err := p.process.Start(); err != nil {
		return fmt.Errorf("start process: %w", err)
	}
	return nil
}

// stop ends the process that start started, and everything that belongs to it.
func (p *Peer) stop() {
	close(p.stopping)
	select {
	case <-p.exited:
	default:
		_ = p.process.Process.Kill() // it may have ended by itself meanwhile
		<-p.exited
	}
	p.auth.Shutdown()
	p.control.Shutdown()
	p.readers.Wait()
	p.closeSockets()
	_ = os.RemoveAll(p.dir) // best effort, in the system's temporary folder
}

func (p *Peer) closeSockets() {
	for _, c := range []*wire.Conn{p.auth, p.control} {
		if c != nil {
			_ = c.Close() // nothing is buffered
		}
	}
}

// read checks what the program sends as the platform would, and hands it to the case.
func (p *Peer) read(from *wire.Conn, inbox chan<- *pb.FromProvider) {
	defer close(inbox)
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := from.Recv(buf)
		if errors.Is(err, io.EOF) {
			return
		}
		var m *pb.FromProvider
		if err == nil {
			m, err = wire.DecodeFromProvider(buf[:n])
		}
		if err != nil {
			p.errMu.Lock()
			p.protocolErr = errors.Join(p.protocolErr, err)
			p.errMu.Unlock()
			return
		}
		select {
		case inbox <- m:
		case <-p.stopping:
			return
		}
	}
}

// ended says why a stream ended.
func (p *Peer) ended(socket string) error {
	p.errMu.Lock()
	err := p.protocolErr
	p.errMu.Unlock()
	if err != nil {
		return fmt.Errorf("on the %s socket: %w", socket, err)
	}
	select {
	case <-p.exited:
		return fmt.Errorf("the program ended: %s", p.process.ProcessState)
	case <-time.After(time.Second): // the exit follows the end of the stream, or it closed the socket itself
		return fmt.Errorf("the program closed the %s socket", socket)
	}
}

// next waits for one packet on either socket; auth says which. A nil packet without an error means that the
// time is over. An event that the program wants to read is sent again, and the wait goes on.
func (p *Peer) next(ctx context.Context, wait time.Duration) (m *pb.FromProvider, auth bool, err error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		m, auth, err = p.receive(ctx, timer)
		if err != nil || m.GetVote().GetAction() != pb.Action_ACTION_READ {
			return m, auth, err
		}
		if err := p.again(m.GetVote()); err != nil {
			return nil, true, err
		}
	}
}

// receive is next for a packet of any kind.
func (p *Peer) receive(ctx context.Context, timer *time.Timer) (m *pb.FromProvider, auth bool, err error) {
	select {
	case m, ok := <-p.fromAuth:
		if !ok {
			return nil, true, p.ended("auth")
		}
		if m.GetVote() == nil {
			return nil, true, fmt.Errorf("sent %s on the auth socket, which is for votes", bodyName(m))
		}
		return m, true, nil
	case m, ok := <-p.fromControl:
		if !ok {
			return nil, false, p.ended("control")
		}
		if m.GetVote() != nil {
			return nil, false, errors.New("sent a vote on the control socket")
		}
		return m, false, p.noteHeartbeat(m.GetHeartbeat())
	case <-timer.C:
		return nil, false, nil
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
}

// noteHeartbeat keeps the latest heartbeat; one that goes backwards is an error.
func (p *Peer) noteHeartbeat(h *pb.Heartbeat) error {
	if h == nil {
		return nil
	}
	if h.GetProcessed() < p.beat.GetProcessed() {
		return fmt.Errorf("processed fell from %d to %d", p.beat.GetProcessed(), h.GetProcessed())
	}
	p.beat, p.beatAt = h, time.Now()
	return nil
}

func (p *Peer) nameOf(c *wire.Conn) string {
	if c == p.auth {
		return "auth"
	}
	return "control"
}

// tell sends a packet on the control socket.
func (p *Peer) tell(m *pb.ToProvider) error { return p.send(p.control, m, -1) }

// send waits for room in the socket, which the platform never does: a case wants every packet delivered. A
// program that ends meanwhile ends the wait.
func (p *Peer) send(to *wire.Conn, m proto.Message, file int) error {
	packet, err := wire.Encode(nil, m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	deadline := time.Now().Add(p.cmd.patience())
	for {
		err := to.Send(packet, file)
		if !errors.Is(err, wire.ErrFull) {
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
				return fmt.Errorf("before it took %s: %w", bodyName(m), p.ended(p.nameOf(to)))
			}
			if err != nil {
				return fmt.Errorf("send %s: %w", bodyName(m), err)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("does not read: socket full for %s", p.cmd.patience())
		}
		select { // a socket without the poller gives no sign of room
		case <-p.exited:
			return fmt.Errorf("the program ended: %s", p.process.ProcessState)
		case <-time.After(time.Millisecond):
		}
	}
}

// waitExit waits for the end of the process and returns its exit code, -1 after a signal.
func (p *Peer) waitExit(ctx context.Context, wait time.Duration) (int, error) {
	select {
	case <-p.exited:
		return p.process.ProcessState.ExitCode(), nil
	case <-time.After(wait):
		return 0, fmt.Errorf("still runs after %s", wait)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// bodyName names the message in a packet, for error texts.
func bodyName(m proto.Message) string {
	r := m.ProtoReflect()
	if body := r.WhichOneof(r.Descriptor().Oneofs().ByName("body")); body != nil {
		return string(body.Message().Name())
	}
	return "an unknown body"
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - stderrSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
