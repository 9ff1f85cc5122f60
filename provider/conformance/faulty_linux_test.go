package conformance_test

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// faulty is a provider of its own, without the SDK, that has at most one fault.
type faulty struct {
	role          string
	auth, control *wire.Conn
	processed     atomic.Uint64
	reloads       int
}

// misbehave plays a provider with the named fault on descriptors 3 and 4, until it ends the process.
func misbehave(role string) {
	f := &faulty{role: role}
	if role == "exits" {
		os.Exit(0)
	}
	var err error
	if f.auth, err = wire.NewConn(wire.AuthFD); err != nil {
		f.crash("auth socket: %v", err)
	}
	if f.control, err = wire.NewConn(wire.ControlFD); err != nil {
		f.crash("control socket: %v", err)
	}
	if role == "crashes-after-pause" {
		woken := make(chan os.Signal, 1)
		signal.Notify(woken, syscall.SIGCONT)
		go func() { <-woken; f.crash("woken up") }()
	}
	f.handshake()
	go f.beat()
	var voting sync.WaitGroup
	voting.Go(f.vote)
	f.serve()
	if f.role != "drops-on-drain" {
		voting.Wait()
	}
	if f.role == "drain-exit-1" {
		os.Exit(1)
	}
	os.Exit(0)
}

// is reports whether the provider has this fault.
func (f *faulty) is(role string) bool { return f.role == role }

// crash ends the process with a word on why; a real crash would print more.
func (f *faulty) crash(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(3)
}

func (f *faulty) tell(to *wire.Conn, m proto.Message) {
	packet, err := wire.Encode(nil, m)
	if err == nil {
		err = to.SendWait(packet, -1)
	}
	if err != nil && !f.is("outlives-sockets") {
		f.crash("send: %v", err)
	}
}

func (f *faulty) say(h *pb.Heartbeat) {
	f.tell(f.control, &pb.FromProvider{Body: &pb.FromProvider_Heartbeat{Heartbeat: h}})
}

func (f *faulty) handshake() {
	majors := wire.Majors()
	switch f.role {
	case "wrong-version":
		majors = []uint32{77}
	case "garbage":
		_ = f.control.SendWait([]byte("hello!"), -1)
	}
	f.tell(f.control, &pb.FromProvider{Body: &pb.FromProvider_Hello{Hello: &pb.Hello{Major: majors}}})
	m := f.receive(f.control, wire.MaxPacket)
	switch {
	case m.GetRefused() != nil && f.is("refused-exit-0"):
		os.Exit(0)
	case m.GetRefused() != nil && f.is("ignores-refused"):
		time.Sleep(time.Hour)
	case m.GetWelcome() == nil || m.GetWelcome().GetMajor() != wire.Major && !f.is("any-major"):
		f.crash("no welcome")
	case f.is("crashes-on-unknown-field") && len(m.GetWelcome().ProtoReflect().GetUnknown()) > 0:
		f.crash("unknown field")
	case f.is("votes-early"):
		f.answer(1, pb.Action_ACTION_ALLOW)
		time.Sleep(time.Hour)
	case f.is("ready-early"):
		f.say(&pb.Heartbeat{State: pb.State_STATE_READY})
	}
	s := &pb.Subscribe{
		Generation: 1, Events: []pb.EventType{1, 2, 3, 4, 5, 6}, Access: pb.Access_ACCESS_DESCRIPTOR,
	}
	if f.is("subscribes-to-nothing") {
		s.Events = nil
	}
	f.tell(f.control, &pb.FromProvider{Body: &pb.FromProvider_Subscribe{Subscribe: s}})
}

func (f *faulty) beat() {
	state := pb.State_STATE_READY
	if f.is("never-ready") {
		state = pb.State_STATE_LOADING
	}
	for n := uint64(0); ; n++ {
		processed := f.processed.Load()
		switch f.role {
		case "counts-nothing":
			processed = 0
		case "counts-backwards":
			processed = 1000 - n
		}
		f.say(&pb.Heartbeat{Processed: processed, State: state})
		if f.is("one-heartbeat") {
			return
		}
		if f.is("slow-heartbeat") {
			time.Sleep(900 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// receive waits for a packet; nil means that the stream has ended.
func (f *faulty) receive(from *wire.Conn, size int) *pb.ToProvider {
	buf := make([]byte, size)
	n, err := from.Recv(buf)
	if err != nil {
		if f.is("outlives-sockets") {
			time.Sleep(time.Hour)
		}
		return nil
	}
	m, err := wire.DecodeToProvider(buf[:n])
	if err != nil {
		f.crash("receive: %v", err)
	}
	return m
}

// serve handles the control socket until Drain or the end.
func (f *faulty) serve() {
	for {
		m := f.receive(f.control, wire.MaxPacket)
		switch {
		case m == nil:
			os.Exit(1)
		case m.GetDrain() != nil && !f.is("ignores-drain"):
			f.auth.ShutdownRead()
			return
		case m.GetCancel() != nil && f.is("crashes-on-cancel"):
			f.crash("cancelled")
		case m.GetReload() != nil:
			if f.reloads++; f.reloads == 2 && f.is("crashes-on-second-reload") {
				f.crash("reloaded twice")
			}
		case m.GetEvent() != nil:
			if f.is("votes-on-notify") {
				f.answer(m.GetEvent().GetId(), pb.Action_ACTION_ALLOW)
			}
			f.processed.Add(1)
		}
	}
}

func (f *faulty) answer(id uint64, action pb.Action) {
	vote := &pb.Vote{Id: id, Action: action}
	if action == pb.Action_ACTION_DENY && !f.is("denies-all") {
		vote.Rule = event.SelftestRule
	}
	f.tell(f.auth, &pb.FromProvider{Body: &pb.FromProvider_Vote{Vote: vote}})
}

// vote answers the auth socket until its end.
func (f *faulty) vote() {
	size := wire.MaxPacket
	if f.is("small-buffer") {
		size /= 2
	}
	buf := make([]byte, size)
	for {
		n, file, err := f.auth.RecvFile(buf)
		if err != nil {
			if f.is("small-buffer") {
				f.crash("receive: %v", err)
			}
			return
		}
		m, err := wire.DecodeToProvider(buf[:n])
		if err != nil {
			f.crash("decode: %v", err)
		}
		e := m.GetEvent()
		if e == nil {
			if f.is("crashes-on-unknown-body") {
				f.crash("unknown body")
			}
			continue
		}
		f.crashOn(e, file)
		action := judge(e, file)
		if file >= 0 && !f.is("leaks") {
			_ = syscall.Close(file)
		}
		f.processed.Add(1)
		f.spoil(e.GetId(), action)
	}
}

// judge reads the first bytes, as the good provider does.
func judge(e *pb.Event, file int) pb.Action {
	first := make([]byte, len(selftestObject))
	if file < 0 || e.GetType() > pb.EventType_EVENT_TYPE_DELETE {
		return pb.Action_ACTION_ABSTAIN
	}
	n, _ := syscall.Pread(file, first, 0)
	if text := string(first[:max(n, 0)]); strings.HasPrefix(text, marker) || text == selftestObject {
		return pb.Action_ACTION_DENY
	}
	return pb.Action_ACTION_ALLOW
}

// crashOn is where the faults that do not survive an event are.
func (f *faulty) crashOn(e *pb.Event, file int) {
	for role, happened := range map[string]bool{
		"crashes-on-unknown-field":   len(e.ProtoReflect().GetUnknown()) > 0,
		"crashes-on-unknown-type":    e.GetType() > pb.EventType_EVENT_TYPE_DELETE,
		"crashes-on-bare-event":      e.File == nil || e.Actor == nil,
		"crashes-without-descriptor": file < 0,
		"crashes-on-dropped":         e.GetDropped() > 0,
	} {
		if happened && f.is(role) {
			f.crash("cannot take this event")
		}
	}
}

// spoil sends the vote as the fault wants it.
func (f *faulty) spoil(id uint64, action pb.Action) {
	switch f.role {
	case "never-votes", "drops-on-drain":
	case "votes-twice":
		f.answer(id, action)
		f.answer(id, action)
	case "votes-on-others":
		f.answer(id+1000, action)
	case "loses-some":
		if id%100 != 0 {
			f.answer(id, action)
		}
	case "allows-all":
		f.answer(id, pb.Action_ACTION_ALLOW)
	case "denies-all":
		f.answer(id, pb.Action_ACTION_DENY)
	default:
		f.answer(id, action)
	}
}
