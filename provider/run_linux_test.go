package provider_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const patience = 10 * time.Second

// platform is the other side of a provider that runs in this process.
type platform struct {
	t             *testing.T
	auth, control *wire.Conn
	votes         chan *pb.Vote
	told          chan *pb.FromProvider // from the control socket
	ended         chan error            // what Run returned
	cancel        context.CancelFunc
}

// begin starts the engine; the handshake is the test's to do.
func begin(t *testing.T, e provider.Engine) *platform {
	t.Helper()
	p := &platform{
		t: t, votes: make(chan *pb.Vote, 1000), told: make(chan *pb.FromProvider, 1000), ended: make(chan error, 1),
	}
	var authFD, controlFD int
	p.auth, authFD = pair(t)
	p.control, controlFD = pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.cancel = cancel
	readers := make(chan struct{}, 2)
	go func() { defer func() { readers <- struct{}{} }(); p.read(p.auth) }()
	go func() { defer func() { readers <- struct{}{} }(); p.read(p.control) }()
	running := make(chan struct{})
	go func() { defer close(running); p.ended <- provider.Run(ctx, e, authFD, controlFD) }()
	t.Cleanup(func() {
		cancel()
		p.auth.Shutdown()
		p.control.Shutdown()
		<-running
		<-readers
		<-readers
		if err := errors.Join(p.auth.Close(), p.control.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func pair(t *testing.T) (ours *wire.Conn, theirs int) {
	t.Helper()
	ours, file, err := wire.Pair(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	theirs, err = unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func (p *platform) read(from *wire.Conn) {
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := from.Recv(buf)
		if err != nil {
			return
		}
		m, err := wire.DecodeFromProvider(buf[:n])
		if err != nil {
			p.t.Errorf("the provider sent: %v", err)
			return
		}
		if v := m.GetVote(); v != nil {
			p.votes <- v
		} else {
			p.told <- m
		}
	}
}

// ready starts the engine and shakes hands; it returns the subscription.
func ready(t *testing.T, e provider.Engine) (*platform, *pb.Subscribe) {
	t.Helper()
	p := begin(t, e)
	p.hello()
	p.welcome()
	s := p.await("Subscribe", func(m *pb.FromProvider) bool { return m.GetSubscribe() != nil }).GetSubscribe()
	p.tell(&pb.ToProvider{Body: &pb.ToProvider_Subscribed{Subscribed: &pb.Subscribed{Generation: 1}}})
	return p, s
}

func (p *platform) hello() *pb.Hello {
	p.t.Helper()
	return p.await("Hello", func(m *pb.FromProvider) bool { return m.GetHello() != nil }).GetHello()
}

func (p *platform) welcome() {
	p.t.Helper()
	p.tell(&pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: &pb.Welcome{
		Major: wire.Major, Provider: "test", Content: "/content", StateDir: "/state", HeartbeatMs: 20,
		Settings: map[string]string{"key": "value"},
	}}})
}

// await takes packets from the control socket until one fits.
func (p *platform) await(what string, fits func(*pb.FromProvider) bool) *pb.FromProvider {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-p.told:
			if fits(m) {
				return m
			}
		case <-timeout:
			p.t.Fatalf("no %s within %s", what, patience)
		}
	}
}

func (p *platform) awaitState(want pb.State) *pb.Heartbeat {
	p.t.Helper()
	return p.await(want.String(), func(m *pb.FromProvider) bool {
		return m.GetHeartbeat() != nil && m.GetHeartbeat().GetState() == want
	}).GetHeartbeat()
}

func (p *platform) vote() *pb.Vote {
	p.t.Helper()
	return within(p.t, "vote", p.votes)
}

func within[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		t.Fatalf("no %s within %s", what, patience)
		panic("not reached")
	}
}

func (p *platform) send(to *wire.Conn, m proto.Message, file int) {
	p.t.Helper()
	packet, err := wire.Encode(nil, m)
	if err == nil {
		err = to.Send(packet, file)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *platform) tell(m *pb.ToProvider) { p.t.Helper(); p.send(p.control, m, -1) }

func (p *platform) ask(e *pb.Event, file int) {
	p.t.Helper()
	p.send(p.auth, &pb.ToProvider{Body: &pb.ToProvider_Event{Event: e}}, file)
}

func allowAll(*provider.Event) provider.Vote { return provider.Allow() }

func engine(vote func(*provider.Event) provider.Vote) provider.Engine {
	return provider.Engine{
		Name: "test", Version: "1", Vote: vote,
		Subscription: provider.Subscription{Events: []event.Type{event.Open}},
	}
}

func TestHandshake(t *testing.T) {
	settings := make(chan provider.Settings, 1)
	e := engine(allowAll)
	e.Subscription = provider.Subscription{
		Events: []event.Type{event.Exec, event.Rename}, Under: []string{"/srv"}, Except: []string{"/srv/x"},
		MinSize: 1, MaxSize: 2, Magic: []string{"\x7fELF", "\xff"}, Content: true, ByActor: true, Fresh: true,
		AnyType: true,
	}
	e.Load = func(_ context.Context, s provider.Settings) (string, error) { settings <- s; return "v1", nil }
	p := begin(t, e)
	if h := p.hello(); h.GetEngine() != "test 1" || len(h.GetMajor()) != 1 || h.GetMajor()[0] != wire.Major {
		t.Errorf("hello %v", h)
	}
	p.welcome()
	s := p.await("Subscribe", func(m *pb.FromProvider) bool { return m.GetSubscribe() != nil }).GetSubscribe()
	want := &pb.Subscribe{
		Generation: 1, Events: []pb.EventType{2, 5}, SelectPrefix: []string{"/srv"}, MutePrefix: []string{"/srv/x"},
		MinSize: 1, MaxSize: 2, Magic: [][]byte{[]byte("\x7fELF"), {0xff}}, Access: pb.Access_ACCESS_DESCRIPTOR,
		ByActor: true, Fresh: true, AnyType: true,
	}
	if !proto.Equal(s, want) {
		t.Errorf("subscribed %v, want %v", s, want)
	}
	if h := p.awaitState(pb.State_STATE_READY); h.GetContent() != "v1" {
		t.Errorf("heartbeat %v, want content v1", h)
	}
	got := within(t, "settings", settings)
	if got.Provider != "test" || got.Content != "/content" || got.StateDir != "/state" ||
		got.Values["key"] != "value" {
		t.Errorf("settings %+v", got)
	}
}

func TestHandshakeFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer *pb.ToProvider
		says   string
	}{
		"refused": {&pb.ToProvider{Body: &pb.ToProvider_Refused{
			Refused: &pb.Refused{Code: "version", Detail: "this platform speaks 99"},
		}}, "version: this platform speaks 99"},
		"other version": {&pb.ToProvider{Body: &pb.ToProvider_Welcome{
			Welcome: &pb.Welcome{Major: 99},
		}}, "version 99"},
	} {
		t.Run(name, func(t *testing.T) {
			p := begin(t, engine(allowAll))
			p.hello()
			p.tell(c.answer)
			if err := within(t, "end of Run", p.ended); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Run returned %v, want an error with %q", err, c.says)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		p := begin(t, engine(allowAll))
		p.hello()
		p.cancel()
		if err := within(t, "end of Run", p.ended); err == nil {
			t.Error("Run returned no error")
		}
	})
}

func TestLoadBeatsMeanwhile(t *testing.T) {
	release := make(chan struct{})
	e := engine(allowAll)
	e.Load = func(context.Context, provider.Settings) (string, error) { <-release; return "v1", nil }
	p := begin(t, e)
	p.hello()
	p.welcome()
	for range 3 {
		m := within(t, "heartbeat", p.told)
		if m.GetHeartbeat().GetState() != pb.State_STATE_LOADING {
			t.Fatalf("while loading: %v", m)
		}
	}
	close(release)
	p.awaitState(pb.State_STATE_READY)
}

func TestLoadFails(t *testing.T) {
	e := engine(allowAll)
	e.Load = func(context.Context, provider.Settings) (string, error) { return "", errors.New("line 3") }
	p := begin(t, e)
	p.hello()
	p.welcome()
	if err := within(t, "end of Run", p.ended); err == nil || !strings.Contains(err.Error(), "load: line 3") {
		t.Errorf("Run returned %v", err)
	}
	p.await("reason", func(m *pb.FromProvider) bool { return m.GetHeartbeat().GetDetail() == "line 3" })
}

func TestLoadEndsWithThePlatform(t *testing.T) {
	e := engine(allowAll)
	e.Load = func(ctx context.Context, _ provider.Settings) (string, error) {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	p := begin(t, e)
	p.hello()
	p.welcome()
	p.control.Shutdown()
	if err := within(t, "end of Run", p.ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v, want context.Canceled", err)
	}
}

func TestVoteReadsContent(t *testing.T) {
	read := make(chan string, 1)
	e := engine(func(ev *provider.Event) provider.Vote {
		content, err := ev.Content()
		if errors.Is(err, provider.ErrNoContent) && ev.FD() == -1 {
			return provider.Suspect("no content", 200)
		}
		text, _ := io.ReadAll(content)
		read <- string(text)
		return provider.Deny("rule\n")
	})
	e.Load = func(context.Context, provider.Settings) (string, error) { return "v7", nil }
	p, _ := ready(t, e)

	path := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 { // twice, because a shared file position would show the second time
		p.ask(&pb.Event{Id: 5, Type: pb.EventType_EVENT_TYPE_OPEN, File: &pb.File{Size: 4}}, int(file.Fd()))
		want := &pb.Vote{Id: 5, Action: pb.Action_ACTION_DENY, Confidence: 100, Rule: "rule?", Content: "v7"}
		if v := p.vote(); !proto.Equal(v, want) {
			t.Errorf("voted %v, want %v", v, want)
		}
		if got := within(t, "content", read); got != "cont" {
			t.Errorf("read %q, want the 4 bytes that the event states", got)
		}
	}
	p.ask(&pb.Event{Id: 6, Type: pb.EventType_EVENT_TYPE_OPEN}, -1)
	if v := p.vote(); v.GetId() != 6 || v.GetConfidence() != 99 || v.GetAction() != pb.Action_ACTION_DENY {
		t.Errorf("without a descriptor: %v, want a denial of 99 %%", v)
	}
}

func TestUnknownEventTypeIsNotTheEngines(t *testing.T) {
	p, _ := ready(t, engine(func(ev *provider.Event) provider.Vote {
		return provider.Deny("asked about " + ev.Type.String())
	}))
	p.ask(&pb.Event{Id: 5, Type: 99}, -1)
	if v := p.vote(); v.GetAction() != pb.Action_ACTION_ABSTAIN || v.GetId() != 5 {
		t.Errorf("voted %v, want to abstain on 5", v)
	}
}

func TestCancelEndsTheContext(t *testing.T) {
	p, _ := ready(t, engine(func(ev *provider.Event) provider.Vote {
		if ev.ID == 1 {
			<-ev.Context().Done()
		}
		return provider.Abstain()
	}))
	p.ask(&pb.Event{Id: 1, Type: pb.EventType_EVENT_TYPE_OPEN, BudgetNs: uint64(time.Hour)}, -1)
	p.ask(&pb.Event{Id: 2, Type: pb.EventType_EVENT_TYPE_OPEN}, -1)
	if v := p.vote(); v.GetId() != 2 {
		t.Fatalf("voted on %d, want 2 to pass 1", v.GetId())
	}
	// Cancel may overtake the event on the other socket, and is ignored then: send it until it takes effect.
	timeout := time.After(patience)
	for {
		p.tell(&pb.ToProvider{Body: &pb.ToProvider_Cancel{Cancel: &pb.Cancel{Id: 1}}})
		select {
		case v := <-p.votes:
			if v.GetId() != 1 {
				t.Errorf("voted on %d, want 1", v.GetId())
			}
			return
		case <-p.told: // a heartbeat: one more try
		case <-timeout:
			t.Fatal("cancel does not end the context")
		}
	}
}

func TestDeadlineEndsTheContext(t *testing.T) {
	left := make(chan time.Duration, 1)
	p, _ := ready(t, engine(func(ev *provider.Event) provider.Vote {
		left <- time.Until(ev.Deadline)
		<-ev.Context().Done()
		return provider.Abstain()
	}))
	budget := 50 * time.Millisecond
	p.ask(&pb.Event{Id: 1, Type: pb.EventType_EVENT_TYPE_OPEN, BudgetNs: uint64(budget)}, -1)
	p.vote()
	if got := <-left; got > budget {
		t.Errorf("deadline in %s, budget %s", got, budget)
	}
}

func TestReloadKeepsTheOldContentOnError(t *testing.T) {
	results := make(chan error, 3)
	versions := []string{"v1", "broken", "v2"}
	e := engine(allowAll)
	e.Load = func(context.Context, provider.Settings) (string, error) {
		version := versions[0]
		versions = versions[1:]
		return version, <-results
	}
	results <- nil
	p, _ := ready(t, e)
	if h := p.awaitState(pb.State_STATE_READY); h.GetContent() != "v1" {
		t.Fatalf("heartbeat %v, want v1", h)
	}
	results <- errors.New("bad line 3\x1b[2J")
	p.tell(&pb.ToProvider{Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}}})
	h := p.awaitState(pb.State_STATE_DEGRADED)
	if h.GetContent() != "v1" || h.GetDetail() != "reload: bad line 3?[2J" {
		t.Errorf("heartbeat %v, want v1 and the reason", h)
	}
	p.ask(&pb.Event{Id: 1, Type: pb.EventType_EVENT_TYPE_OPEN}, -1)
	if v := p.vote(); v.GetContent() != "v1" || v.GetAction() != pb.Action_ACTION_ALLOW {
		t.Errorf("voted %v, want ALLOW with v1", v)
	}
	results <- nil
	p.tell(&pb.ToProvider{Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}}})
	if h := p.awaitState(pb.State_STATE_READY); h.GetContent() != "v2" || h.GetDetail() != "" {
		t.Errorf("heartbeat %v, want v2", h)
	}
}

func TestCheckMakesDegraded(t *testing.T) {
	e := engine(allowAll)
	e.Check = func() error { return errors.New("scanner gone") }
	p, _ := ready(t, e)
	if h := p.awaitState(pb.State_STATE_DEGRADED); h.GetDetail() != "scanner gone" {
		t.Errorf("heartbeat %v", h)
	}
}

func TestNotifyInOrder(t *testing.T) {
	seen := make(chan uint64, 100)
	e := engine(nil)
	e.Notify = func(ev *provider.Event) {
		if ev.Deadline.IsZero() {
			seen <- ev.ID
		}
	}
	p, _ := ready(t, e)
	for id := uint64(1); id <= 50; id++ {
		p.tell(&pb.ToProvider{Body: &pb.ToProvider_Event{Event: &pb.Event{
			Id: id, Type: pb.EventType_EVENT_TYPE_CREATE, BudgetNs: 1,
		}}})
	}
	for id := uint64(1); id <= 50; id++ {
		if got := within(t, "notify event", seen); got != id {
			t.Fatalf("event %d, want %d", got, id)
		}
	}
	p.await("count of 50", func(m *pb.FromProvider) bool { return m.GetHeartbeat().GetProcessed() == 50 })
}

func TestDrainWaitsForVotes(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{}, 100)
	e := engine(func(*provider.Event) provider.Vote {
		started <- struct{}{}
		<-release
		return provider.Allow()
	})
	e.Workers = 2
	p, _ := ready(t, e)
	const asked = 20 // far more than the workers: most of them still wait in the socket
	for id := uint64(1); id <= asked; id++ {
		p.ask(&pb.Event{Id: id, Type: pb.EventType_EVENT_TYPE_OPEN}, -1)
	}
	within(t, "start of a vote", started)
	p.tell(&pb.ToProvider{Body: &pb.ToProvider_Drain{Drain: &pb.Drain{}}})
	late, err := wire.Encode(nil, &pb.ToProvider{Body: &pb.ToProvider_Reload{Reload: &pb.Reload{}}})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; { // drain has begun when the auth socket takes no more
		if err := p.auth.Send(late, -1); errors.Is(err, unix.EPIPE) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("drain does not begin: %v", err)
		}
		within(t, "heartbeat", p.told)
	}
	select {
	case err := <-p.ended:
		t.Fatalf("Run returned %v with votes pending", err)
	default:
	}
	close(release)
	for range asked {
		p.vote()
	}
	if err := within(t, "end of Run", p.ended); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestLostPlatformEndsVotes(t *testing.T) {
	for name, end := range map[string]func(*platform){
		"sockets closed":    func(p *platform) { p.auth.Shutdown(); p.control.Shutdown() },
		"context cancelled": func(p *platform) { p.cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			started := make(chan struct{}, 1)
			p, _ := ready(t, engine(func(ev *provider.Event) provider.Vote {
				started <- struct{}{}
				<-ev.Context().Done()
				return provider.Abstain()
			}))
			p.ask(&pb.Event{Id: 1, Type: pb.EventType_EVENT_TYPE_OPEN}, -1)
			within(t, "start of the vote", started)
			end(p)
			within(t, "end of Run", p.ended) // with an error or not: the vote could not be sent
		})
	}
}

func TestGarbageEndsRun(t *testing.T) {
	for name, to := range map[string]func(*platform) *wire.Conn{
		"auth":    func(p *platform) *wire.Conn { return p.auth },
		"control": func(p *platform) *wire.Conn { return p.control },
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := ready(t, engine(allowAll))
			if err := to(p).Send([]byte("garbage"), -1); err != nil {
				t.Fatal(err)
			}
			if err := within(t, "end of Run", p.ended); !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("Run returned %v, want ErrProtocol", err)
			}
		})
	}
}

func TestRunWithoutAPlatform(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = provider.Run(t.Context(), engine(allowAll), int(file.Fd()), int(file.Fd()))
	if err == nil || !strings.Contains(err.Error(), "started by keepoutd") {
		t.Errorf("Run returned %v", err)
	}
}
