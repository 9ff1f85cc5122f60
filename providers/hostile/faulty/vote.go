package main

import (
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// trigger is how a file begins that meets a fault of a plan with "on marked".
const trigger = "FAULT"

func (f *faulty) vote(ev *provider.Event) provider.Vote {
	p := f.inForce.Load()
	if p == nil {
		return provider.Abstain()
	}
	if p.delay > 0 {
		select {
		case <-time.After(p.delay):
		case <-ev.Context().Done(): // slow, but not deaf: its queue must not make it slower than it says
		}
	}
	if p.fault == "" || !p.every && !marked(ev) {
		return provider.Allow()
	}
	return p.misbehave(ev)
}

func marked(ev *provider.Event) bool {
	content, err := ev.Content()
	if err != nil {
		return false
	}
	head := make([]byte, len(trigger))
	_, err = content.ReadAt(head, 0)
	return err == nil && string(head) == trigger
}

func (p *plan) misbehave(ev *provider.Event) provider.Vote {
	switch p.fault {
	case "deny":
		return provider.Deny("faulty-deny")
	case "crash":
		panic("this event was too much for this engine")
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
	case "lie":
		if rand.IntN(2) == 0 { //nolint:gosec // a liar needs no secrets
			return provider.Deny("faulty-lie")
		}
	case "fdleak":
		keep(ev)
	}
	return provider.Allow()
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
