package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/beat"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// Main runs the engine over the inherited sockets and exits: 0 after a drain, 1 with a message otherwise.
func Main(e Engine) {
	// With a processor slot to spare for every thread that blocks in the kernel, one that wakes up goes on at once,
	// and Go's monitor does not take the slots away and give them back every 20 µs.
	runtime.GOMAXPROCS(runtime.NumCPU() + e.workers() + 2)
	if err := Run(context.Background(), e, wire.AuthFD, wire.ControlFD); err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run runs the engine over two sockets, which it takes over, until the platform says drain, closes them, or
// ctx ends.
func Run(ctx context.Context, e Engine, authFD, controlFD int) error {
	auth, err := wire.NewConn(authFD)
	if err != nil {
		return fmt.Errorf("auth socket: %w (a provider is started by keepoutd)", err)
	}
	control, err := wire.NewConn(controlFD)
	if err != nil {
		return fmt.Errorf("control socket: %w (a provider is started by keepoutd)", err)
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	r := &runner{engine: e, auth: auth, control: control, crew: newCrew()}
	r.content.Store(new(string))
	eager := wire.SlotsToSpare(e.workers())
	for range e.workers() {
		r.workers = append(r.workers, newWorker(r, eager))
	}
	return r.run(ctx)
}

// runner is one engine's life under one platform.
type runner struct {
	engine        Engine
	auth, control *wire.Conn
	settings      Settings
	heartbeat     time.Duration
	minor         uint32 // of the platform
	processed     atomic.Uint64
	draining      atomic.Bool

	beating sync.Mutex // keeps heartbeats in order, and Engine.Check to one call at a time

	content  atomic.Pointer[string]
	degraded atomic.Pointer[string] // why the last load failed; or nil

	crew    *crew
	workers []*worker
}

func (r *runner) run(ctx context.Context) (err error) {
	var watch sync.WaitGroup
	done := make(chan struct{})
	watch.Go(func() { // ends a handshake and a load too, not only the loops
		select {
		case <-ctx.Done():
			r.hangUp()
		case <-done:
		}
	})
	defer func() {
		close(done)
		watch.Wait()
		err = errors.Join(err, r.auth.Close(), r.control.Close())
	}()
	if err := r.handshake(); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	if err := r.subscribe(); err != nil {
		return err
	}
	return r.serve(ctx)
}

// serve runs the loops until the platform says drain or closes a socket, or ctx ends.
func (r *runner) serve(ctx context.Context) error {
	var voters, others sync.WaitGroup
	ended := make(chan error, len(r.workers)+2)
	for _, w := range r.workers {
		voters.Go(func() {
			if err := w.loop(); err != nil {
				ended <- err
			}
		})
	}
	// One worker at the end of the stream is not the end: the others may still owe their votes.
	others.Go(func() { voters.Wait(); ended <- nil })
	others.Go(func() { ended <- r.controlLoop(ctx) })
	stopBeating := make(chan struct{})
	others.Go(func() { r.beat(stopBeating) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	r.hangUp()
	close(stopBeating)
	others.Wait()
	return err
}

// hangUp ends both connections and every vote in flight.
func (r *runner) hangUp() {
	r.auth.Shutdown()
	r.control.Shutdown()
	for _, w := range r.workers {
		w.ev.hangUp()
	}
}

// load runs the engine's first Load, and says meanwhile that the provider is alive.
func (r *runner) load(ctx context.Context) error {
	if r.engine.Load == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loading sync.WaitGroup
	loaded := make(chan struct{})
	loading.Go(func() {
		ticker := time.NewTicker(r.heartbeat)
		defer ticker.Stop()
		for {
			if r.tellLoading("") != nil { // nobody reads the sockets yet: this is how a lost platform shows
				cancel()
				return
			}
			select {
			case <-loaded:
				return
			case <-ticker.C:
			}
		}
	})
	content, err := r.engine.Load(ctx, r.settings)
	close(loaded)
	loading.Wait()
	if err != nil {
		_ = r.tellLoading(err.Error()) // best effort: the exit says it as well
		return fmt.Errorf("load: %w", err)
	}
	r.content.Store(&content)
	return nil
}

func (r *runner) tellLoading(detail string) error {
	return r.tell(&pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: &pb.Heartbeat{
		State: pb.State_STATE_LOADING, Detail: wire.Clip(detail),
	}}})
}

// handshake says hello and waits for the welcome.
func (r *runner) handshake() error {
	err := r.tell(&pb.FromProvider{Body: &pb.FromProvider_Hello{Hello: &pb.Hello{
		Major: wire.Majors(), Sdk: "go/1", Engine: wire.Clip(r.engine.Name + " " + r.engine.Version),
	}}})
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := r.control.Recv(buf)
		if err != nil {
			return fmt.Errorf("wait for welcome: %w", err)
		}
		m, err := wire.DecodeToProvider(buf[:n])
		if err != nil {
			return fmt.Errorf("wait for welcome: %w", err)
		}
		switch body := m.Body.(type) {
		case *pb.ToProvider_Refused:
			return fmt.Errorf("platform refused: %s: %s", body.Refused.GetCode(), body.Refused.GetDetail())
		case *pb.ToProvider_Welcome:
			w := body.Welcome
			if !slices.Contains(wire.Majors(), w.GetMajor()) {
				return fmt.Errorf("platform chose protocol version %d, offered %v", w.GetMajor(), wire.Majors())
			}
			r.settings = Settings{
				Provider: w.GetProvider(), Content: w.GetContent(), StateDir: w.GetStateDir(), Values: w.GetSettings(),
			}
			r.minor = w.GetMinor()
			r.heartbeat = max(time.Duration(w.GetHeartbeatMs())*time.Millisecond, 10*time.Millisecond)
			return nil
		}
	}
}

func (r *runner) subscribe() error {
	s := r.engine.Subscription
	m := &pb.Subscribe{
		Generation: 1, SelectPrefix: s.Under, MutePrefix: s.Except, MinSize: s.MinSize, MaxSize: s.MaxSize,
		Access: pb.Access_ACCESS_METADATA, ByActor: s.ByActor, Fresh: s.Fresh,
		AnyType: s.AnyType,
	}
	switch {
	case s.Digest && r.minor >= wire.MinorDigest:
		m.Access = pb.Access_ACCESS_DIGEST
	case s.Content:
		m.Access = pb.Access_ACCESS_DESCRIPTOR
	}
	for _, t := range s.Events {
		m.Events = append(m.Events, pb.EventType(t))
	}
	for _, magic := range s.Magic {
		m.Magic = append(m.Magic, []byte(magic))
	}
	if err := r.tell(&pb.FromProvider{Body: &pb.FromProvider_Subscribe{Subscribe: m}}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// controlLoop serves the control socket: notify events, cancel, reload, drain.
func (r *runner) controlLoop(ctx context.Context) error {
	buf := make([]byte, wire.MaxPacket)
	for {
		n, file, err := r.control.RecvFile(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
		received := time.Now()
		m, err := wire.DecodeToProvider(buf[:n])
		if err != nil {
			closeFile(file)
			return fmt.Errorf("control socket: %w", err)
		}
		switch body := m.Body.(type) {
		case *pb.ToProvider_Event:
			ev := &Event{Event: wire.EventFromProto(body.Event)}
			ev.begin(file, received, wire.StampFromProto(body.Event).Budget)
			if r.engine.Notify != nil && ev.Type.Valid() {
				r.engine.Notify(ev)
			}
			ev.end()
			r.processed.Add(1)
		case *pb.ToProvider_Cancel:
			for _, w := range r.workers {
				w.ev.stop(body.Cancel.GetId())
			}
		case *pb.ToProvider_Reload:
			r.reload(ctx)
		case *pb.ToProvider_Refused:
			closeFile(file)
			return fmt.Errorf("platform refused: %s: %s", body.Refused.GetCode(), body.Refused.GetDetail())
		case *pb.ToProvider_Drain:
			r.draining.Store(true)
			// What is queued is still answered; then the workers see the end of the stream, and serve returns.
			r.auth.ShutdownRead()
		}
		closeFile(file)
	}
}

func (r *runner) reload(ctx context.Context) {
	if r.engine.Load == nil {
		return
	}
	content, err := r.engine.Load(ctx, r.settings)
	if err != nil {
		why := "reload: " + err.Error()
		r.degraded.Store(&why)
	} else {
		r.content.Store(&content)
		r.degraded.Store(nil)
	}
	r.sendHeartbeat()
}

func (r *runner) beat(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		r.sendHeartbeat()
		timer.Reset(beat.Next(r.heartbeat)) // with all others, so that the core wakes up once
	}
}

func (r *runner) sendHeartbeat() {
	r.beating.Lock()
	defer r.beating.Unlock()
	content, detail := *r.content.Load(), ""
	if why := r.degraded.Load(); why != nil {
		detail = *why
	}
	if detail == "" && r.engine.Check != nil {
		if err := r.engine.Check(); err != nil {
			detail = err.Error()
		}
	}
	state := pb.State_STATE_READY
	if detail != "" {
		state = pb.State_STATE_DEGRADED
	}
	// A send that fails means that the platform has gone, which the loops notice.
	_ = r.tell(&pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: &pb.Heartbeat{
		Processed: r.processed.Load(), State: state, Detail: wire.Clip(detail), Content: wire.Clip(content),
	}}})
}

func (r *runner) tell(m *pb.FromProvider) error {
	out, err := wire.Encode(nil, m)
	if err != nil {
		return err
	}
	return r.control.SendWait(out, -1)
}

// descriptor reads at an offset, without the file position that all holders of a passed descriptor share.
type descriptor int

func (d descriptor) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(int(d), p[done:], off+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("pread: %w", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func closeFile(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// compile-time check that the enum numbers agree with the wire.
var _ = [1]struct{}{}[int(event.Delete)-int(pb.EventType_EVENT_TYPE_DELETE)]
