package root

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// breaker returns how a provider's breaker for opens stands.
func breaker(t testing.TB, h *testhost.Host, id string) docket.BreakerStatus {
	t.Helper()
	list := provider(t, h.Status(), id).Breaker
	if len(list) == 0 || list[0].Type != event.Open {
		t.Fatalf("%s has no breaker for opens: %+v", id, list)
	}
	return list[0]
}

// noted reports whether the change journal has a note of this kind about a provider.
func noted(t testing.TB, h *testhost.Host, code, provider string) bool {
	t.Helper()
	found := false
	must(t, journal.Read(filepath.Join(h.State, "journal"), time.Time{}, func(e *journal.Entry) bool {
		found = found || e.Kind == journal.KindNote && e.Note.Code == code && e.Note.Provider == provider
		return true
	}))
	return found
}

// TestBreakerBypasses: an engine that misses three deadlines is not waited for any more, the other one still denies,
// and the first one is asked again once it has answered copies well: by itself, or in a new process.
func TestBreakerBypasses(t *testing.T) {
	need(t)
	for _, fault := range []string{"late", "hang"} {
		t.Run(fault, func(t *testing.T) {
			h := testhost.Start(t, testhost.Options{
				Providers: []testhost.Provider{subject("slow", fault, event.Enforce), hashlist(t, badText)},
				Extra:     "budgets: {content: 400ms}",
			})
			trap, bad := h.File("trap", "FAULT"), h.File("bad", badText)
			// Nothing else may be asked meanwhile: with a new version each time, no question is shared.
			for i := range 3 {
				allowed(t, open(write(t, trap, "FAULT"+strings.Repeat("!", i), 0o644)))
			}
			h.Until("the breaker is open", func() bool { return breaker(t, h, "slow").Openings > 0 })
			before := counters(t, h, "slow")
			skipped := 0
			for i := 0; breaker(t, h, "slow").State == arbiter.Open && i < 100; i++ {
				path := h.File(fmt.Sprintf("while-open-%d", i), "FAULT")
				allowed(t, open(path))
				denied(t, open(bad))
				if v := h.Record(path).Verdict; v.Reason == event.ReasonBypassed && v.Outcome == event.Unavailable {
					skipped++
				}
			}
			after := counters(t, h, "slow")
			if skipped == 0 || after.Skipped-before.Skipped < uint64(skipped) {
				t.Errorf("%d opens passed it by: %+v, before %+v", skipped, after, before)
			}
			if s := h.Status(); !problem(s, "KO-1310") && breaker(t, h, "slow").State != arbiter.Closed {
				t.Errorf("problems %v", s.Problems)
			}
			if fault == "hang" {
				must(t, unix.Kill(provider(t, h.Status(), "slow").PID, unix.SIGKILL))
			}
			good := h.File("good", goodText)
			h.Until("it is asked again", func() bool {
				allowed(t, open(good))
				return breaker(t, h, "slow").State == arbiter.Closed
			})
			h.Until("it is waited for again", func() bool {
				allowed(t, open(good))
				return h.Record(good).Verdict.Reason == event.ReasonVoted
			})
			for _, code := range []string{"provider.bypassed", "provider.restored"} {
				h.Until(code+" is in the change journal", func() bool { return noted(t, h, code, "slow") })
			}
			reconciled(t, h)
		})
	}
}

// TestDenyStorm: a content that denies what the one before it allowed is put in audit after a handful of objects, and
// the old content ends that.
func TestDenyStorm(t *testing.T) {
	need(t)
	list := hashlist(t, badText)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{list}})
	var paths, contents []string
	for i := range 12 {
		contents = append(contents, fmt.Sprintf("everybody's %d", i))
		paths = append(paths, h.File(fmt.Sprintf("popular-%d", i), contents[i]))
	}
	for range 3 {
		for _, p := range paths {
			allowed(t, open(p))
		}
	}
	old := provider(t, h.Status(), "hashlist").Content
	writeList(t, list.Content, contents...)
	must(t, reload(h))
	h.Until("the new list is in force", func() bool { return provider(t, h.Status(), "hashlist").Content != old })

	lost := map[string]bool{}
	for range 3 {
		for _, p := range paths {
			if open(p) != nil {
				lost[p] = true
			}
		}
	}
	if want := docket.DefaultNumbers().Storm.Objects - 1; len(lost) != want {
		t.Errorf("%d objects were denied, want %d", len(lost), want)
	}
	for _, p := range paths {
		allowed(t, open(p))
	}
	h.Until("it is in the change journal", func() bool { return noted(t, h, "provider.demoted", "hashlist") })
	h.Until("the old content votes", func() bool {
		s, err := h.TryStatus()
		return err == nil && provider(t, s, "hashlist").Content == old && !problem(s, "KO-1301")
	})
	h.Until("the rollback is in the change journal", func() bool { return noted(t, h, "version.rolled-back", "hashlist") })
	denied(t, open(h.File("bad", badText)))
	s := h.Status()
	p := provider(t, s, "hashlist")
	if !strings.Contains(p.Versions.Rollback, "deny storm: content denied 5 objects") || p.Demoted != nil {
		t.Errorf("rollback %q, demoted %+v", p.Versions.Rollback, p.Demoted)
	}
	if !problem(s, "KO-1704") || !problem(s, "KO-1706") {
		t.Errorf("problems %v", s.Problems)
	}
	must(t, reload(h)) // the refused content is not tried again by itself

	// Who wants these denials gets them.
	var digest string
	for _, q := range s.Problems {
		if q.Code == "KO-1706" {
			digest = q.Fix[strings.LastIndex(q.Fix, " ")+1:]
		}
	}
	if out, code := command(t, h, "provider", "allow", "hashlist", digest); code != 0 {
		t.Fatalf("allow: %s", out)
	}
	h.Until("the new list is in force again", func() bool { return provider(t, h.Status(), "hashlist").Content != old })
	h.Until("the list trips again", func() bool {
		for _, p := range paths {
			_ = open(p)
		}
		return provider(t, h.Status(), "hashlist").Demoted != nil
	})
	if out, code := command(t, h, "provider", "enable", "hashlist"); code != 0 {
		t.Fatalf("enable: %s", out)
	}
	for _, p := range paths {
		denied(t, open(p))
	}
}

// TestStormSparesTheVital: what a host cannot be repaired without, and the platform's own files, are not denied by a
// provider that denies everything, and these denials do not even take place: they trip nothing.
func TestStormSparesTheVital(t *testing.T) {
	need(t)
	dir := testenv.Tmpfs(t, "256m")
	vital := files(t, dir, "FAULT", 10)
	opt := testhost.Options{
		Providers: []testhost.Provider{subject("all", "deny", event.Enforce)}, Watch: dir,
		Extra: "vital: [" + strings.Join(vital, ", ") + "]",
	}
	h := testhost.Prepare(t, opt)
	h.State = filepath.Join(dir, "state")
	h.Launch(opt)
	own := write(t, filepath.Join(h.State, "state", "own"), "FAULT", 0o644)
	foreign := write(t, filepath.Join(h.State, "state", "foreign"), "FAULT", 0o644)
	must(t, unix.Chown(foreign, 1000, 1000))
	before := counters(t, h, "all").Delivered
	for range 3 {
		for _, path := range append(vital, own) {
			allowed(t, open(path))
		}
	}
	s := h.Status()
	if p := provider(t, s, "all"); p.Demoted != nil || p.Counters.Delivered != before {
		t.Errorf("it was asked about what is vital: %+v", p)
	}
	denied(t, open(foreign))
	denied(t, open(h.File("other", "FAULT")))
	if n := s.Sensor.Unasked[event.ReasonVital]; n < 33 {
		t.Errorf("%d opens were vital", n)
	}
}
