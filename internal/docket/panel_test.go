package docket_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/sensor"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// sight keeps what the docket wants to see, and what it would ask about at that moment.
type sight struct {
	d *docket.Docket

	mu     sync.Mutex
	wanted []sensor.Types
	asked  []sensor.Types
}

func (s *sight) Want(types sensor.Types) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked sensor.Types
	for _, t := range event.Types() {
		asked[t] = s.d.Wants(t)
	}
	s.wanted, s.asked = append(s.wanted, types), append(s.asked, asked)
}

func types(of ...event.Type) (set sensor.Types) {
	for _, t := range of {
		set[t] = true
	}
	return set
}

// TestSightComesFirst: an event arrives before anybody is asked about events of its type, and as long as somebody is;
// also while somebody is only expected.
func TestSightComesFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := &sight{d: r.d}
	r.d.Look(s)
	execs := (&peer{types: []pb.EventType{pb.EventType_EVENT_TYPE_EXEC}, script: answering(allow)}).join(r, "execs")
	opens := (&peer{types: []pb.EventType{pb.EventType_EVENT_TYPE_OPEN}, script: answering(allow)}).join(r, "opens")
	down := &docket.Member{ID: "down", Absent: map[event.Type]bool{event.Create: true}}
	for _, step := range []struct {
		name    string
		members []*docket.Member
		awaited []event.Type
		want    sensor.Types
	}{
		{"nobody", nil, nil, sensor.Types{}},
		{"somebody is expected", nil, []event.Type{event.Open}, types(event.Open)},
		{"who wants execs", []*docket.Member{execs.Member}, nil, types(event.Exec)},
		{"who wants opens hears of execs, too", []*docket.Member{opens.Member}, nil, types(event.Open, event.Exec)},
		{"who is down and fails closed", []*docket.Member{execs.Member, down}, nil, types(event.Exec, event.Create)},
		{"nobody again", nil, nil, sensor.Types{}},
	} {
		r.d.SetMembers(step.members, step.awaited...)
		if got := s.wanted[len(s.wanted)-1]; got != step.want {
			t.Errorf("%s: events of %v arrive, want %v", step.name, got, step.want)
		}
	}
	for i, asked := range s.asked { // what is asked about at each call has been arriving since an earlier one
		for typ := range asked {
			if asked[typ] && (i == 0 || !s.wanted[i-1][typ]) {
				t.Errorf("call %d: somebody is asked about %v, which does not arrive", i, event.Type(typ))
			}
		}
	}
	if len(s.asked) == 0 || !slices.Contains(s.asked, types(event.Open, event.Exec)) {
		t.Error("nobody was ever asked")
	}
}
