package docket_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// remembering is a docket in front of a keeper, with providers that have a memory.
type remembering struct {
	*rig
	file string
}

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	r := &remembering{rig: newRig(t), file: filepath.Join(t.TempDir(), "f")}
	if err := os.WriteFile(r.file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// with makes a provider whose votes are remembered.
func (r *remembering) with(id string, p *peer) *peer {
	p.join(r.rig, id)
	p.Memory = docket.NewMemory()
	return p
}

// ask puts a question about an object and returns what became of it once its record is written, or at once where none
// is.
func (r *remembering) ask(t *testing.T, change func(ev *event.Event)) (allowed bool) {
	t.Helper()
	q, id := r.opened(t)
	if change != nil {
		change(&q.Event)
	}
	r.d.Judge(q)
	r.until("it is answered and over", func() bool { return len(r.kernel.of(id)) == 1 && r.d.Totals().InFlight == 0 })
	return r.kernel.of(id)[0]
}

// opened is a question about an open of the file.
func (r *remembering) opened(t *testing.T) (q *sensor.Question, id uint64) {
	t.Helper()
	fd, err := unix.Open(r.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		t.Error(err)
	}
	ev := event.Event{ID: r.id.Add(1), Type: event.Open, Time: time.Now()}
	q = sensor.NewQuestion(ev, fd, caller{r.kernel, ev.ID}, r.keeper)
	q.Event.File.Version, q.Event.File.Path = q.Version(), r.file
	q.Event.File.Ino = st.Ino
	return q, ev.ID
}

const canary = "/srv/" + event.SelftestName

func TestRememberedVoteIsNotAskedFor(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	p := r.with("p", &peer{script: answering(allow)})
	r.d.SetMembers([]*docket.Member{p.Member})
	tests := []struct {
		name   string
		before func()
		change func(ev *event.Event)
		asked  int64 // so far
	}{
		{"the first time", nil, nil, 1},
		{"again", nil, nil, 1},
		{"another version", nil, func(ev *event.Event) { ev.File.CtimeNS++ }, 2},
		{"it is not what was opened, so nothing is remembered", nil, func(ev *event.Event) { ev.File.CtimeNS++ }, 3},
		{"another name", nil, func(ev *event.Event) { ev.File.Path = "/srv/other" }, 4},
		{"as a program", nil, func(ev *event.Event) { ev.Type = event.Exec }, 5},
		{"as a program, again", nil, func(ev *event.Event) { ev.Type = event.Exec }, 5},
		{"a canary", nil, func(ev *event.Event) { ev.File.Path = canary }, 6},
		{"a canary, again", nil, func(ev *event.Event) { ev.File.Path = canary }, 7},
		{"other content", func() { r.d.Heard(p.Memory, "2") }, nil, 8},
		{"that content", func() { r.d.Heard(p.Memory, "2") }, nil, 8},
		{"forgotten", func() { r.d.Forget(p.Memory) }, nil, 9},
		{"a writer has it", func() { r.d.Forget(p.Memory); r.pins.set(true, false) }, nil, 10},
		{"a writer still has it", nil, nil, 11},
		{"no writer any more", func() { r.pins.set(false, false) }, nil, 12},
		{"so it was remembered", nil, nil, 12},
	}
	for _, tt := range tests {
		if tt.before != nil {
			tt.before()
		}
		if !r.ask(t, tt.change) {
			t.Errorf("%s: denied", tt.name)
		}
		if got := p.asked.Load(); got != tt.asked {
			t.Fatalf("%s: asked %d times, want %d", tt.name, got, tt.asked)
		}
	}
}

// What a provider read while a writer had the object is not remembered, nor by the kernel.
func TestChangedMeanwhileIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	var writes atomic.Bool
	writes.Store(true)
	p := r.with("p", &peer{script: func(*pb.Event, int) (pb.Action, bool) {
		if writes.Load() {
			r.pins.set(false, true)
		}
		return allow, true
	}})
	r.d.SetMembers([]*docket.Member{p.Member})
	for range 3 {
		r.ask(t, nil)
	}
	if got, kept := p.asked.Load(), r.pins.inKernel(); got != 3 || kept != 0 {
		t.Errorf("asked %d times, kept %d times; want 3 and 0", got, kept)
	}
	writes.Store(false)
	r.ask(t, nil)
	r.ask(t, nil)
	if got, kept := p.asked.Load(), r.pins.inKernel(); got != 4 || kept != 2 {
		t.Errorf("asked %d times, kept %d times; want 4 and 2", got, kept)
	}
}

// Whoever opens an object that may have changed since others were asked about it does not share their answer, though
// its version is the same: a writer moves the times before the content.
func TestChangedObjectIsNotShared(t *testing.T) {
	t.Parallel()
	for name, changed := range map[string]bool{"unchanged": false, "changed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRemembering(t)
			p := r.with("p", &peer{script: silent})
			r.d.SetMembers([]*docket.Member{p.Member})
			ev := event.Event{Type: event.Open, Time: time.Now()}
			put := func(file int) {
				ev.ID = r.id.Add(1)
				r.d.Judge(sensor.NewQuestion(ev, file, caller{r.kernel, ev.ID}, r.keeper))
			}
			put(-1)
			r.pins.set(false, changed)
			put(-2)
			want := int64(1)
			if changed {
				want = 2
			}
			r.until("they are asked", func() bool { return p.asked.Load() == want })
			if got := r.d.Totals().InFlight; got != 2 {
				t.Errorf("%d in flight, want 2", got)
			}
		})
	}
}

// The kernel is made to remember only what all who could want to hear of it allowed by their own votes.
func TestKernelRemembersUnanimity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		other *peer // beside one that allows
		as    func(m *docket.Member)
		event func(ev *event.Event)
		kept  bool
	}{
		{"both allow", &peer{script: answering(allow)}, nil, nil, true},
		{"one abstains", &peer{script: answering(pb.Action_ACTION_ABSTAIN)}, nil, nil, true},
		{"one in audit allows", &peer{script: answering(allow)}, inAudit, nil, true},
		{"one in audit denies", &peer{script: answering(deny)}, inAudit, nil, false},
		{"one denies", &peer{script: answering(deny)}, nil, nil, false},
		{"one does not vote", &peer{script: silent}, quick, nil, false},
		{"one looks at the actor", &peer{script: answering(allow), byActor: true}, nil, nil, false},
		{"one wants to be asked again", &peer{script: answering(allow), fresh: true}, nil, nil, false},
		{"one has no memory", &peer{script: answering(allow)}, func(m *docket.Member) { m.Memory = nil }, nil, false},
		{"one is down and fails closed", &peer{script: answering(allow)}, func(m *docket.Member) {
			m.Absent = map[event.Type]bool{event.Open: true}
		}, nil, false},
		{"one looks at other files", &peer{script: answering(allow), prefix: "/elsewhere"}, nil, nil, false},
		{"one wants execs only", &peer{script: answering(allow), types: onlyExec}, nil, nil, true},
		{"an exec", &peer{script: answering(allow)}, nil, func(ev *event.Event) { ev.Type = event.Exec }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRemembering(t)
			first, second := r.with("first", &peer{script: answering(allow)}), r.with("second", tt.other)
			if tt.as != nil {
				tt.as(second.Member)
			}
			r.d.SetMembers([]*docket.Member{first.Member, second.Member})
			r.ask(t, tt.event)
			r.until("the case is closed", func() bool { return len(r.trail.records()) == 1 })
			if kept := r.pins.inKernel() > 0; kept != tt.kept {
				t.Errorf("kept %v, want %v", kept, tt.kept)
			}
		})
	}
}

// TestKernelKeepsNothingOfBefore: what was looked up before the kernel forgot is not kept by it afterwards, though the
// object was pinned only then.
func TestKernelKeepsNothingOfBefore(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *remembering, p *peer){
		"nothing":       nil,
		"other content": func(r *remembering, p *peer) { r.d.Heard(p.Memory, "2") },
		"another panel": func(r *remembering, p *peer) {
			again := *p.Member // as when one is no longer waited for
			r.d.SetMembers([]*docket.Member{&again})
		},
	} {
		for _, remembered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, remembered %v", name, remembered), func(t *testing.T) {
				t.Parallel()
				r := newRemembering(t)
				p := r.with("p", &peer{script: answering(allow)})
				r.d.SetMembers([]*docket.Member{p.Member})
				if remembered {
					r.ask(t, nil)
					r.until("it is kept", func() bool { return r.pins.inKernel() == 1 })
					r.pins.Flush()
				}
				if change != nil {
					r.pins.meanwhile(func() { change(r, p) })
				}
				before := r.pins.ended()
				r.ask(t, nil)
				r.until("its object is let go or kept", func() bool { return r.pins.ended() > before })
				if got, want := r.pins.inKernel() > 0, change == nil; got != want {
					t.Errorf("kept %v, want %v", got, want)
				}
			})
		}
	}
}

var onlyExec = []pb.EventType{pb.EventType_EVENT_TYPE_EXEC}

func inAudit(m *docket.Member) { m.Mode = event.Audit }

func quick(m *docket.Member) { m.Metadata, m.Content = 20*time.Millisecond, 20*time.Millisecond }

// Who is remembered to have denied denies at once, and whoever is not known is still asked.
func TestRememberedDenial(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	p := r.with("p", &peer{script: answering(deny)})
	r.d.SetMembers([]*docket.Member{p.Member})
	for range 3 {
		if r.ask(t, nil) {
			t.Error("allowed")
		}
	}
	if got := p.asked.Load(); got != 1 {
		t.Errorf("asked %d times, want 1", got)
	}
	r.until("there are three records", func() bool { return len(r.trail.records()) == 3 })
	remembered := 0
	for _, rec := range r.trail.records() { // they are written after the answers, in any order
		if rec.Verdict.DecidedBy == "p" && rec.Verdict.Ballots[0].Reason == event.ReasonRemembered {
			remembered++
		}
	}
	if remembered != 2 {
		t.Errorf("%d denials were remembered, want 2", remembered)
	}
	if r.ask(t, func(ev *event.Event) { ev.Time = ev.Time.Add(time.Minute) }) || p.asked.Load() != 2 {
		t.Errorf("a denial of a minute ago was remembered")
	}
	q := r.with("q", &peer{script: answering(allow)})
	r.d.SetMembers([]*docket.Member{p.Member, q.Member})
	if r.ask(t, nil) || p.asked.Load() != 2 {
		t.Errorf("the denial is forgotten because another provider came")
	}
}

// TestRememberedAbstention: an engine that cannot tell now, because it is starting again for one, can soon: what it
// abstained on is asked again before half a minute is over, of which the kernel may keep the last ten seconds. Until
// then it answers for events of any type, as every vote of such a provider.
func TestRememberedAbstention(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	p := r.with("p", &peer{script: answering(pb.Action_ACTION_ABSTAIN), anyType: true})
	r.d.SetMembers([]*docket.Member{p.Member})
	began := time.Now()
	for _, tt := range []struct {
		name  string
		typ   event.Type
		at    func() time.Time
		asked int64 // so far
	}{
		{"the first time", event.Open, time.Now, 1},
		{"soon", event.Open, func() time.Time { return began.Add(15 * time.Second) }, 1},
		{"soon, as a program", event.Exec, func() time.Time { return began.Add(15 * time.Second) }, 1},
		{"later", event.Open, func() time.Time { return time.Now().Add(20 * time.Second) }, 2},
		{"later, as a program", event.Exec, func() time.Time { return time.Now().Add(20 * time.Second) }, 3},
	} {
		if !r.ask(t, func(ev *event.Event) { ev.Type, ev.Time = tt.typ, tt.at() }) {
			t.Errorf("%s: denied", tt.name)
		}
		if got := p.asked.Load(); got != tt.asked {
			t.Fatalf("%s: asked %d times, want %d", tt.name, got, tt.asked)
		}
	}
}

// A host that only monitors answers first; the votes are remembered when they come.
func TestRememberedInMonitorMode(t *testing.T) {
	t.Parallel()
	r := newRemembering(t)
	r.ruling.mode = event.Monitor
	p := r.with("p", &peer{script: answering(allow)})
	r.d.SetMembers([]*docket.Member{p.Member})
	r.ask(t, nil)
	r.until("the vote is in", func() bool { return len(r.trail.records()) == 1 })
	r.ask(t, nil)
	if got, kept := p.asked.Load(), r.pins.inKernel(); got != 1 || kept != 2 {
		t.Errorf("asked %d times, kept %d; want 1 and 2", got, kept)
	}
}

// Nothing is allocated for an open that is answered from memory.
func TestRecallDoesNotAllocate(t *testing.T) {
	r := newRemembering(t)
	p := r.with("p", &peer{script: answering(allow)})
	r.d.SetMembers([]*docket.Member{p.Member})
	n := &nothing{}
	ev := event.Event{ID: 1, Type: event.Open, Time: time.Now()}
	ev.File.Path = "/srv/f"
	r.d.Judge(sensor.NewQuestion(ev, -1, n, r.pins))
	r.until("it is remembered", func() bool { return r.pins.inKernel() == 1 })
	r.pins.full.Store(true)                                               // each further one is asked about again
	recall := func() { r.d.Judge(sensor.NewQuestion(ev, -1, n, r.pins)) } // questions are used again
	if got := testing.AllocsPerRun(1000, recall); got != 0 {
		t.Errorf("%v allocations an open", got)
	}
	if p.asked.Load() != 1 {
		t.Error("the provider was asked again")
	}
}

// TestVotesForAnyType: who says that its votes do not depend on the type has voted on opening what it voted on to
// execute, and the other way round, so that the kernel may remember the open half of an exec. Of others it may not, nor
// where opens are not judged.
func TestVotesForAnyType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		peers       []*peer
		withOpen    bool
		asked       int64 // of the first peer, for an exec and an open
		keptByExec  bool
		keptByOther bool // by the open, at the latest
	}{
		{"any type", []*peer{{anyType: true}}, true, 1, true, true},
		{"opens are not judged there", []*peer{{anyType: true}}, false, 1, false, true},
		{"each type for itself", []*peer{{}}, true, 2, false, true},
		{"only one of two", []*peer{{anyType: true}, {}}, true, 1, false, true},
		{"the other hears of no opens", []*peer{{anyType: true}, {types: []pb.EventType{2}}}, true, 1, true, true},
		{"nobody hears of opens", []*peer{{anyType: true, types: onlyExec}}, true, 1, false, false},
		{"the other was not asked", []*peer{{anyType: true}, {prefix: "/elsewhere"}}, true, 1, false, false},
		{
			"who was asked hears of no opens, and who does was not asked",
			[]*peer{{anyType: true, types: []pb.EventType{2}}, {prefix: "/elsewhere"}},
			true, 1, false, false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRemembering(t)
			var members []*docket.Member
			for i, p := range c.peers {
				p.script = answering(allow)
				members = append(members, r.with(string(rune('a'+i)), p).Member)
			}
			r.d.SetMembers(members)
			q, id := r.opened(t)
			q.Event.Type, q.WithOpen = event.Exec, c.withOpen
			r.d.Judge(q)
			r.verdict(id) // the record comes last
			if got := r.pins.inKernel() > 0; got != c.keptByExec {
				t.Errorf("the exec: kept %v, want %v", got, c.keptByExec)
			}
			if !r.ask(t, nil) {
				t.Error("denied")
			}
			if c.keptByOther {
				r.until("the open is kept", func() bool { return r.pins.inKernel() > 0 })
			} else if r.pins.inKernel() > 0 {
				t.Error("the open is kept")
			}
			if got := c.peers[0].asked.Load(); got != c.asked {
				t.Errorf("asked %d times, want %d", got, c.asked)
			}
		})
	}
}
