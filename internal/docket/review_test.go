package docket_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// TestMutesDoNotShare: a question that was put to fewer providers, because one has muted the caller, is not joined by
// a caller whom nobody has muted.
func TestMutesDoNotShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	release := make(chan struct{})
	denies := (&peer{script: answering(deny)}).join(r, "denies")
	waits := (&peer{script: func(*pb.Event, int) (pb.Action, bool) {
		<-release
		return allow, true
	}}).join(r, "waits")
	r.members(denies, waits)
	send(t, denies.control, &pb.FromProvider{Body: &pb.FromProvider_Mute{Mute: &pb.Mute{ActorToken: 7}}})
	r.until("the caller is muted", func() bool { return denies.Session.Muted(7) })

	muted := r.question("same")
	muted.Event.Actor.Token = 7
	r.d.Judge(muted)
	other := r.question("same")
	other.Event.Actor.Token = 8
	if r.judge(other) {
		t.Error("allowed by a question that the denying provider was not asked")
	}
	close(release)
	r.until("both are answered", func() bool { return r.kernel.count() == 2 })
}

// TestPardonsAreBounded: a flood of denials is not all looked up, each with its caller waiting; what finds no place is
// denied at once.
func TestPardonsAreBounded(t *testing.T) {
	t.Parallel()
	const n, places = 12, 4
	r := newRig(t)
	release := make(chan struct{})
	r.ruling.pardons.Store(true)
	r.ruling.pardon = func(int, int64) (string, bool) {
		<-release
		return "because", true
	}
	r.members((&peer{script: answering(deny)}).join(r, "p"))
	for i := range n {
		r.d.Judge(r.question(strconv.Itoa(i)))
	}
	r.until("those without a place are denied", func() bool { return r.kernel.count() == n-places })
	close(release)
	r.until("all are answered", func() bool { return r.kernel.count() == n })
	r.exactlyOnce(n)
	if got := r.d.Totals(); got.Denied != n-places || got.Allowed != places {
		t.Errorf("%d denied and %d pardoned, want %d and %d", got.Denied, got.Allowed, n-places, places)
	}
}

// TestAbsentProviderFailsClosed: the failure policy of a provider that is down votes for it.
func TestAbsentProviderFailsClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	up := (&peer{script: answering(allow)}).join(r, "up")
	down := &docket.Member{
		ID: "down", Mode: event.Enforce, FailClosed: true, Metadata: time.Minute, Content: time.Minute,
		Absent: map[event.Type]bool{event.Open: true},
	}
	r.d.SetMembers([]*docket.Member{up.Member, down})
	if !r.d.Wants(event.Open) {
		t.Fatal("nobody wants opens")
	}
	q := r.question("file")
	if r.judge(q) {
		t.Error("allowed while a provider that fails closed is down")
	}
	v := r.verdict(q.Event.ID)
	if v.Outcome != event.Unavailable || v.Reason != event.ReasonLost || v.DecidedBy != "down" {
		t.Errorf("verdict %+v", v)
	}
}
