package session

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t, 16)
	if r.s.Filter() != nil {
		t.Error("a filter before there is a subscription")
	}
	r.hello(99, wire.Major)
	w := r.next().GetWelcome()
	if w.GetMajor() != wire.Major || w.GetMinor() != wire.Minor || w.GetCredit() != 16 ||
		w.GetMaxPacket() != wire.MaxPacket {
		t.Errorf("welcome %v", w)
	}
	r.subscribe(&pb.Subscribe{Generation: 3, Events: []pb.EventType{pb.EventType_EVENT_TYPE_OPEN, 77}})
	if g := r.next().GetSubscribed().GetGeneration(); g != 3 {
		t.Errorf("generation %d", g)
	}
	r.until("the sink knows", func(Counters) bool {
		r.sink.mu.Lock()
		defer r.sink.mu.Unlock()
		return r.sink.subscribed == 1 && r.sink.engine == "e 1"
	})
	if types := r.s.Filter().Types(); !slices.Equal(types, []event.Type{event.Open}) {
		t.Errorf("types %v", types)
	}
	r.subscribe(&pb.Subscribe{Generation: 4, Events: []pb.EventType{pb.EventType_EVENT_TYPE_CREATE}})
	if g := r.next().GetSubscribed().GetGeneration(); g != 4 {
		t.Errorf("generation %d", g)
	}
	if types := r.s.Filter().Types(); !slices.Equal(types, []event.Type{event.Create}) {
		t.Errorf("the second subscription did not replace the first: %v", types)
	}
	if r.s.Provider() != "p" {
		t.Errorf("provider %q", r.s.Provider())
	}
}

// TestRefused: whoever breaks the protocol is told why and disconnected.
func TestRefused(t *testing.T) {
	const maxFlood = 100 // with the hello one more than a window allows
	t.Parallel()
	hello := &pb.FromProvider{Body: &pb.FromProvider_Hello{Hello: &pb.Hello{Major: []uint32{wire.Major}}}}
	subscribe := func(m *pb.Subscribe) *pb.FromProvider {
		return &pb.FromProvider{Body: &pb.FromProvider_Subscribe{Subscribe: m}}
	}
	vote := &pb.FromProvider{Body: &pb.FromProvider_Vote{Vote: &pb.Vote{Id: 1}}}
	for _, c := range []struct {
		name, code, word string
		do               func(r *rig)
	}{
		{"no common version", "version", "[98 99]", func(r *rig) { r.hello(98, 99) }},
		{"no version", "protocol", "0 versions", func(r *rig) { r.hello() }},
		{"subscribes before hello", "protocol", "before hello", func(r *rig) { r.subscribe(&pb.Subscribe{}) }},
		{"second hello", "protocol", "second hello", func(r *rig) {
			r.say(r.control, hello)
			r.say(r.control, hello)
		}},
		{"vote on the control socket", "protocol", "control socket", func(r *rig) {
			r.say(r.control, hello)
			r.say(r.control, vote)
		}},
		{"hello on the auth socket", "protocol", "auth socket", func(r *rig) { r.say(r.auth, hello) }},
		{"flood of heartbeats", "protocol", "control packets", func(r *rig) {
			r.say(r.control, hello)
			for range maxFlood {
				r.say(r.control, &pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: &pb.Heartbeat{}}})
			}
		}},
		{"type that is not granted", "protocol", "exec", func(r *rig) {
			r.say(r.control, hello)
			r.say(r.control, subscribe(&pb.Subscribe{Events: []pb.EventType{pb.EventType_EVENT_TYPE_EXEC}}))
		}},
		{"descriptor that is not granted", "protocol", "descriptors", func(r *rig) {
			r.say(r.control, hello)
			r.say(r.control, subscribe(&pb.Subscribe{Access: pb.Access_ACCESS_DESCRIPTOR}))
		}},
		{"garbage", "protocol", "not a FromProvider", func(r *rig) { r.raw(r.auth, []byte{0xff, 0xff, 0xff}) }},
		{"garbage on control", "protocol", "not a FromProvider", func(r *rig) {
			r.raw(r.control, []byte("GET / HTTP"))
		}},
		{"too long", "protocol", "65536", func(r *rig) { r.raw(r.auth, make([]byte, wire.MaxPacket+1)) }},
		{"vote without an id", "protocol", "without an id", func(r *rig) { r.vote(0, pb.Action_ACTION_ALLOW) }},
		{"long text", "protocol", "257 bytes", func(r *rig) {
			r.say(r.auth, &pb.FromProvider{Body: &pb.FromProvider_Vote{
				Vote: &pb.Vote{Id: 1, Rule: strings.Repeat("x", 257)},
			}})
		}},
		{"unknown body", "protocol", "does not know", func(r *rig) { r.raw(r.control, []byte{0xfa, 0x01, 0x00}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 16)
			c.do(r)
			err := r.ended()
			if err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("ended with %v, want %q", err, c.word)
			}
			if c.code == "protocol" && !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("%v is no protocol violation", err)
			}
			var refused *pb.Refused
			for m := r.next(); m != nil; m = r.next() {
				refused = m.GetRefused()
			}
			if refused.GetCode() != c.code || !strings.Contains(refused.GetDetail(), c.word) {
				t.Errorf("refused with %v, want %s", refused, c.code)
			}
		})
	}
}

// TestEnd: a provider that goes away has broken nothing, and the end is told once.
func TestEnd(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(r *rig){
		"closes auth":    func(r *rig) { r.auth.Shutdown() },
		"closes control": func(r *rig) { r.control.Shutdown() },
		"empty packet":   func(r *rig) { r.raw(r.auth, nil) },
		"we end it":      func(r *rig) { r.s.End(nil); r.s.End(errors.New("second")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := ready(t, 16)
			if err := r.deliver(1); err != nil {
				t.Fatal(err)
			}
			leave(r)
			if err := r.ended(); err != nil {
				t.Errorf("ended with %v", err)
			}
			r.s.Wait()
			if err := r.deliver(2); !errors.Is(err, ErrEnded) {
				t.Errorf("deliver after the end: %v", err)
			}
			r.s.Notify(&event.Event{Type: event.Create})
			want := Counters{Delivered: 1, Bypassed: 1}
			if c := r.s.Counters(); c != want {
				t.Errorf("%+v, want %+v", c, want)
			}
			select {
			case <-r.sink.ended:
				t.Error("the end was told twice")
			default:
			}
		})
	}
}

func TestVotes(t *testing.T) {
	t.Parallel()
	r := ready(t, 16)
	for id := uint64(1); id <= 4; id++ {
		if err := r.deliver(id); err != nil {
			t.Fatal(err)
		}
		ev := r.receive()
		if ev.GetId() != id || ev.GetSeq() != id || ev.GetBudgetNs() != 1e9 || ev.GetDescriptor_() {
			t.Errorf("event %v", ev)
		}
	}
	r.vote(1, pb.Action_ACTION_DENY)
	r.vote(1, pb.Action_ACTION_ALLOW)
	r.vote(2, 77)
	r.s.GiveUp(3, event.ReasonDeadline)
	r.s.GiveUp(3, event.ReasonDeadline)
	r.s.GiveUp(4, event.ReasonCancelled)
	r.s.GiveUp(99, event.ReasonDeadline)
	r.vote(3, pb.Action_ACTION_ALLOW)
	r.vote(500, pb.Action_ACTION_ALLOW)
	want := Counters{
		Delivered: 4, Answered: 2, Late: 1, Bypassed: 1, DoubleVotes: 1, LateVotes: 1, Unknown: 1, Undecodable: 1,
	}
	r.until("all is counted", func(c Counters) bool { return c == want })
	for _, id := range []uint64{3, 4} {
		if got := r.next().GetCancel().GetId(); got != id {
			t.Errorf("cancel %d, want %d", got, id)
		}
	}
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	if len(r.sink.votes) != 2 || r.sink.votes[0].vote.Action != event.Deny || r.sink.votes[0].reason != "" ||
		r.sink.votes[1].id != 2 || r.sink.votes[1].reason != event.ReasonUndecoded {
		t.Errorf("votes %+v", r.sink.votes)
	}
}

// TestTooManyUnknownVotes: the 64th vote on something that was never asked ends the session.
func TestTooManyUnknownVotes(t *testing.T) {
	t.Parallel()
	r := ready(t, 16)
	for id := range uint64(maxUnknownVotes - 1) {
		r.vote(1000+id, pb.Action_ACTION_ALLOW)
	}
	r.until("all but one are counted", func(c Counters) bool { return c.Unknown == maxUnknownVotes-1 })
	if err := r.deliver(1); err != nil {
		t.Fatalf("ended too early: %v", err)
	}
	r.vote(5000, pb.Action_ACTION_ALLOW)
	if err := r.ended(); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("ended with %v", err)
	}
	reconcile(t, r.s.Counters())
}

func TestCredit(t *testing.T) {
	t.Parallel()
	r := ready(t, 2)
	for id, want := range []error{0: nil, 1: nil, 2: ErrNoCredit, 3: ErrNoCredit} {
		if err := r.deliver(uint64(id + 1)); !errors.Is(err, want) {
			t.Errorf("deliver %d: %v, want %v", id+1, err, want)
		}
	}
	if got, want := r.s.Counters(), (Counters{Delivered: 2, Pending: 2, Dropped: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	r.vote(1, pb.Action_ACTION_ALLOW)
	r.until("there is credit again", func(c Counters) bool { return c.Pending == 1 })
	if err := r.deliver(5); err != nil {
		t.Fatal(err)
	}
	var last *pb.Event
	for range 3 {
		last = r.receive()
	}
	if last.GetId() != 5 || last.GetSeq() != 5 || last.GetDropped() != 2 {
		t.Errorf("the event after the gap: %v", last)
	}
}

// TestSkip: a provider learns of events that passed it by as of those that were dropped.
func TestSkip(t *testing.T) {
	t.Parallel()
	r := ready(t, 8)
	for id := range uint64(2) {
		r.s.Skip()
		if err := r.deliver(id + 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(2) {
		if ev := r.receive(); ev.GetSeq() != 2*(i+1) || ev.GetDropped() != i+1 {
			t.Errorf("event %d: %v", i+1, ev)
		}
	}
	if got, want := r.s.Counters(), (Counters{Delivered: 2, Pending: 2, Skipped: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestPeerDoesNotRead: nothing waits for a provider that does not read; what does not fit is counted.
func TestPeerDoesNotRead(t *testing.T) {
	t.Parallel()
	r := ready(t, 1<<30)
	const n = 5000
	var full uint64
	for id := range uint64(n) {
		switch err := r.deliver(id + 1); {
		case errors.Is(err, wire.ErrFull):
			full++
		case err != nil:
			t.Fatal(err)
		}
	}
	c := r.s.Counters()
	if full == 0 || c.Dropped != full || c.Delivered != n-full || c.Pending != n-full {
		t.Errorf("%d did not fit: %+v", full, c)
	}
	r.s.End(nil)
	reconcile(t, r.s.Counters())
}

func TestNotifyAndControl(t *testing.T) {
	t.Parallel()
	r := ready(t, 16)
	r.s.Notify(&event.Event{ID: 5, Type: event.Create, Name: "n"})
	ev := r.next().GetEvent()
	if ev.GetId() != 5 || ev.GetName() != "n" || ev.GetSeq() != 1 || ev.GetBudgetNs() != 0 {
		t.Errorf("event %v", ev)
	}
	if err := r.s.Drain(); err != nil || r.next().GetDrain() == nil {
		t.Errorf("drain: %v", err)
	}
	if c := r.s.Counters(); c.Notified != 1 || c.Lost != 0 {
		t.Errorf("%+v", c)
	}
	r.say(r.control, &pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: &pb.Heartbeat{
		Processed: 9, State: pb.State_STATE_DEGRADED, Detail: "d\x1b[31m", Content: "c",
	}}})
	r.until("the heartbeat arrives", func(Counters) bool {
		r.sink.mu.Lock()
		defer r.sink.mu.Unlock()
		return len(r.sink.beats) == 1
	})
	b := r.sink.beats[0]
	if b.Processed != 9 || !b.Degraded || strings.Contains(b.Detail, "\x1b") || b.Content != "c" {
		t.Errorf("heartbeat %+v", b)
	}
}

// TestMute: muted actors are bounded, because the provider names them.
func TestMute(t *testing.T) {
	t.Parallel()
	r := ready(t, 16)
	for token := range uint64(maxMutes + 10) {
		r.say(r.control, &pb.FromProvider{Body: &pb.FromProvider_Mute{Mute: &pb.Mute{ActorToken: token + 1}}})
	}
	r.subscribe(&pb.Subscribe{Generation: 8})
	if g := r.next().GetSubscribed().GetGeneration(); g != 8 { // comes after all of them
		t.Fatalf("generation %d", g)
	}
	for token, want := range map[uint64]bool{1: true, maxMutes: true, maxMutes + 1: false, 1 << 40: false} {
		if r.s.Muted(token) != want {
			t.Errorf("muted(%d) = %v", token, !want)
		}
	}
}

// TestCountersReconcile: whatever order events are delivered, voted on and given up in, every one of them is
// accounted for, as a plain model says.
func TestCountersReconcile(t *testing.T) {
	t.Parallel()
	acts := rapid.SampledFrom([]string{"deliver", "deliver", "vote", "vote", "late", "cancel", "skip", "end"})
	rapid.Check(t, func(rt *rapid.T) {
		credit := rapid.Uint32Range(1, 8).Draw(rt, "credit")
		r := ready(t, credit)
		m := model{credit: uint64(credit), fates: map[uint64]fate{}}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			id := rapid.Uint64Range(1, 20).Draw(rt, "id")
			switch acts.Draw(rt, "act") {
			case "deliver":
				if _, known := m.fates[id]; !known { // ids are unique
					m.deliver(rt, id, r.deliver(id))
				}
			case "vote":
				m.vote(id)
				if m.want.Unknown < maxUnknownVotes {
					_ = r.s.onVote(id, event.Vote{Action: event.Allow, Confidence: event.Certain}, true)
				}
			case "late":
				m.giveUp(id, &m.want.Late)
				r.s.GiveUp(id, event.ReasonDeadline)
			case "cancel":
				m.giveUp(id, &m.want.Bypassed)
				r.s.GiveUp(id, event.ReasonCancelled)
			case "skip":
				if !m.ended {
					m.want.Skipped++
				}
				r.s.Skip()
			case "end":
				if rapid.IntRange(0, 5).Draw(rt, "really") == 0 {
					m.end()
					r.s.End(nil)
				}
			}
			got := r.s.Counters()
			reconcile(rt, got)
			if got != m.want {
				rt.Fatalf("%+v, want %+v", got, m.want)
			}
		}
	})
}

// model says in the plainest way what the counters must be.
type model struct {
	credit uint64
	fates  map[uint64]fate
	ended  bool
	want   Counters
}

func (m *model) deliver(t *rapid.T, id uint64, err error) {
	switch {
	case m.ended:
		if !errors.Is(err, ErrEnded) {
			t.Fatalf("deliver after the end: %v", err)
		}
	case m.want.Pending >= m.credit:
		if m.want.Dropped++; !errors.Is(err, ErrNoCredit) {
			t.Fatalf("deliver without credit: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		m.want.Delivered++
		m.want.Pending++
		m.fates[id] = pending
	}
}

func (m *model) vote(id uint64) {
	f, known := m.fates[id]
	switch {
	case m.ended:
	case !known:
		m.want.Unknown++
	case f == pending:
		m.want.Pending--
		m.want.Answered++
		m.fates[id] = answered
	case f == answered:
		m.want.DoubleVotes++
	default:
		m.want.LateVotes++
	}
}

func (m *model) giveUp(id uint64, counter *uint64) {
	if f, known := m.fates[id]; known && f == pending {
		m.want.Pending--
		*counter++
		m.fates[id] = givenUp
	}
}

func (m *model) end() {
	m.ended = true
	m.want.Bypassed += m.want.Pending
	m.want.Pending = 0
	clear(m.fates)
}

// TestCountersReconcileUnderLoad does the same from many goroutines at one time, with a provider that votes.
func TestCountersReconcileUnderLoad(t *testing.T) {
	t.Parallel()
	r := ready(t, 64)
	var provider, platform sync.WaitGroup
	provider.Go(func() {
		buf := make([]byte, wire.MaxPacket)
		for {
			n, err := r.auth.Recv(buf)
			if err != nil {
				return
			}
			m, err := wire.DecodeToProvider(buf[:n])
			if err != nil {
				t.Error(err)
				return
			}
			if id := m.GetEvent().GetId(); id%3 != 0 { // some votes never come
				b, _ := wire.Encode(nil, &pb.FromProvider{Body: &pb.FromProvider_Vote{
					Vote: &pb.Vote{Id: id, Action: pb.Action_ACTION_ALLOW},
				}})
				if r.auth.SendWait(b, -1) != nil {
					return
				}
			}
		}
	})
	const each = 400
	for g := range uint64(8) {
		platform.Go(func() {
			for i := range uint64(each) {
				id := g*each + i + 1
				if r.deliver(id) == nil && i%2 == 0 {
					r.s.GiveUp(id, event.ReasonDeadline)
				}
				reconcile(t, r.s.Counters())
			}
		})
	}
	platform.Wait()
	r.until("the provider has voted", func(c Counters) bool { return c.Answered > 0 })
	r.s.End(nil)
	provider.Wait()
	c := r.s.Counters()
	reconcile(t, c)
	if c.Pending != 0 || c.Delivered+c.Dropped != 8*each || c.Answered == 0 || c.Late == 0 ||
		c.Unknown+c.DoubleVotes+c.Undecodable != 0 {
		t.Errorf("%+v", c)
	}
}
