package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// leakMargin is how many more descriptors a program may have after 500 events: threads and logs come and go.
const leakMargin = 16

// toleranceCases are about what a later platform, or a busy one, may send.
func toleranceCases() []Case {
	return []Case{
		{"unknown-fields", "ignores fields it does not know, in Welcome and in events", unknownFields},
		{"unknown-body", "ignores a packet whose body it does not know", unknownBody},
		{"unknown-event-type", "abstains on an event type it does not know, or ignores it", unknownEventType},
		{"bare-event", "votes on an event that says little about its object", bareEvent},
		{"no-descriptor", "votes on an event that comes without the descriptor it asked for", noDescriptor},
		{"dropped", "takes an event that says others were dropped", dropped},
		{"largest-packet", "takes a packet of 65536 bytes", largestPacket},
		{"descriptor-leak", "closes every descriptor it is given", descriptorLeak},
	}
}

// addUnknown gives a message one field of each wire type that no version has used yet.
func addUnknown(messages ...proto.Message) {
	for _, m := range messages {
		var b []byte
		b = protowire.AppendVarint(protowire.AppendTag(b, 1000, protowire.VarintType), 1<<63)
		b = protowire.AppendBytes(protowire.AppendTag(b, 1001, protowire.BytesType), []byte{0xff, 0})
		b = protowire.AppendFixed32(protowire.AppendTag(b, 1002, protowire.Fixed32Type), 1)
		b = protowire.AppendFixed64(protowire.AppendTag(b, 1003, protowire.Fixed64Type), 1)
		m.ProtoReflect().SetUnknown(b)
	}
}

func unknownFields(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, func(w *pb.Welcome) { w.Minor = 99; addUnknown(w) }); err != nil {
		return err
	}
	if p.subscribed(true) == 0 {
		return p.settled(ctx)
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	e := p.event(p.subscribed(true), o)
	addUnknown(e, e.GetFile(), e.GetActor())
	if err := p.deliver(e, o); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.alive(ctx)
}

func unknownBody(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	m := &pb.ToProvider{}
	addUnknown(m)
	if err := p.tell(m); err != nil {
		return err
	}
	if err := p.send(p.auth, m, -1); err != nil {
		return err
	}
	return p.alive(ctx)
}

func unknownEventType(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	e := p.event(99, o)
	if err := p.deliver(e, o); err != nil {
		return err
	}
	if err := p.ask(1); err != nil {
		return err
	}
	ordinary := p.lastID
	for deadline := time.Now().Add(p.cmd.patience()); p.open[ordinary]; {
		m, _, err := p.next(ctx, time.Until(deadline))
		if err != nil {
			return err
		}
		if m == nil {
			return errors.New("no vote on the ordinary event after it")
		}
		v := m.GetVote()
		if v == nil {
			continue
		}
		if err := p.count(v); err != nil {
			return err
		}
		if v.GetId() == e.GetId() && v.GetAction() != pb.Action_ACTION_ABSTAIN {
			return fmt.Errorf("voted %s on an unknown type, want ACTION_ABSTAIN", v.GetAction())
		}
	}
	return p.settled(ctx)
}

func bareEvent(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	p.lastID++
	p.seq[0]++
	e := &pb.Event{Id: p.lastID, Seq: p.seq[0], Type: p.subscribed(true), BudgetNs: uint64(p.cmd.patience())}
	if err := p.deliverRaw(&pb.ToProvider{Body: &pb.ToProvider_Event{Event: e}}, -1); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.alive(ctx)
}

func noDescriptor(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	if p.subscription.GetAccess() != pb.Access_ACCESS_DESCRIPTOR {
		return fmt.Errorf("%w: asks for no descriptor", ErrNotApplicable)
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	m := &pb.ToProvider{Body: &pb.ToProvider_Event{Event: p.event(p.subscribed(true), o)}}
	if err := p.deliverRaw(m, -1); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.alive(ctx)
}

func dropped(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	e := p.event(p.subscribed(true), o)
	e.Dropped = 1 << 40
	if err := p.deliver(e, o); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.alive(ctx)
}

func largestPacket(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	e := p.event(p.subscribed(true), o)
	e.Descriptor_ = p.subscription.GetAccess() == pb.Access_ACCESS_DESCRIPTOR
	m := &pb.ToProvider{Body: &pb.ToProvider_Event{Event: e}}
	const overhead = 2 + 3 // tag of field 1001, and a length between 16 KiB and 2 MiB
	padding := make([]byte, wire.MaxPacket-overhead-proto.Size(m))
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(
		protowire.AppendTag(nil, 1001, protowire.BytesType), padding))
	if size := proto.Size(m); size != wire.MaxPacket {
		return fmt.Errorf("kit made a packet of %d bytes", size)
	}
	file := -1
	if e.GetDescriptor_() {
		file = int(o.file.Fd())
	}
	if err := p.deliverRaw(m, file); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.alive(ctx)
}

func descriptorLeak(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	if p.subscription.GetAccess() != pb.Access_ACCESS_DESCRIPTOR {
		return fmt.Errorf("%w: asks for no descriptor", ErrNotApplicable)
	}
	if err := p.alive(ctx); err != nil { // opens what it opens once
		return err
	}
	before, err := p.descriptors()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotApplicable, err)
	}
	for range 10 {
		if err := p.ask(50); err != nil {
			return err
		}
		if _, err := p.answers(ctx); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(p.cmd.patience()); ; time.Sleep(time.Millisecond) { // closes may follow votes
		after, err := p.descriptors()
		if err != nil {
			return err
		}
		if after <= before+leakMargin {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("has %d descriptors open after 500 events, %d before", after, before)
		}
	}
}
