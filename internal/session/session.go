package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// Sink takes what a session learns. Its methods are called from the session's two receiving goroutines and from
// Collect, and must be quick.
type Sink interface {
	// Hello says that the handshake is done.
	Hello(s *Session, engine string)
	// Subscribed says that the provider is ready; Filter is set from now on. It may be called again.
	Subscribed(s *Session)
	// Voted hands over a vote on a pending event. reason is ReasonUndecoded for a vote that is counted as
	// abstain, and otherwise empty.
	Voted(s *Session, id uint64, vote event.Vote, reason event.Reason)
	// Beat hands over a heartbeat.
	Beat(s *Session, b Beat)
	// Ended says that the session is over, once. err is nil when the provider closed its end.
	Ended(s *Session, err error)
}

// Beat is what a heartbeat says.
type Beat struct {
	Processed uint64
	Degraded  bool
	Detail    string
	Content   string
}

// Config is what a session needs.
type Config struct {
	Provider      string
	Auth, Control *wire.Conn
	Welcome       *pb.Welcome // the versions and limits are filled in by the handshake
	Allowed       Grant
	Sink          Sink
}

// Grant is what the manifest asks for and the administrator allows.
type Grant struct {
	Types      map[event.Type]bool
	Descriptor bool // and the digest
	Digest     bool
}

// digest reports whether the provider may know what the content is.
func (g *Grant) digest() bool { return g.Digest || g.Descriptor }

// Bounds of one session.
const (
	maxUnknownVotes = 64   // ends a session: who answers what it was never asked has lost its way
	senders         = 8    // at one time; beyond that each needs a new buffer
	maxMutes        = 4096 // muted actors; further ones are not muted
)

// Session is one provider's connection. Its methods may be called concurrently.
type Session struct {
	provider string
	auth     *wire.Conn
	control  *wire.Conn
	welcome  *pb.Welcome
	allowed  Grant
	sink     Sink

	filter atomic.Pointer[Filter]
	muted  sync.Map // actor token → struct{}
	mutes  atomic.Int32

	mu     sync.Mutex
	ledger *ledger
	ended  bool
	seq    uint64 // of auth events, dropped ones included
	notes  uint64 // of notify events, lost ones included
	buf    []byte // of packets on the control socket

	buffers chan []byte // for auth events, which are sent without the lock

	collecting sync.Mutex
	box        *ballotBox // for Collect; used with collecting held

	window   time.Time // of the control packets that are counted; the control receiver's alone
	inWindow int

	over      sync.Once
	receivers sync.WaitGroup
}

// Start begins to receive. Preconditions: the sockets are connected and stay open until Wait returns.
func Start(c Config) *Session {
	s := &Session{
		provider: c.Provider, auth: c.Auth, control: c.Control, welcome: c.Welcome, allowed: c.Allowed,
		sink: c.Sink, ledger: newLedger(), buffers: make(chan []byte, senders),
	}
	s.box = newBallotBox(s, false)
	s.receivers.Go(s.receiveControl)
	s.receivers.Go(s.receiveVotes)
	return s
}

// Provider returns the provider's id.
func (s *Session) Provider() string { return s.provider }

// Filter returns the subscription, or nil before there is one.
func (s *Session) Filter() *Filter { return s.filter.Load() }

// MayRead reports whether the provider may have descriptors.
func (s *Session) MayRead() bool { return s.allowed.Descriptor }

// Muted reports whether the provider does not want to hear of this process.
func (s *Session) Muted(actor uint64) bool {
	if s.mutes.Load() == 0 {
		return false
	}
	_, muted := s.muted.Load(actor)
	return muted
}

// Counters returns a snapshot.
func (s *Session) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.count
}

// Errors of Deliver.
var (
	ErrNoCredit = errors.New("provider has no credit left")
	ErrEnded    = errors.New("session has ended")
)

// Deliver sends an auth event as type t, with the descriptor file unless that is negative. It never waits: what
// does not fit is counted as dropped.
//
// The lock is not held while the packet is sent: the kernel may run the provider at once, in the sender's place,
// and its vote would then meet a lock whose holder does not run. So two events that are delivered at the same time
// may arrive in either order.
func (s *Session) Deliver(t event.Type, ev *event.Event, budget time.Duration, file int) error {
	stamp := wire.Stamp{Type: t, Budget: budget, Descriptor: file >= 0, NoDigest: !s.allowed.digest()}
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ErrEnded
	}
	s.seq++
	stamp.Seq, stamp.Dropped = s.seq, s.ledger.count.Dropped+s.ledger.count.Skipped
	if s.ledger.count.Pending >= uint64(s.welcome.GetCredit()) {
		s.ledger.count.Dropped++
		s.mu.Unlock()
		return ErrNoCredit
	}
	s.ledger.delivered(ev.ID)
	s.mu.Unlock()

	buf := s.buffer()
	buf, err := sendEvent(s.auth, buf, ev, stamp, file)
	select {
	case s.buffers <- buf:
	default: // there are enough
	}
	if err != nil {
		s.mu.Lock()
		s.ledger.undelivered(ev.ID)
		s.mu.Unlock()
	}
	return err
}

// buffer returns one for a packet that is sent without the lock.
func (s *Session) buffer() []byte {
	select {
	case buf := <-s.buffers:
		return buf
	default:
		return make([]byte, 0, 1024)
	}
}

// sendEvent encodes an event into buf and sends it. It returns buf, or a larger one in its place.
func sendEvent(c *wire.Conn, buf []byte, ev *event.Event, stamp wire.Stamp, file int) ([]byte, error) {
	out, err := wire.AppendEvent(buf[:0], ev, stamp)
	if err != nil {
		return buf, fmt.Errorf("send: %w", err)
	}
	return out, c.Send(out, file)
}

// Skip counts an auth event that the provider would have been sent if it were not bypassed. It learns of it as of one
// that was dropped.
func (s *Session) Skip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.seq++
		s.ledger.count.Skipped++
	}
}

// Notify sends a notify event on the control socket; what does not fit is counted as lost.
func (s *Session) Notify(ev *event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.notes++
	stamp := wire.Stamp{Type: ev.Type, Seq: s.notes, Dropped: s.ledger.count.Lost}
	var err error
	if s.buf, err = sendEvent(s.control, s.buf, ev, stamp, -1); err != nil {
		s.ledger.count.Lost++
		return
	}
	s.ledger.count.Notified++
}

// GiveUp says that the vote on id is no longer wanted, and why; the provider is told.
func (s *Session) GiveUp(id uint64, reason event.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ledger.settle(id, givenUp) {
		return
	}
	if reason == event.ReasonDeadline {
		s.ledger.count.Late++
	} else {
		s.ledger.count.Bypassed++
	}
	s.buf = wire.AppendCancel(s.buf[:0], id)
	_ = s.control.Send(s.buf, -1) // not being told only costs the provider some work
}

// Drain asks the provider to answer what is pending and to exit.
func (s *Session) Drain() error {
	return s.tell(&pb.ToProvider{Body: &pb.ToProvider_Drain{Drain: &pb.Drain{}}})
}

// End closes the conversation; Sink.Ended follows with err. It may be called more than once.
func (s *Session) End(err error) {
	s.over.Do(func() {
		s.auth.Shutdown()
		s.control.Shutdown()
		s.mu.Lock()
		s.ended = true
		s.ledger.end()
		s.mu.Unlock()
		s.sink.Ended(s, err)
	})
}

// Wait returns when nothing receives any more. Preconditions: End was called or the provider has gone.
func (s *Session) Wait() { s.receivers.Wait() }

func (s *Session) tell(m *pb.ToProvider) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := wire.Encode(s.buf[:0], m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	s.buf = out
	return s.control.Send(out, -1)
}
