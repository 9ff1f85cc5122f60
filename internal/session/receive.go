package session

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

var errVersion = errors.New("no common protocol version")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", wire.ErrProtocol, fmt.Sprintf(format, args...))
}

// receiveControl reads the control socket until it ends or the provider breaks the protocol.
func (s *Session) receiveControl() {
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := s.control.Recv(buf)
		var m *pb.FromProvider
		if err == nil {
			m, err = wire.DecodeFromProvider(buf[:n])
		}
		if err == nil {
			err = s.onControl(m)
		}
		if err != nil {
			s.stop(err)
			return
		}
	}
}

// slots is how many sessions are eager at one time, at most: there are no more providers.
const slots = 16

// receiveVotes reads the auth socket until it ends or the provider breaks the protocol. It keeps its thread, so that
// the kernel wakes it directly.
func (s *Session) receiveVotes() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := newBallotBox(s, wire.SlotsToSpare(slots))
	for {
		n, _, err := b.from.Recv(b.buf)
		if err == nil {
			err = b.open(s, n)
		}
		if err != nil {
			s.stop(err)
			return
		}
	}
}

// Collect takes a vote, if one is there, and hands it to the sink, as the receiver would have: it is for who is awake
// already. It never waits, and does nothing while somebody else collects.
func (s *Session) Collect() {
	if !s.collecting.TryLock() {
		return
	}
	defer s.collecting.Unlock()
	b := s.box
	n, _, err := b.from.Try(b.buf)
	if err == nil {
		err = b.open(s, n)
	}
	if err != nil && !errors.Is(err, wire.ErrQuiet) && !errors.Is(err, io.EOF) { // the receiver sees the end, too
		s.stop(err)
	}
}

// ballotBox is what one goroutine needs to take votes. It allocates only for texts that it has not just seen.
type ballotBox struct {
	from          *wire.Receiver
	buf           []byte
	raw           wire.RawVote
	rule, content lastText
}

func newBallotBox(s *Session, eager bool) *ballotBox {
	return &ballotBox{from: wire.NewReceiver(s.auth, false, eager), buf: make([]byte, wire.MaxPacket)}
}

// open takes the packet of n bytes in the buffer.
func (b *ballotBox) open(s *Session, n int) error {
	if !wire.ParseVote(b.buf[:n], &b.raw) {
		return s.onAuth(b.buf[:n])
	}
	vote, known := b.raw.Vote()
	vote.Rule, vote.Content = b.rule.clip(b.raw.Rule), b.content.clip(b.raw.Content)
	return s.onVote(b.raw.ID, vote, known)
}

// lastText remembers one text, because a provider says mostly the same.
type lastText struct{ raw, clipped string }

func (l *lastText) clip(b []byte) string {
	if string(b) != l.raw {
		l.raw = string(b)
		l.clipped = wire.Clip(l.raw)
	}
	return l.clipped
}

// stop ends the session because of err: io.EOF is an end without a reason.
func (s *Session) stop(err error) {
	if errors.Is(err, io.EOF) {
		s.End(nil)
		return
	}
	if errors.Is(err, wire.ErrTooLong) {
		err = violation("packet over %d bytes", wire.MaxPacket)
	}
	s.refuse(err)
	s.End(err)
}

// refuse tells the provider why, as far as it still listens.
func (s *Session) refuse(err error) {
	code := "protocol"
	if errors.Is(err, errVersion) {
		code = "version"
	}
	_ = s.tell(&pb.ToProvider{Body: &pb.ToProvider_Refused{Refused: &pb.Refused{
		Code: code, Detail: wire.Clip(err.Error()),
	}}})
}

// onAuth takes a packet from the auth socket that is not plainly a vote: only votes belong there.
func (s *Session) onAuth(packet []byte) error {
	m, err := wire.DecodeFromProvider(packet)
	if err != nil {
		return fmt.Errorf("auth socket: %w", err)
	}
	v := m.GetVote()
	if v == nil {
		return violation("%T on the auth socket", m.Body)
	}
	vote, known := wire.VoteFromProto(v)
	return s.onVote(v.GetId(), vote, known)
}

// onVote takes a vote; known is false where its action is not one of ours.
func (s *Session) onVote(id uint64, vote event.Vote, known bool) error {
	if f := s.filter.Load(); vote.Action == event.Read && (f == nil || !f.Digest || !s.allowed.Descriptor) {
		vote.Action, known = event.Abstain, false // it has no right to ask
	}
	s.mu.Lock()
	if s.ended { // what was on its way is given up already, and no mistake of the provider
		s.mu.Unlock()
		return nil
	}
	wanted := s.ledger.vote(id)
	unknown := s.ledger.count.Unknown
	if !known {
		s.ledger.count.Undecodable++
	}
	s.mu.Unlock()
	if unknown >= maxUnknownVotes {
		return violation("%d votes on events never delivered", unknown)
	}
	if !wanted {
		return nil
	}
	var reason event.Reason
	if !known {
		reason = event.ReasonUndecoded
	}
	s.sink.Voted(s, id, vote, reason)
	return nil
}

// Control packets are few: a heartbeat now and then. More than this is a flood, and each costs us more than them.
const (
	controlWindow = 5 * time.Second
	maxControl    = 100 // in one window
)

// onControl takes a packet from the control socket.
func (s *Session) onControl(m *pb.FromProvider) error {
	if now := time.Now(); now.Sub(s.window) > controlWindow {
		s.window, s.inWindow = now, 0
	}
	if m.GetMute() == nil { // mutes are bounded by themselves, and cost next to nothing
		s.inWindow++
	}
	if s.inWindow > maxControl {
		return violation("over %d control packets in %v", maxControl, controlWindow)
	}
	if hello := m.GetHello(); hello != nil {
		return s.hello(hello)
	}
	if s.welcome.GetMajor() == 0 {
		return violation("%T before hello", m.Body)
	}
	switch body := m.Body.(type) {
	case *pb.FromProvider_Subscribe:
		return s.subscribe(body.Subscribe)
	case *pb.FromProvider_Heartbeat:
		h := body.Heartbeat
		s.sink.Beat(s, Beat{
			Processed: h.GetProcessed(), Degraded: h.GetState() == pb.State_STATE_DEGRADED,
			Detail: wire.Clip(h.GetDetail()), Content: wire.Clip(h.GetContent()),
		})
	case *pb.FromProvider_Mute:
		if s.mutes.Load() < maxMutes {
			if _, had := s.muted.LoadOrStore(body.Mute.GetActorToken(), struct{}{}); !had {
				s.mutes.Add(1)
			}
		}
	default:
		return violation("%T on the control socket", m.Body)
	}
	return nil
}

// hello chooses the version and answers with the welcome. Only the control receiver reads or writes it.
func (s *Session) hello(h *pb.Hello) error {
	if s.welcome.GetMajor() != 0 {
		return violation("second hello")
	}
	major, ok := wire.Choose(h.GetMajor())
	if !ok {
		return fmt.Errorf("%w: provider speaks %v, platform %v", errVersion, h.GetMajor(), wire.Majors())
	}
	s.welcome.Major, s.welcome.Minor, s.welcome.MaxPacket = major, wire.Minor, wire.MaxPacket
	if err := s.tell(&pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: s.welcome}}); err != nil {
		return fmt.Errorf("welcome: %w", err)
	}
	s.sink.Hello(s, wire.Clip(h.GetEngine()))
	return nil
}

// subscribe replaces the subscription as a whole, after checking it against the grant.
func (s *Session) subscribe(m *pb.Subscribe) error {
	f := newFilter(m)
	for _, t := range f.Types() {
		if !s.allowed.Types[t] {
			return violation("subscribes to %s, which its manifest does not ask for", t)
		}
	}
	if f.Descriptor && !s.allowed.Descriptor {
		return violation("asks for descriptors, which its manifest does not")
	}
	if f.Digest && !s.allowed.digest() {
		return violation("asks for digests, which its manifest does not")
	}
	// In force before it is confirmed: after the confirmation the provider may rely on it.
	s.filter.Store(f)
	s.sink.Subscribed(s)
	err := s.tell(&pb.ToProvider{Body: &pb.ToProvider_Subscribed{
		Subscribed: &pb.Subscribed{Generation: m.GetGeneration()},
	}})
	if err != nil {
		return fmt.Errorf("confirm subscription: %w", err)
	}
	return nil
}
