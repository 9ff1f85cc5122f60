package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/event"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// Cases returns every requirement, in the order of docs/protocol.md.
func Cases() []Case {
	return append([]Case{
		{"handshake", "says Hello, subscribes after Welcome, then is ready", handshake},
		{"refused", "exits with an error when the platform refuses it", refused},
		{"unknown-major", "exits with an error when the platform chose a version it did not offer", unknownMajor},
		{"heartbeat", "sends a Heartbeat within 3 intervals, and processed counts what it finished", heartbeat},
		{"vote-deny", "denies the sample it must deny", voteDeny},
		{"vote-allow", "allows the sample it must allow", voteAllow},
		{"selftest", "denies its self-test object, and says that it is one", selftest},
		{"one-vote", "votes exactly once on every auth event", oneVote},
		{"pipelining", "votes on 200 events that come at once", pipelining},
		{"notify", "takes notify events, and never votes on them", notify},
		{"cancel-unknown", "ignores Cancel for an event it does not have", cancelUnknown},
		{"reload", "reloads, also twice in a row, and goes on voting", reload},
		{"drain", "answers everything delivered before Drain, then exits with 0 within 5 s", drain},
		{"closed", "exits within 5 s when the platform closes the sockets", closed},
		{"paused", "continues after it was stopped for a while", paused},
	}, toleranceCases()...)
}

func handshake(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	if p.subscribed(true) == 0 && p.subscribed(false) == 0 {
		return fmt.Errorf("subscribes to no known event type: %v", p.subscription.GetEvents())
	}
	for deadline := time.Now().Add(p.cmd.patience()); time.Now().Before(deadline); {
		m, auth, err := p.next(ctx, silence)
		switch {
		case err != nil:
			return err
		case m == nil:
			return fmt.Errorf("no Heartbeat for %s after Subscribed", silence)
		case auth:
			return errors.New("voted without an event")
		}
		switch m.GetHeartbeat().GetState() {
		case pb.State_STATE_READY, pb.State_STATE_DEGRADED:
			return nil
		case pb.State_STATE_LOADING, pb.State_STATE_UNSPECIFIED:
		}
	}
	return errors.New("never became STATE_READY or STATE_DEGRADED")
}

func refused(ctx context.Context, p *Peer) error {
	if err := p.hello(ctx); err != nil {
		return err
	}
	err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Refused{Refused: &pb.Refused{
		Code: "version", Detail: "this platform speaks version 99",
	}}})
	if err != nil {
		return err
	}
	return p.failedExit(ctx)
}

func unknownMajor(ctx context.Context, p *Peer) error {
	if err := p.hello(ctx); err != nil {
		return err
	}
	w := p.welcome()
	w.Major = 99
	if err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: w}}); err != nil {
		return err
	}
	return p.failedExit(ctx)
}

// failedExit expects the end of the program, with an exit code that says so.
func (p *Peer) failedExit(ctx context.Context) error {
	code, err := p.waitExit(ctx, min(endPatience, p.cmd.patience()))
	if err == nil && code == 0 {
		return errors.New("exited with 0, want another code")
	}
	if err == nil && code < 0 {
		return fmt.Errorf("ended by a signal: %s", p.process.ProcessState)
	}
	return err
}

func heartbeat(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	const wanted = 5 // that many at three intervals each: the grace cannot hide a slower beat over all of them
	started := time.Now()
	for beats := 0; beats < wanted; {
		m, _, err := p.next(ctx, silence)
		switch {
		case err != nil:
			return err
		case m == nil:
			return fmt.Errorf("no Heartbeat for %s, the interval is %s", silence, interval)
		case m.GetHeartbeat() != nil:
			beats++
		}
	}
	if took := time.Since(started); took > wanted*3*interval+grace/2 {
		return fmt.Errorf("%d heartbeats took %s, the interval is %s", wanted, took, interval)
	}
	if p.subscribed(true) == 0 {
		return nil
	}
	return p.processedRises(ctx)
}

// processedRises expects the heartbeats to count the events that were answered.
func (p *Peer) processedRises(ctx context.Context) error {
	const asked = 10
	before := p.beat.GetProcessed()
	if err := p.ask(asked); err != nil {
		return err
	}
	for deadline := time.Now().Add(p.cmd.patience()); p.beat.GetProcessed() < before+asked; {
		m, _, err := p.next(ctx, silence)
		if err != nil {
			return err
		}
		if m == nil || time.Now().After(deadline) {
			return fmt.Errorf("processed is %d after %d events", p.beat.GetProcessed(), asked)
		}
	}
	return nil
}

func voteDeny(ctx context.Context, p *Peer) error {
	return p.voteOn(ctx, p.cmd.Deny, pb.Action_ACTION_DENY)
}

func voteAllow(ctx context.Context, p *Peer) error {
	return p.voteOn(ctx, p.cmd.Allow, pb.Action_ACTION_ALLOW)
}

// selftest asks about the object under the name of a canary.
func selftest(ctx context.Context, p *Peer) error {
	vote, err := p.voteAbout(ctx, p.cmd.Selftest, event.SelftestName+"conformance")
	if err != nil {
		return err
	}
	said := event.Vote{Action: event.Deny, Rule: vote.GetRule()}
	if vote.GetAction() != pb.Action_ACTION_DENY || !said.Selftest() {
		return fmt.Errorf("voted %s with rule %q, want a denial with rule %q", vote.GetAction(), vote.GetRule(),
			event.SelftestRule)
	}
	return nil
}

// voteOn expects one action on one content.
func (p *Peer) voteOn(ctx context.Context, content []byte, want pb.Action) error {
	vote, err := p.voteAbout(ctx, content, "")
	if err == nil && vote.GetAction() != want {
		return fmt.Errorf("voted %s (rule %q), want %s", vote.GetAction(), vote.GetRule(), want)
	}
	return err
}

// voteAbout asks about one content; name, if set, is the file's.
func (p *Peer) voteAbout(ctx context.Context, content []byte, name string) (*pb.Vote, error) {
	if content == nil {
		return nil, fmt.Errorf("%w: Command has no such sample", ErrNotApplicable)
	}
	if err := p.meetVoter(ctx); err != nil {
		return nil, err
	}
	o, err := p.sample(content)
	if err != nil {
		return nil, err
	}
	defer o.file.Close()
	if name != "" {
		o.meta.Path = "/srv/" + name
	}
	if err := p.deliver(p.event(p.subscribed(true), o), o); err != nil {
		return nil, err
	}
	return p.answers(ctx)
}

func oneVote(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	for range 50 {
		if err := p.ask(1); err != nil {
			return err
		}
		if _, err := p.answers(ctx); err != nil {
			return err
		}
	}
	return p.settled(ctx)
}

func pipelining(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	if err := p.ask(200); err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.settled(ctx)
}

func notify(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	typ := p.subscribed(false)
	if typ == 0 {
		return fmt.Errorf("%w: subscribes to no notify event", ErrNotApplicable)
	}
	o, err := p.sample(nil)
	if err != nil {
		return err
	}
	defer o.file.Close()
	before, sent := p.beat.GetProcessed(), uint64(20)
	for range sent {
		p.lastID++
		p.seq[1]++
		err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Event{Event: &pb.Event{
			Id: p.lastID, Seq: p.seq[1], Type: typ, TimeNs: uint64(time.Now().UnixNano()), File: o.meta,
			Name: "old", NewDir: "/srv", NewName: "new",
		}}})
		if err != nil {
			return err
		}
	}
	deadline := time.Now().Add(p.cmd.patience())
	for p.beat.GetProcessed() < before+sent {
		m, auth, err := p.next(ctx, time.Until(deadline))
		switch {
		case err != nil:
			return err
		case m == nil:
			return fmt.Errorf("processed rose by %d after %d notify events", p.beat.GetProcessed()-before, sent)
		case auth:
			return fmt.Errorf("voted on notify event %d", m.GetVote().GetId())
		}
	}
	return p.alive(ctx)
}

func cancelUnknown(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	if err := p.alive(ctx); err != nil {
		return err
	}
	for _, id := range []uint64{p.lastID, 1 << 60, 0} { // answered already, never delivered, not an id
		if err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Cancel{Cancel: &pb.Cancel{Id: id}}}); err != nil {
			return err
		}
	}
	return p.alive(ctx)
}

func reload(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	for range 2 {
		if err := p.tell(&pb.ToProvider{Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}}}); err != nil {
			return err
		}
	}
	return p.alive(ctx)
}

func drain(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	queue := func() error {
		if p.subscribed(true) != 0 {
			if err := p.ask(200); err != nil {
				return err
			}
		}
		return p.tell(&pb.ToProvider{Body: &pb.ToProvider_Drain{Drain: &pb.Drain{}}})
	}
	// A stopped program finds the events and Drain at one time, however fast it is.
	err := p.frozen(queue)
	if errors.Is(err, errors.ErrUnsupported) {
		err = queue()
	}
	if err != nil {
		return err
	}
	code, err := p.waitExit(ctx, min(endPatience, p.cmd.patience()))
	if err != nil {
		return err
	}
	for m := range p.fromAuth { // the stream has ended, so that this ends too
		if err := p.count(m.GetVote()); err != nil {
			return err
		}
	}
	if left := p.unanswered(); left > 0 {
		return fmt.Errorf("exited with %d of %d delivered events without a vote", left, len(p.open))
	}
	if code != 0 {
		return fmt.Errorf("exited with %d, want 0", code)
	}
	return nil
}

func closed(ctx context.Context, p *Peer) error {
	if err := p.meet(ctx, nil); err != nil {
		return err
	}
	p.auth.Shutdown()
	p.control.Shutdown()
	_, err := p.waitExit(ctx, min(endPatience, p.cmd.patience()))
	return err
}

func paused(ctx context.Context, p *Peer) error {
	if err := p.meetVoter(ctx); err != nil {
		return err
	}
	if err := p.alive(ctx); err != nil {
		return err
	}
	err := p.frozen(func() error { return p.ask(20) })
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: cannot stop a process here", ErrNotApplicable)
	}
	if err != nil {
		return err
	}
	if _, err := p.answers(ctx); err != nil {
		return err
	}
	return p.settled(ctx)
}

// frozen calls do while the program is stopped.
func (p *Peer) frozen(do func() error) (err error) {
	if err := p.pause(); err != nil {
		return fmt.Errorf("stop the process: %w", err)
	}
	defer func() {
		if resumed := p.resume(); resumed != nil {
			err = errors.Join(err, fmt.Errorf("continue the process: %w", resumed))
		}
	}()
	for deadline := time.Now().Add(p.cmd.patience()); ; time.Sleep(time.Millisecond) {
		stopped, err := p.stopped()
		if err != nil {
			return err
		}
		if stopped {
			return do()
		}
		if time.Now().After(deadline) {
			return errors.New("does not stop")
		}
	}
}
