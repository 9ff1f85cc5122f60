package session

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const patience = 10 * time.Second

// rig is a session and the provider's ends of its sockets.
type rig struct {
	t             testing.TB
	s             *Session
	sink          *sink
	auth, control *wire.Conn // the provider's
	said          chan *pb.ToProvider
}

// sink keeps what the session reports.
type sink struct {
	mu         sync.Mutex
	engine     string
	subscribed int
	votes      []voted
	beats      []Beat
	ended      chan error
}

type voted struct {
	id     uint64
	vote   event.Vote
	reason event.Reason
}

func (k *sink) Hello(_ *Session, engine string) { k.with(func() { k.engine = engine }) }
func (k *sink) Subscribed(*Session)             { k.with(func() { k.subscribed++ }) }
func (k *sink) Beat(_ *Session, b Beat)         { k.with(func() { k.beats = append(k.beats, b) }) }
func (k *sink) Ended(_ *Session, err error)     { k.ended <- err }
func (k *sink) Voted(_ *Session, id uint64, v event.Vote, r event.Reason) {
	k.with(func() { k.votes = append(k.votes, voted{id, v, r}) })
}

func (k *sink) with(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// newRig starts a session whose provider has said nothing yet and reads only its control socket.
func newRig(t testing.TB, credit uint32) *rig {
	t.Helper()
	k := &sink{ended: make(chan error, 2)}
	return newRigFor(t, credit, k, k)
}

// newRigFor is newRig with another sink; k is what the rig looks at.
func newRigFor(t testing.TB, credit uint32, k *sink, to Sink) *rig {
	t.Helper()
	ours, theirs := pair(t)
	oursControl, theirsControl := pair(t)
	r := &rig{
		t: t, sink: k, auth: theirs, control: theirsControl,
		said: make(chan *pb.ToProvider, 8192),
	}
	r.s = Start(Config{
		Provider: "p", Auth: ours, Control: oursControl, Sink: to,
		Welcome: &pb.Welcome{Provider: "p", Credit: credit},
		Allowed: Grant{Types: map[event.Type]bool{event.Open: true, event.Create: true}},
	})
	listening := make(chan struct{})
	go func() { r.listen(); close(listening) }()
	t.Cleanup(func() {
		r.s.End(nil)
		r.s.Wait()
		for _, c := range []*wire.Conn{r.auth, r.control} {
			c.Shutdown()
		}
		<-listening
		for _, c := range []*wire.Conn{ours, oursControl, r.auth, r.control} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func pair(t testing.TB) (ours, theirs *wire.Conn) {
	t.Helper()
	ours, end, err := wire.Pair(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	return ours, conn(t, end)
}

// conn takes the descriptor out of the file that would close it.
func conn(t testing.TB, end *os.File) *wire.Conn {
	t.Helper()
	fd, err := unix.FcntlInt(end.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) listen() {
	defer close(r.said)
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := r.control.Recv(buf)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.t.Error(err)
			}
			return
		}
		m, err := wire.DecodeToProvider(buf[:n])
		if err != nil {
			r.t.Error(err)
			return
		}
		r.said <- m
	}
}

// next returns the next packet on the control socket, or nil when that has ended.
func (r *rig) next() *pb.ToProvider {
	r.t.Helper()
	select {
	case m := <-r.said:
		return m
	case <-time.After(patience):
		r.t.Fatal("the session says nothing")
		return nil
	}
}

func (r *rig) say(c *wire.Conn, m *pb.FromProvider) {
	r.t.Helper()
	b, err := wire.Encode(nil, m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.raw(c, b)
}

func (r *rig) raw(c *wire.Conn, b []byte) {
	r.t.Helper()
	if err := c.SendWait(b, -1); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) hello(majors ...uint32) {
	r.t.Helper()
	r.say(r.control, &pb.FromProvider{Body: &pb.FromProvider_Hello{
		Hello: &pb.Hello{Major: majors, Engine: "e 1"},
	}})
}

func (r *rig) subscribe(m *pb.Subscribe) {
	r.t.Helper()
	r.say(r.control, &pb.FromProvider{Body: &pb.FromProvider_Subscribe{Subscribe: m}})
}

func (r *rig) vote(id uint64, action pb.Action) {
	r.t.Helper()
	r.say(r.auth, &pb.FromProvider{Body: &pb.FromProvider_Vote{Vote: &pb.Vote{Id: id, Action: action}}})
}

// ready does the handshake and subscribes to opens.
func ready(t testing.TB, credit uint32) *rig {
	t.Helper()
	return readied(newRig(t, credit))
}

// readied does the same for a rig that has begun.
func readied(r *rig) *rig {
	t := r.t
	t.Helper()
	r.hello(wire.Major)
	if r.next().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	r.subscribe(&pb.Subscribe{Generation: 7, Events: []pb.EventType{pb.EventType_EVENT_TYPE_OPEN}})
	if got := r.next().GetSubscribed().GetGeneration(); got != 7 {
		t.Fatalf("subscribed generation %d, want 7", got)
	}
	return r
}

// receive reads one event from the auth socket.
func (r *rig) receive() *pb.Event {
	r.t.Helper()
	buf := make([]byte, wire.MaxPacket)
	n, err := r.auth.Recv(buf)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := wire.DecodeToProvider(buf[:n])
	if err != nil {
		r.t.Fatal(err)
	}
	return m.GetEvent()
}

func (r *rig) ended() error {
	r.t.Helper()
	select {
	case err := <-r.sink.ended:
		return err
	case <-time.After(patience):
		r.t.Fatal("the session did not end")
		return nil
	}
}

func (r *rig) until(what string, cond func(c Counters) bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond(r.s.Counters()) {
			return
		}
	}
	r.t.Fatalf("waited in vain until %s: %+v", what, r.s.Counters())
}

func openEvent(id uint64) *event.Event {
	return &event.Event{ID: id, Type: event.Open, Time: time.Now()}
}

func (r *rig) deliver(id uint64) error {
	return r.s.Deliver(event.Open, openEvent(id), time.Second, -1)
}

func reconcile(t interface{ Errorf(string, ...any) }, c Counters) {
	if c.Delivered != c.Answered+c.Late+c.Bypassed+c.Pending {
		t.Errorf("delivered is not answered + late + bypassed + pending: %+v", c)
	}
}
