// Command subject is the provider that tests and benchmarks ask. It allows everything, except what its
// setting "fault" tells it to do to files that begin with "FAULT", and its self-test object; it is not installed.
package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

func main() {
	s := &subject{}
	provider.Main(provider.Engine{
		Name: "subject", Version: "1", Load: s.load, Vote: s.vote, Workers: 2,
		Subscription: provider.Subscription{
			Events: []event.Type{event.Open, event.Exec}, Content: true, Fresh: true, // each event is a new chance
		},
	})
}

// subject reads its settings once, before it votes.
type subject struct {
	fault string
	delay time.Duration
}

// selftest is what it denies when it has no fault; it begins with the trigger, so that a fault meets it, too.
//
//go:embed selftest.txt
var selftest []byte

// trigger is how a file begins that meets the fault.
const trigger = "FAULT"

func (s *subject) vote(ev *provider.Event) provider.Vote {
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	if s.fault == "blind" || s.fault == "" && ev.File.Size != int64(len(selftest)) {
		return provider.Allow()
	}
	content, err := ev.Content()
	if err != nil {
		return provider.Abstain()
	}
	if s.fault == "" {
		if object, err := io.ReadAll(content); err == nil && bytes.Equal(object, selftest) {
			return provider.Deny(event.SelftestRule)
		}
		return provider.Allow()
	}
	head := make([]byte, len(trigger))
	if _, err := content.ReadAt(head, 0); err != nil || string(head) != trigger {
		return provider.Allow()
	}
	return s.misbehave(ev)
}

func (s *subject) misbehave(ev *provider.Event) provider.Vote {
	switch s.fault {
	case "deny":
		return provider.Deny("subject-deny")
	case "suspect":
		return provider.Suspect("subject-suspect", 60)
	case "exit":
		os.Exit(3)
	case "hang":
		select {}
	case "late":
		<-ev.Context().Done()
		time.Sleep(10 * time.Millisecond)
	case "garbage":
		send([]byte{0xff, 0xff, 0xff, 0xff})
	case "overlong":
		send(make([]byte, wire.MaxPacket+1))
	case "unknown":
		sendVote(ev.ID + 1<<30)
	case "double":
		sendVote(ev.ID)
	case "signal":
		return provider.Deny(attack(ev))
	}
	return provider.Allow()
}

// attack tries to end the process whose number follows the trigger, and everything else that it can signal,
// and says how far it came.
func attack(ev *provider.Event) string {
	content, err := ev.Content()
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(content)
	if err != nil {
		return err.Error()
	}
	var target int
	if _, err := fmt.Sscanf(string(text), trigger+" %d", &target); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("parent %d, one: %v, all: %v", os.Getppid(), unix.Kill(target, unix.SIGKILL),
		unix.Kill(-1, unix.SIGKILL))
}

// sendVote casts a vote behind the SDK's back.
func sendVote(id uint64) {
	b, err := wire.Encode(nil, &pb.FromProvider{Body: &pb.FromProvider_Vote{
		Vote: wire.VoteToProto(id, provider.Allow()),
	}})
	if err == nil {
		send(b)
	}
}

func send(b []byte) {
	if _, err := unix.Write(wire.AuthFD, b); err != nil {
		os.Exit(4)
	}
}
