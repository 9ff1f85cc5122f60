package docket_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const read = pb.Action_ACTION_READ

// telling is a provider that subscribes to the digest. It keeps what it was sent.
type telling struct {
	*peer
	mu      sync.Mutex
	digests []string
	files   []bool
}

// tell makes one; answer gives its vote.
func (r *remembering) tell(id string, answer func(digest string, file bool) (pb.Action, bool)) *telling {
	x := &telling{}
	x.peer = r.with(id, &peer{access: pb.Access_ACCESS_DIGEST, script: func(ev *pb.Event, file int) (pb.Action, bool) {
		digest := hex.EncodeToString(ev.GetFile().GetSha256())
		x.mu.Lock()
		x.digests, x.files = append(x.digests, digest), append(x.files, file >= 0)
		x.mu.Unlock()
		return answer(digest, file >= 0)
	}})
	return x
}

// sent checks what one delivery was like.
func (x *telling) sent(t *testing.T, i int, digest string, file bool) {
	t.Helper()
	x.r.until("it was sent so often", func() bool { // nobody waits for who is in audit
		x.mu.Lock()
		defer x.mu.Unlock()
		return i < len(x.digests)
	})
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.digests[i] != digest || x.files[i] != file {
		t.Errorf("delivery %d of %q %v: want digest %q, descriptor %v", i, x.digests, x.files, digest, file)
	}
}

func (r *remembering) write(t *testing.T, content []byte) (digest string) {
	t.Helper()
	if err := os.WriteFile(r.file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func allowing(string, bool) (pb.Action, bool) { return allow, true }

// TestHashedOnce: two providers get the digest, neither a descriptor, and the content is hashed once; another version
// is hashed again.
func TestHashedOnce(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	digest := r.write(t, []byte("hello"))
	p, q := r.tell("p", allowing), r.tell("q", allowing)
	meta := r.with("meta", &peer{script: answering(allow)})
	r.d.SetMembers([]*docket.Member{p.Member, q.Member, meta.Member})
	r.ask(t, nil)
	r.ask(t, func(ev *event.Event) { ev.File.Path = "/another/name" })
	for i := range 2 {
		p.sent(t, i, digest, false)
		q.sent(t, i, digest, false)
	}
	if got := r.d.Totals().Hashed; got != 1 {
		t.Errorf("hashed %d times", got)
	}
	r.until("it is recorded", func() bool { return len(r.trail.records()) == 2 })
	if got := r.trail.records()[1].Event.File.SHA256; got != digest {
		t.Errorf("record has digest %q", got)
	}
	r.ask(t, func(ev *event.Event) { ev.File.CtimeNS++ })
	if got := r.d.Totals().Hashed; got != 2 {
		t.Errorf("hashed %d times, want 2", got)
	}
}

// TestRead: whoever asks to read gets the same event with the descriptor, once; asking twice, or without the digest, is
// an abstention and a mistake.
func TestRead(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	digest := r.write(t, []byte("hello"))
	p := r.tell("p", func(_ string, file bool) (pb.Action, bool) {
		if file {
			return deny, true
		}
		return read, true
	})
	always := r.tell("always", func(string, bool) (pb.Action, bool) { return read, true })
	other := r.with("other", &peer{script: answering(read)})
	p.Mode, other.Mode = event.Audit, event.Audit
	r.d.SetMembers([]*docket.Member{p.Member, always.Member, other.Member})
	if !r.ask(t, nil) {
		t.Error("denied")
	}
	p.sent(t, 0, digest, false)
	p.sent(t, 1, digest, true)
	r.until("it is recorded", func() bool { return len(r.trail.records()) == 1 })
	ballots := r.trail.records()[0].Verdict.Ballots
	if ballots[0].Vote.Action != event.Deny || ballots[0].Reason != event.ReasonVoted {
		t.Errorf("who read: %+v", ballots[0])
	}
	for i, n := range map[int]int64{1: 2, 2: 1} {
		if b := ballots[i]; b.Vote.Action != event.Abstain || b.Reason != event.ReasonUndecoded {
			t.Errorf("wrong use: %+v", b)
		}
		if got := []*peer{p.peer, always.peer, other}[i].asked.Load(); got != n {
			t.Errorf("%d was asked %d times, want %d", i, got, n)
		}
	}
	if p.wrongFile.Load() != 0 {
		t.Error("the descriptor was another object's")
	}
	if c := p.Session.Counters(); c.Delivered != 2 || c.Answered != 2 || c.Pending != 0 {
		t.Errorf("%+v", c)
	}
}

// TestDigestOfChangedIsNotRemembered: neither with a writer there, nor with one that came meanwhile.
func TestDigestOfChangedIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	r.write(t, []byte("hello"))
	p := r.tell("p", allowing)
	r.d.SetMembers([]*docket.Member{p.Member})
	for i, set := range []func(){
		func() { r.pins.set(true, false) }, func() { r.pins.set(false, false); r.pins.broken.Store(true) },
		func() { r.pins.broken.Store(false) },
	} {
		set()
		r.d.Forget(p.Memory)
		r.ask(t, nil)
		if got := r.d.Totals().Hashed; got != uint64(i)+1 {
			t.Errorf("hashed %d times, want %d", got, i+1)
		}
	}
	r.d.Forget(p.Memory)
	r.ask(t, nil)
	if got := r.d.Totals().Hashed; got != 3 {
		t.Errorf("hashed %d times, want 3: it was proved the third time", got)
	}
}

// TestHashedLater: a large file is hashed elsewhere; who does not want the digest does not wait for it, and a denial
// takes its effect at once.
func TestHashedLater(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	digest := r.write(t, bytes.Repeat([]byte("large"), 1<<20))
	p := r.tell("p", allowing)
	r.d.SetMembers([]*docket.Member{p.Member})
	for range 2 {
		r.d.Forget(p.Memory)
		if !r.ask(t, nil) {
			t.Error("denied")
		}
	}
	p.sent(t, 0, digest, false)
	p.sent(t, 1, digest, false)
	if got := r.d.Totals(); got.Hashed != 1 || got.Unhashed != 0 {
		t.Errorf("%+v", got)
	}
	r.until("it is recorded", func() bool { return len(r.trail.records()) == 2 })
	if got := r.trail.records()[0].Event.File.SHA256; got != digest {
		t.Errorf("record has digest %q", got)
	}
	no := r.with("no", &peer{script: answering(deny)})
	r.d.SetMembers([]*docket.Member{p.Member, no.Member})
	if r.ask(t, func(ev *event.Event) { ev.File.CtimeNS++ }) {
		t.Error("allowed")
	}
}

// TestHashingGivenUp: what cannot be hashed in time comes with the descriptor.
func TestHashingGivenUp(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	r.write(t, bytes.Repeat([]byte("large"), 1<<20))
	p := r.tell("p", allowing)
	r.d.SetMembers([]*docket.Member{p.Member})
	// Half of the time for a vote is over already.
	if !r.ask(t, func(ev *event.Event) { ev.Time = ev.Time.Add(-time.Minute / 2) }) {
		t.Error("denied")
	}
	p.sent(t, 0, "", true)
	// The file is not what the event says.
	r.ask(t, func(ev *event.Event) { ev.File.Size++ })
	p.sent(t, 1, "", true)
	if got := r.d.Totals(); got.Hashed != 0 || got.Unhashed != 2 {
		t.Errorf("%+v", got)
	}
}

// TestPardonByDigest: an allowance of a content whose digest is known and proved lifts its denial without another look
// at the file.
func TestPardonByDigest(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	digest := r.write(t, []byte("hello"))
	var looked atomic.Bool
	r.ruling.pardons.Store(true)
	r.ruling.pardon = func(int, int64) (string, bool) { looked.Store(true); return "", false }
	r.ruling.pardoned = func(d string) (string, bool) { return "because", d == digest }
	p := r.tell("p", func(string, bool) (pb.Action, bool) { return deny, true })
	r.d.SetMembers([]*docket.Member{p.Member})
	if !r.ask(t, nil) || looked.Load() {
		t.Errorf("denied, or hashed again: %v", looked.Load())
	}
	r.until("it is recorded", func() bool { return len(r.trail.records()) == 1 })
	if v := r.trail.records()[0].Verdict; v.Reason != event.ReasonAllowance || v.Rule != "because" {
		t.Errorf("%+v", v)
	}
}

// TestSharesOnlyWhatNobodyCanWrite: a question about the version that is being asked about joins it while no writer can
// have come; otherwise it is asked on its own, because the other may have been looked at before a store.
func TestSharesOnlyWhatNobodyCanWrite(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, meanwhile func(p *pins)
		asked             int64
	}{
		"nobody":            {nil, nil, 1},
		"a writer is there": {func(p *pins) { p.set(true, false) }, nil, 2},
		"a writer came":     {nil, func(p *pins) { p.set(false, true) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRemembering(t)
			release := make(chan struct{})
			p := r.with("p", &peer{script: func(*pb.Event, int) (pb.Action, bool) { <-release; return allow, true }})
			r.d.SetMembers([]*docket.Member{p.Member})
			if tt.before != nil {
				tt.before(r.pins)
			}
			first, second := r.object("f"), r.object("f")
			second.Event.File.Version = first.Event.File.Version
			r.d.Judge(first)
			if tt.meanwhile != nil {
				tt.meanwhile(r.pins)
			}
			r.d.Judge(second)
			close(release)
			r.until("both are answered", func() bool { return r.kernel.count() == 2 && r.d.Totals().InFlight == 0 })
			r.until("it was asked so often", func() bool { return p.asked.Load() == tt.asked })
		})
	}
}
