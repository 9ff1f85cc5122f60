package conformance

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// maxSample bounds a sample that is padded to the subscription's smallest size.
const maxSample = 16 << 20

// hello waits for the first packet.
func (p *Peer) hello(ctx context.Context) error {
	m, auth, err := p.next(ctx, p.cmd.patience())
	switch {
	case err != nil:
		return fmt.Errorf("wait for Hello: %w", err)
	case m == nil:
		return fmt.Errorf("no Hello within %s", p.cmd.patience())
	case auth || m.GetHello() == nil:
		return fmt.Errorf("the first packet is %s, want Hello on the control socket", bodyName(m))
	}
	if _, ok := wire.Choose(m.GetHello().GetMajor()); !ok {
		return fmt.Errorf("offers versions %v, this kit speaks %v", m.GetHello().GetMajor(), wire.Majors())
	}
	return nil
}

// welcome is what the platform answers, for the version this kit speaks.
func (p *Peer) welcome() *pb.Welcome {
	return &pb.Welcome{
		Major: wire.Major, Minor: wire.Minor, Provider: "conformance", Content: p.cmd.Content,
		StateDir: p.cmd.StateDir, Settings: p.cmd.Settings, HeartbeatMs: heartbeatMS, MaxPacket: wire.MaxPacket,
		Credit: creditGiven,
	}
}

// meet shakes hands up to Subscribed; change, if set, alters the Welcome.
func (p *Peer) meet(ctx context.Context, change func(*pb.Welcome)) error {
	if err := p.hello(ctx); err != nil {
		return err
	}
	w := p.welcome()
	if change != nil {
		change(w)
	}
	if err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: w}}); err != nil {
		return err
	}
	p.beatAt = time.Now()
	started := p.beatAt
	for p.subscription == nil {
		if time.Since(started) > p.cmd.patience() {
			return fmt.Errorf("no Subscribe within %s of Welcome", p.cmd.patience())
		}
		m, auth, err := p.next(ctx, silence)
		switch {
		case err != nil:
			return fmt.Errorf("wait for Subscribe: %w", err)
		case m == nil:
			return fmt.Errorf("neither Subscribe nor a Heartbeat for %s after Welcome", silence)
		case auth:
			return errors.New("voted before it subscribed")
		case m.GetSubscribe() != nil:
			p.subscription = m.GetSubscribe()
		case m.GetHeartbeat() == nil:
			return fmt.Errorf("sent %s, want Subscribe or Heartbeat", bodyName(m))
		case m.GetHeartbeat().GetState() != pb.State_STATE_LOADING:
			return fmt.Errorf("is %s before it subscribed, want STATE_LOADING", m.GetHeartbeat().GetState())
		}
	}
	return p.tell(&pb.ToProvider{Body: &pb.ToProvider_Subscribed{
		Subscribed: &pb.Subscribed{Generation: p.subscription.GetGeneration()},
	}})
}

// meetVoter is meet for cases about votes: a provider without auth events has none.
func (p *Peer) meetVoter(ctx context.Context) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	if p.subscribed(true) == 0 {
		return fmt.Errorf("%w: subscribes to no auth event", ErrNotApplicable)
	}
	return nil
}

// subscribed returns the first known auth or notify type of the subscription, or 0.
func (p *Peer) subscribed(auth bool) pb.EventType {
	types := slices.Sorted(slices.Values(p.subscription.GetEvents()))
	for _, t := range types {
		if known := event.Type(t); t > 0 && t <= pb.EventType_EVENT_TYPE_DELETE && known.Auth() == auth {
			return t
		}
	}
	return 0
}

// object is a file that events are about.
type object struct {
	file    *os.File
	content []byte
	meta    *pb.File
}

// sample makes an object with the given content; nil gives content that the subscription selects.
func (p *Peer) sample(content []byte) (*object, error) {
	if content == nil {
		content = p.cmd.Allow
	}
	if content == nil {
		if magics := p.subscription.GetMagic(); len(magics) > 0 {
			content = append(content, magics[0]...)
		}
		content = append(content, "keepout conformance sample\n"...)
		if size := p.subscription.GetMinSize(); size > uint64(len(content)) && size <= maxSample {
			content = append(content, make([]byte, size-uint64(len(content)))...)
		}
	}
	name := filepath.Join(p.dir, fmt.Sprintf("sample-%x", sha256.Sum256(content)))
	if err := os.WriteFile(name, content, 0o600); err != nil {
		return nil, fmt.Errorf("write sample: %w", err)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open sample: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stat sample: %w", err), file.Close())
	}
	under := "/srv"
	if prefixes := p.subscription.GetSelectPrefix(); len(prefixes) > 0 {
		under = prefixes[0]
	}
	o := &object{file: file, content: content, meta: &pb.File{
		Handle: []byte{1, 0, 0, 0, 7}, Size: info.Size(), MtimeNs: info.ModTime().UnixNano(),
		CtimeNs: info.ModTime().UnixNano(), Path: path.Join(under, "keepout-sample"), Mode: 0o100644, Uid: 1000,
	}}
	identify(info, o.meta)
	if p.subscription.GetAccess() != pb.Access_ACCESS_DESCRIPTOR {
		sum := sha256.Sum256(content) // all that such a provider can know of the content
		o.meta.Sha256 = sum[:]
	}
	return o, nil
}

// event makes the next event about an object.
func (p *Peer) event(typ pb.EventType, o *object) *pb.Event {
	p.lastID++
	p.seq[0]++
	return &pb.Event{
		Id: p.lastID, Seq: p.seq[0], Type: typ, BudgetNs: uint64(p.cmd.patience()),
		TimeNs: uint64(time.Now().UnixNano()), File: o.meta,
		Actor: &pb.Process{Pid: 4242, Token: 4242, Ppid: 1, Uid: 1000, Gid: 1000, Comm: "sh"},
	}
}

// deliver sends an auth event, with a descriptor if the subscription asks for one, and expects one vote.
func (p *Peer) deliver(e *pb.Event, o *object) error {
	file := -1
	if p.subscription.GetAccess() == pb.Access_ACCESS_DESCRIPTOR {
		file, e.Descriptor_ = int(o.file.Fd()), true
	}
	if p.subscription.GetAccess() == pb.Access_ACCESS_DIGEST {
		if p.digests == nil {
			p.digests = map[uint64]readable{}
		}
		p.digests[e.GetId()] = readable{e, o.file.Name()}
	}
	return p.deliverRaw(&pb.ToProvider{Body: &pb.ToProvider_Event{Event: e}}, file)
}

// readable is an event that was sent with the digest instead of the descriptor.
type readable struct {
	event *pb.Event
	path  string
}

// again sends such an event with the descriptor, which a provider may ask for once.
func (p *Peer) again(v *pb.Vote) error {
	r, may := p.digests[v.GetId()]
	if !may {
		return fmt.Errorf("asked to read event %d, which it may not", v.GetId())
	}
	delete(p.digests, v.GetId())
	file, err := os.Open(r.path)
	if err != nil {
		return fmt.Errorf("open sample again: %w", err)
	}
	defer file.Close()
	p.seq[0]++
	r.event.Seq, r.event.Descriptor_ = p.seq[0], true
	return p.send(p.auth, &pb.ToProvider{Body: &pb.ToProvider_Event{Event: r.event}}, int(file.Fd()))
}

// deliverRaw sends an auth event as it is, and expects one vote on it.
func (p *Peer) deliverRaw(m *pb.ToProvider, file int) error {
	if p.open == nil {
		p.open = map[uint64]bool{}
	}
	p.open[m.GetEvent().GetId()] = true
	return p.send(p.auth, m, file)
}

// ask delivers n events about an ordinary object at once.
func (p *Peer) ask(n int) error {
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	for range n {
		if err := p.deliver(p.event(p.subscribed(true), o), o); err != nil {
			return err
		}
	}
	return nil
}

// count takes a vote off the list of open questions.
func (p *Peer) count(v *pb.Vote) error {
	open, delivered := p.open[v.GetId()]
	switch {
	case !delivered:
		return fmt.Errorf("voted on event %d, which was not delivered on the auth socket", v.GetId())
	case !open:
		return fmt.Errorf("voted twice on event %d", v.GetId())
	}
	p.open[v.GetId()] = false
	return nil
}

// unanswered returns how many events still lack a vote.
func (p *Peer) unanswered() int {
	n := 0
	for _, open := range p.open {
		if open {
			n++
		}
	}
	return n
}

// answers waits until every delivered event has its vote, and returns the last one.
func (p *Peer) answers(ctx context.Context) (*pb.Vote, error) {
	deadline := time.Now().Add(p.cmd.patience())
	var last *pb.Vote
	for left := p.unanswered(); left > 0; {
		m, _, err := p.next(ctx, time.Until(deadline))
		if err != nil {
			return nil, fmt.Errorf("%d of %d events without a vote: %w", left, len(p.open), err)
		}
		if m == nil {
			return nil, fmt.Errorf("%d of %d events without a vote after %s", left, len(p.open), p.cmd.patience())
		}
		if m.GetVote() != nil {
			if err := p.count(m.GetVote()); err != nil {
				return nil, err
			}
			last = m.GetVote()
			left--
		}
	}
	return last, nil
}

// settled waits for two more heartbeats, in which no further vote may come.
func (p *Peer) settled(ctx context.Context) error {
	for beats := 0; beats < 2; {
		m, _, err := p.next(ctx, silence)
		switch {
		case err != nil:
			return err
		case m == nil:
			return fmt.Errorf("no Heartbeat for %s", silence)
		case m.GetVote() != nil:
			if err := p.count(m.GetVote()); err != nil {
				return err
			}
		case m.GetHeartbeat() != nil:
			beats++
		}
	}
	return nil
}

// alive proves that the program still works: it votes once, and once only, on an ordinary event.
func (p *Peer) alive(ctx context.Context) error {
	if p.subscribed(true) != 0 {
		if err := p.ask(1); err != nil {
			return err
		}
		if _, err := p.answers(ctx); err != nil {
			return err
		}
	}
	return p.settled(ctx)
}
