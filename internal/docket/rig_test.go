package docket_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const patience = 10 * time.Second

// ruling is an administrator.
type ruling struct {
	mode    event.Mode
	quorum  int
	pardons atomic.Bool
	pardon  func(file int, size int64) (string, bool)

	pardoned func(digest string) (string, bool)
}

func (r *ruling) Policy() arbiter.Policy { return arbiter.Policy{Mode: r.mode, Quorum: r.quorum} }
func (r *ruling) Pardons() bool          { return r.pardons.Load() }
func (r *ruling) Pardon(file int, size int64) (string, bool) {
	return r.pardon(file, size)
}

func (r *ruling) Pardoned(digest string) (string, bool) {
	if r.pardoned == nil {
		return "", false
	}
	return r.pardoned(digest)
}
func (r *ruling) Digest(int, int64) string { return "" }

// kernel counts the answers to each question, by event id.
type kernel struct {
	mu      sync.Mutex
	answers map[uint64][]bool
}

// caller is what one question answers to.
type caller struct {
	k  *kernel
	id uint64
}

func (c caller) Answer(_ int, allow bool) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.k.answers[c.id] = append(c.k.answers[c.id], allow)
	return nil
}

func (k *kernel) of(id uint64) []bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]bool(nil), k.answers[id]...)
}

func (k *kernel) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.answers)
}

// trail keeps the records.
type trail struct {
	mu   sync.Mutex
	list []event.Record
}

func (t *trail) Record(rec event.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, rec)
}

func (t *trail) records() []event.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]event.Record(nil), t.list...)
}

// rig is a docket with everything around it.
type rig struct {
	t      testing.TB
	d      *docket.Docket
	ruling *ruling
	kernel *kernel
	trail  *trail
	pins   *pins
	keeper sensor.Keeper
	id     atomic.Uint64
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		t: t, ruling: &ruling{mode: event.Enforce}, kernel: &kernel{answers: map[uint64][]bool{}}, trail: &trail{},
		pins: &pins{},
	}
	r.keeper = r.pins
	r.d = docket.New(r.ruling, r.trail, r.pins, func() {})
	t.Cleanup(r.d.Close)
	return r
}

// peer is a provider with one session. It must be made before the members are set.
type peer struct {
	*docket.Member
	r           *rig
	script      func(ev *pb.Event, file int) (pb.Action, bool)
	auth        *wire.Conn
	control     *wire.Conn
	subscribed  chan struct{}
	asked       atomic.Int64
	receiving   sync.WaitGroup
	wrongFile   atomic.Int64 // descriptors that were not the event's object
	credit      uint32       // 0: plenty
	poor        bool         // no credit at all
	access      pb.Access
	types       []pb.EventType
	byActor     bool
	fresh       bool
	anyType     bool
	prefix      string // it looks at what is below, or everywhere
	magic       [][]byte
	minSize     uint64
	maxSize     uint64 // 0: no bound
	lean        bool   // it allows everything, and allocates nothing
	onSubscribe sync.Once
}

// Hello implements session.Sink.
func (*peer) Hello(*session.Session, string) {}

// Subscribed implements session.Sink.
func (p *peer) Subscribed(*session.Session) { p.onSubscribe.Do(func() { close(p.subscribed) }) }

// Voted implements session.Sink.
func (p *peer) Voted(s *session.Session, id uint64, v event.Vote, reason event.Reason) {
	p.r.d.Voted(s, id, v, reason)
}

// Beat implements session.Sink.
func (*peer) Beat(*session.Session, session.Beat) {}

// Ended implements session.Sink.
func (p *peer) Ended(s *session.Session, _ error) { p.r.d.Ended(s) }

// answering makes a script that always gives the same answer.
func answering(a pb.Action) func(*pb.Event, int) (pb.Action, bool) {
	return func(*pb.Event, int) (pb.Action, bool) { return a, true }
}

// silent is the script of a provider that hangs.
func silent(*pb.Event, int) (pb.Action, bool) { return 0, false }

// join starts the peer's session and waits for its subscription.
func (p *peer) join(r *rig, name string) *peer {
	r.t.Helper()
	p.r, p.subscribed = r, make(chan struct{})
	if p.Member == nil {
		p.Member = &docket.Member{}
	}
	if p.Mode == "" {
		p.Mode = event.Enforce
	}
	if p.Metadata == 0 {
		p.Metadata, p.Content = time.Minute, time.Minute
	}
	if p.types == nil {
		p.types = []pb.EventType{pb.EventType_EVENT_TYPE_OPEN, pb.EventType_EVENT_TYPE_EXEC}
	}
	if p.credit == 0 {
		p.credit = 1 << 20
	}
	if p.poor {
		p.credit = 0
	}
	p.Latency = docket.NewLatency()
	auth, theirAuth := pair(r.t)
	control, theirControl := pair(r.t)
	p.auth, p.control = theirAuth, theirControl
	types := map[event.Type]bool{}
	for _, t := range event.Types() {
		types[t] = true
	}
	p.Session = session.Start(session.Config{
		Provider: name, Auth: auth, Control: control, Sink: p, Welcome: &pb.Welcome{Credit: p.credit},
		Allowed: session.Grant{Types: types, Descriptor: true},
	})
	p.receiving.Go(p.receive)
	p.receiving.Go(func() { drain(theirControl) })
	r.t.Cleanup(func() {
		p.Session.End(nil)
		p.Session.Wait()
		for _, c := range []*wire.Conn{theirAuth, theirControl} {
			c.Shutdown()
		}
		p.receiving.Wait()
		for _, c := range []*wire.Conn{auth, control, theirAuth, theirControl} {
			_ = c.Close()
		}
	})
	for _, m := range []*pb.FromProvider{
		{Body: &pb.FromProvider_Hello{Hello: &pb.Hello{Major: []uint32{wire.Major}}}},
		{Body: &pb.FromProvider_Subscribe{Subscribe: p.subscription()}},
	} {
		send(r.t, theirControl, m)
	}
	select {
	case <-p.subscribed:
	case <-time.After(patience):
		r.t.Fatal("no subscription")
	}
	return p
}

func (p *peer) subscription() *pb.Subscribe {
	m := &pb.Subscribe{Events: p.types, Access: p.access, ByActor: p.byActor, Fresh: p.fresh, Magic: p.magic}
	m.MinSize, m.MaxSize, m.AnyType = p.minSize, p.maxSize, p.anyType
	if p.prefix != "" {
		m.SelectPrefix = []string{p.prefix}
	}
	return m
}

func pair(t testing.TB) (ours, theirs *wire.Conn) {
	t.Helper()
	ours, end, err := wire.Pair(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(end.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = wire.NewConn(fd)
	if err := errors.Join(err, end.Close()); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func send(t testing.TB, c *wire.Conn, m *pb.FromProvider) {
	b, err := wire.Encode(nil, m)
	if err != nil {
		t.Error(err)
	}
	_ = c.SendWait(b, -1) // an error means that the session has ended
}

func drain(c *wire.Conn) {
	buf := make([]byte, wire.MaxPacket)
	for {
		if _, err := c.Recv(buf); err != nil {
			return
		}
	}
}

// receiveLean allows events.
func (p *peer) receiveLean() {
	r := wire.NewReceiver(p.auth, true, false)
	buf, out := make([]byte, wire.MaxPacket), make([]byte, 0, wire.MaxPacket)
	var ev event.Event
	var text wire.Text
	for {
		n, file, err := r.Recv(buf)
		if err != nil {
			return
		}
		if file >= 0 {
			_ = unix.Close(file)
		}
		if _, ok := wire.ParseEvent(buf[:n], &ev, &text); !ok {
			p.r.t.Error("not an event")
			return
		}
		out = wire.AppendVote(out[:0], ev.ID, event.Vote{Action: event.Allow, Confidence: event.Certain})
		if p.auth.SendWait(out, -1) != nil {
			return
		}
	}
}

// receive answers events by the script.
func (p *peer) receive() {
	if p.lean {
		p.receiveLean()
		return
	}
	buf := make([]byte, wire.MaxPacket)
	for {
		n, file, err := p.auth.RecvFile(buf)
		if err != nil {
			return
		}
		m, err := wire.DecodeToProvider(buf[:n])
		if err != nil {
			p.r.t.Error(err)
			return
		}
		ev := m.GetEvent()
		p.asked.Add(1)
		if file >= 0 {
			var st unix.Stat_t
			if unix.Fstat(file, &st) != nil || st.Ino != ev.GetFile().GetIno() {
				p.wrongFile.Add(1)
			}
		}
		action, votes := p.script(ev, file)
		if file >= 0 {
			_ = unix.Close(file)
		}
		if votes {
			send(p.r.t, p.auth, &pb.FromProvider{Body: &pb.FromProvider_Vote{
				Vote: &pb.Vote{Id: ev.GetId(), Action: action, Rule: "rule"},
			}})
		}
	}
}

// members puts the peers on the panel.
func (r *rig) members(peers ...*peer) {
	var list []*docket.Member
	for _, p := range peers {
		list = append(list, p.Member)
	}
	r.d.SetMembers(list)
}

// question makes a question about an object without a descriptor; equal names are the same object.
func (r *rig) question(name string) *sensor.Question {
	ev := event.Event{ID: r.id.Add(1), Type: event.Open, Time: time.Now()}
	ev.File.Path, ev.File.Handle = name, name
	return sensor.NewQuestion(ev, -1, caller{r.kernel, ev.ID}, r.keeper)
}

// object is question about an object with a descriptor of its own.
func (r *rig) object(name string) *sensor.Question {
	r.t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		r.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		r.t.Fatal(err)
	}
	q := r.question(name)
	q.File, q.Event.File.Ino = fd, st.Ino
	q.Event.File.Version = q.Version()
	return q
}

func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return
		}
	}
	r.t.Fatalf("waited in vain until %s: %+v", what, r.d.Totals())
}

// judge asks and waits for the answer.
func (r *rig) judge(q *sensor.Question) bool {
	r.t.Helper()
	id := q.Event.ID
	r.d.Judge(q)
	r.until("there is an answer", func() bool { return len(r.kernel.of(id)) > 0 })
	return r.kernel.of(id)[0]
}

// verdict waits for the record of an event.
func (r *rig) verdict(id uint64) event.Verdict {
	r.t.Helper()
	var found *event.Verdict
	r.until("there is a record", func() bool {
		for _, rec := range r.trail.records() {
			if rec.Event.ID == id {
				found = &rec.Verdict
			}
		}
		return found != nil
	})
	return *found
}

// exactlyOnce checks that each of the first n questions was answered once.
func (r *rig) exactlyOnce(n int) {
	r.t.Helper()
	for id := range uint64(n) {
		if got := r.kernel.of(id + 1); len(got) != 1 {
			r.t.Errorf("question %d of %d was answered %d times", id+1, n, len(got))
		}
	}
}

// given is how many questions the totals account for.
func given(t docket.Totals) uint64 {
	return t.Allowed + t.Denied + t.Timeout + t.Unavailable + t.Unmatched
}
