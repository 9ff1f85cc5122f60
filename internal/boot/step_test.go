package boot_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
)

// story is a machine and what happens to it, one line each.
type story struct {
	t *testing.T
	s boot.State
	n int // boots
}

// begin starts a boot that the loader did not count and returns its mode, "recovery" or "menu".
func (h *story) begin() string { return h.start(boot.Input{Left: -1}) }

func (h *story) start(in boot.Input) string {
	h.t.Helper()
	h.n++
	in.Kind, in.Boot, in.CanRecover = boot.Started, fmt.Sprint("boot-", h.n), true
	s, out := h.s.Step(now, in)
	h.s = s
	for _, e := range out {
		switch e.Act {
		case boot.EnterRecovery:
			return "recovery"
		case boot.ShowMenu:
			return "menu"
		}
	}
	return string(out[len(out)-1].Mode)
}

func (h *story) end(kind boot.Kind) {
	h.s, _ = h.s.Step(now, boot.Input{Kind: kind, Boot: fmt.Sprint("boot-", h.n)})
}

// visit is the recovery environment; it returns what it may do.
func (h *story) visit() boot.Act {
	h.n++
	s, out := h.s.Step(now, boot.Input{Kind: boot.RecoveryEntered, Boot: fmt.Sprint("boot-", h.n), Left: -1})
	h.s = s
	return out[len(out)-1].Act
}

func (h *story) remedy(o boot.Orders) {
	h.s, _ = h.s.Step(now, boot.Input{Kind: boot.Remedied, Orders: o})
}

// expect compares the modes of the next boots when each of them fails.
func (h *story) expect(want ...string) {
	h.t.Helper()
	for i, w := range want {
		if got := h.begin(); got != w {
			h.t.Fatalf("boot %d of %v: %s\n%+v", i+1, want, got, h.s)
		}
	}
}

func tell(t *testing.T) *story {
	t.Helper()
	return &story{t: t, s: boot.New()}
}

func TestTheWholeLadder(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal", "lkg", "safe", "recovery")
	if act := h.visit(); act != boot.Repair {
		t.Fatalf("first visit: %s", act)
	}
	h.remedy(boot.Orders{Disabled: []string{"acme-av"}, Source: "local rule"})
	h.expect("normal", "safe", "recovery")
	if act := h.visit(); act != boot.Repair {
		t.Fatalf("second visit: %s", act)
	}
	h.remedy(boot.Orders{Safe: true, Source: "local rule"})
	h.expect("safe", "recovery")
	if act := h.visit(); act != boot.ShowMenu {
		t.Fatalf("third visit: %s", act)
	}
	h.expect("menu", "menu", "menu")
	if !slices.Equal(h.s.Orders.Disabled, []string{"acme-av"}) {
		t.Errorf("orders got lost: %+v", h.s.Orders)
	}
	h.end(boot.Good)
	if h.s.Failures != 0 || h.s.Recoveries != 0 || h.s.Mode != boot.Safe {
		t.Errorf("after a good boot: %+v", h.s)
	}
	h.s, _ = h.s.Step(now, boot.Input{Kind: boot.Release})
	h.expect("normal", "lkg")
}

func TestWithoutRecoveryTheMenuFollowsSafeMode(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal", "lkg", "safe")
	s, out := h.s.Step(now, boot.Input{Kind: boot.Started, Boot: "x", Left: -1})
	if !did(out, boot.ShowMenu) || did(out, boot.EnterRecovery) || s.Mode != boot.Safe {
		t.Errorf("%v %+v", out, s)
	}
}

// TestALowerRungIsTriedAgain: who had two power cuts does not stay in safe mode for ever, and who really needs safe
// mode pays for the trial with one boot each, and twice at most.
func TestALowerRungIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal", "lkg", "safe")
	h.end(boot.Good)
	h.expect("lkg")
	h.end(boot.Good)
	h.expect("normal")
	h.end(boot.Good)
	h.expect("normal", "lkg", "safe")
	h.end(boot.Good)
	h.expect("lkg", "safe") // the trial fails
	h.end(boot.Good)
	h.expect("lkg", "safe") // and again
	h.end(boot.Good)
	h.expect("safe")
	h.end(boot.Good)
	h.expect("safe", "recovery")
}

func TestTheLoadersCountIsBelieved(t *testing.T) {
	t.Parallel()
	for left, want := range map[int]string{-1: "normal", 2: "normal", 1: "lkg", 0: "safe", 3: "normal"} {
		if got := tell(t).start(boot.Input{Left: left}); got != want {
			t.Errorf("%d left: %s, want %s", left, got, want)
		}
	}
	// A boot that both counted counts once.
	h := tell(t)
	h.start(boot.Input{Left: 2})
	if got := h.start(boot.Input{Left: 1}); got != "lkg" {
		t.Errorf("the second boot: %s, %+v", got, h.s)
	}
	h.end(boot.ShutDown)
	if h.s.Tries() != 2 {
		t.Errorf("%d tries are left before the same rung", h.s.Tries())
	}
}

func TestTheSuspectIsNamed(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal")
	crumb := boot.Crumb{Boot: "boot-1", Provider: "acme-av", Engine: "7.2", Content: "291"}
	h.start(boot.Input{Left: -1, Crumb: crumb})
	if h.s.Suspect != crumb {
		t.Errorf("suspect %+v", h.s.Suspect)
	}
	_, out := h.s.Step(now, boot.Input{Kind: boot.Started, Boot: "boot-2"})
	if why := out[0].Why; !strings.Contains(why, "while starting acme-av 7.2, content 291") {
		t.Errorf("reason %q", why)
	}
	h.start(boot.Input{Left: -1, Crumb: crumb}) // of an earlier boot: no evidence
	if h.s.Suspect != (boot.Crumb{}) {
		t.Errorf("suspect of the second failure %+v", h.s.Suspect)
	}
}

// TestNobodyIsSuspectedOfWhatTheLoaderSaw: boots that ended before anything was started are no evidence against what an
// earlier one was starting, whether that one failed or was good.
func TestNobodyIsSuspectedOfWhatTheLoaderSaw(t *testing.T) {
	t.Parallel()
	crumb := boot.Crumb{Boot: "boot-1", Provider: "acme-av", Engine: "7.2", Content: "291"}
	for name, c := range map[string]struct {
		before   func(h *story)
		left     int
		failures int
		suspect  boot.Crumb
	}{
		"the last boot was good": {func(h *story) { h.end(boot.Good) }, 0, 3, boot.Crumb{}},
		"good after a failure": {func(h *story) {
			h.start(boot.Input{Left: -1, Crumb: crumb})
			h.end(boot.Good)
		}, 0, 3, boot.Crumb{}},
		"it failed once, then the loader did twice": {func(*story) {}, 0, 3, boot.Crumb{}},
		"a person chose the environment":            {func(*story) {}, 2, 1, crumb},
		"the count is not known":                    {func(*story) {}, -1, 1, crumb},
	} {
		h := tell(t)
		h.expect("normal")
		c.before(h)
		h.s, _ = h.s.Step(now, boot.Input{Kind: boot.RecoveryEntered, Boot: "environment", Left: c.left, Crumb: crumb})
		if h.s.Failures != c.failures || h.s.Suspect != c.suspect || h.s.Next != boot.Recovery {
			t.Errorf("%s: %d failures, suspect %+v, next %s", name, h.s.Failures, h.s.Suspect, h.s.Next)
		}
	}
}

func TestAPersonChooses(t *testing.T) {
	t.Parallel()
	h := tell(t)
	h.expect("normal", "lkg", "safe", "recovery")
	h.s.Next = boot.Menu
	h.s, _ = h.s.Step(now, boot.Input{Kind: boot.Choose, Mode: boot.Normal})
	h.expect("normal", "menu")
	if act := h.visit(); act != boot.ShowMenu {
		t.Errorf("the recovery environment after the menu: %s", act)
	}
	s, out := h.s.Step(now, boot.Input{Kind: boot.Choose, Mode: boot.Recovery})
	if !did(out, boot.Repair) {
		t.Errorf("%v", out)
	}
	h.s = s
	h.remedy(boot.Orders{})
	h.expect("normal", "safe", "recovery")
	if act := h.visit(); act != boot.ShowMenu {
		t.Errorf("then %s", act)
	}
}

// TestAFixThatWaitsIsToldOnce: whatever is not applied for one reason, in however many boots that fail, takes one line
// of the history, and nothing else changes. After a good boot, a release or a visit the same words are news.
func TestAFixThatWaitsIsToldOnce(t *testing.T) {
	refused := func(s boot.State, why string) (boot.State, []boot.Effect) {
		return s.Step(now, boot.Input{Kind: boot.NotRemedied, Why: why})
	}
	before := boot.New()
	s, out := refused(before, "no room")
	if len(s.History) != 1 || s.History[0].What != boot.Unfixed || s.History[0].Why != "no room" || !did(out, boot.Keep) {
		t.Fatalf("%+v, %v", s, out)
	}
	once := s
	for _, id := range []string{"one", "two"} {
		again, out := refused(s, "no room")
		if len(again.History) != len(s.History) || len(out) != 0 {
			t.Errorf("again: %+v, %v", again, out)
		}
		s, _ = s.Step(now, boot.Input{Kind: boot.Started, Boot: id, Left: -1})
	}
	if other, _ := refused(s, "read-only"); len(other.History) != len(s.History)+1 {
		t.Errorf("another reason: %+v", other)
	}
	for name, in := range map[string]boot.Input{
		"good": {Kind: boot.Good, Boot: "two"}, "release": {Kind: boot.Release},
		"visit": {Kind: boot.RecoveryEntered, Boot: "three", Left: -1},
	} {
		over, _ := s.Step(now, in)
		if news, out := refused(over, "no room"); len(news.History) != len(over.History)+1 || !did(out, boot.Keep) {
			t.Errorf("after %s: %+v", name, news)
		}
	}
	if once.History = nil; !reflect.DeepEqual(once, before) {
		t.Errorf("it changed %+v", once)
	}
}

// TestAReasonKeepsItsCause: however long the name of a fix is, the history has the code and what the system said.
func TestAReasonKeepsItsCause(t *testing.T) {
	t.Parallel()
	const begin, end = "KO-2530: fix a", " cannot be remembered: value too large for defined data type"
	for _, n := range []int{0, 20, 21, 22, 23, 24, 128, 1000} {
		s, _ := boot.New().Step(now, boot.Input{Kind: boot.NotRemedied, Why: begin + strings.Repeat("a", n) + end})
		why := s.History[0].Why
		if !strings.HasPrefix(why, begin) || !strings.HasSuffix(why, end) || len(why) > boot.MaxText || s.Check() != nil {
			t.Errorf("%d: %q, %v", n, why, s.Check())
		}
		if fits := len(begin)+n+len(end) <= boot.MaxText; fits == strings.Contains(why, "...") {
			t.Errorf("%d: %q", n, why)
		}
	}
}

func TestOrdersAreBounded(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("provider-", i))
	}
	h := tell(t)
	h.remedy(boot.Orders{Disabled: many})
	h.remedy(boot.Orders{Disabled: many[:1], LastKnownGood: []string{"a", "a", ""}})
	if len(h.s.Orders.Disabled) != boot.MaxNamed || !slices.Equal(h.s.Orders.LastKnownGood, []string{"a"}) {
		t.Errorf("%+v", h.s.Orders)
	}
}

// TestSafeModeIsTakenBack: the order ends, other orders stay, and a machine that has had good boots in safe mode tries
// the rungs below again; the ladder of a machine that fails is as long as ever.
func TestSafeModeIsTakenBack(t *testing.T) {
	t.Parallel()
	h := tell(t)
	unset := func() { h.s, _ = h.s.Step(now, boot.Input{Kind: boot.Remedied, Unset: true}) }
	h.remedy(boot.Orders{Safe: true, Disabled: []string{"acme-av"}, Source: "fix 1", Reason: "r"})
	h.expect("safe")
	h.end(boot.Good)
	unset()
	if o := h.s.Orders; o.Safe || !slices.Equal(o.Disabled, []string{"acme-av"}) || o.Source != "fix 1" {
		t.Errorf("orders %+v", o)
	}
	h.expect("lkg") // a trial: the last good boot ran in safe mode
	h.end(boot.Good)
	h.expect("normal")
	h.end(boot.Good)

	h = tell(t)
	h.remedy(boot.Orders{Safe: true, Source: "fix 1"})
	unset()
	if !reflect.DeepEqual(h.s.Orders, boot.Orders{}) {
		t.Errorf("of an order that was taken back this stays: %+v", h.s.Orders)
	}
	h.expect("normal", "lkg", "safe", "recovery")

	h = tell(t)
	h.s, _ = h.s.Step(now, boot.Input{Kind: boot.Remedied, Unset: true, Orders: boot.Orders{Safe: true, Source: "fix 2"}})
	if !h.s.Orders.Safe {
		t.Error("what is ordered together with taking back holds")
	}
}
