package boot_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/boot"
)

// accused is a machine whose core leaves crumbs as it does: of each provider that it starts, and none in safe mode,
// which starts nobody.
type accused struct {
	t     *rapid.T
	s     boot.State
	n     int // boots
	crumb boot.Crumb
	last  boot.Crumb // what was being started when the last boot failed that starts anything
}

func (m *accused) step(in boot.Input) []boot.Effect {
	in.Boot, in.Crumb = fmt.Sprint("boot-", m.n), m.crumb
	s, out := m.s.Step(now, in)
	m.s = s
	return out
}

// counted steps into a boot or a visit. Boots that only the loader counted ended before anything was started.
func (m *accused) counted(kind boot.Kind) []boot.Effect {
	m.n++
	failures := m.s.Failures
	if m.s.Boot != "" {
		failures++
	}
	left := rapid.SampledFrom([]int{-1, -1, -1, 0, 1, 2, 3}).Draw(m.t, "left")
	out := m.step(boot.Input{Kind: kind, Left: left, CanRecover: true})
	if m.s.Failures > failures {
		m.last = boot.Crumb{}
	}
	return out
}

// boot is one power cycle, up to where the next begins.
func (m *accused) boot() {
	if rapid.IntRange(0, 9).Draw(m.t, "loader") == 0 || did(m.counted(boot.Started), boot.EnterRecovery) {
		m.visit()
		return
	}
	started := boot.Crumb{}
	if m.s.Mode != boot.Safe && rapid.Bool().Draw(m.t, "starts a provider") {
		provider := rapid.SampledFrom([]string{"acme-av", "other"}).Draw(m.t, "provider")
		started = boot.Crumb{Boot: m.s.Boot, Provider: provider, Ready: rapid.Bool().Draw(m.t, "ready")}
		m.crumb = started
	}
	switch rapid.SampledFrom([]string{"fails", "fails", "fails", "good", "in order"}).Draw(m.t, "ends") {
	case "good":
		m.step(boot.Input{Kind: boot.Good})
		m.last = boot.Crumb{}
	case "in order":
		m.step(boot.Input{Kind: boot.ShutDown})
	default:
		if m.s.Mode != boot.Safe {
			m.last = started
		}
	}
}

// visit is the recovery environment: whom it suspects is what its local rule and the fixes of a campaign go by.
func (m *accused) visit() {
	m.counted(boot.RecoveryEntered)
	if m.s.Suspect != m.last {
		m.t.Fatalf("the suspect is %+v, what was started last %+v\n%+v", m.s.Suspect, m.last, m.s)
	}
	m.step(boot.Input{Kind: boot.Remedied})
}

// TestWhoWasStartedLastIsTheSuspect: of each visit of the recovery environment, also after safe mode, which is what
// comes before most of them; a good boot, and boots that only the loader saw, leave no suspect.
func TestWhoWasStartedLastIsTheSuspect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &accused{t: t, s: boot.New()}
		for range rapid.IntRange(4, 30).Draw(t, "boots") {
			m.boot()
		}
	})
}

// TestTheLadderKeepsItsSuspect: normal, last-known-good, safe, and then the visit still knows what was starting.
func TestTheLadderKeepsItsSuspect(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal", "lkg")
	crumb := boot.Crumb{Boot: "boot-2", Provider: "acme-av", Engine: "7.2", Content: "291"}
	for i, want := range []string{"safe", "recovery"} {
		if got := h.start(boot.Input{Left: -1, Crumb: crumb}); got != want || h.s.Suspect != crumb {
			t.Fatalf("boot %d: %s, want %s; suspect %+v", i+3, got, want, h.s.Suspect)
		}
	}
	if act := h.visit(); act != boot.Repair || h.s.Suspect != crumb {
		t.Errorf("the visit: %s, suspect %+v", act, h.s.Suspect)
	}
	for _, e := range h.s.History {
		if e.Mode == boot.Safe && e.Why != "" {
			t.Errorf("a boot in safe mode is said to have ended while it started %s", e.Why)
		}
	}
}

// TestALongSuspectIsKept: however long the names in a crumb are, the state of the boot that failed can be kept.
func TestALongSuspectIsKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 2*boot.MaxText)
	s := boot.New()
	for _, id := range []string{"one", "two"} {
		s, _ = s.Step(now, boot.Input{
			Kind: boot.Started, Boot: id, Left: -1,
			Crumb: boot.Crumb{Boot: "one", Provider: long, Engine: long, Content: long},
		})
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.History) != 1 || !strings.HasPrefix(s.History[0].Why, "aaaa") {
		t.Errorf("%+v", s.History)
	}
}
