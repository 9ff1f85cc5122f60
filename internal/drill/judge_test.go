package drill

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/session"
	"github.com/keepout-security/keepout/internal/supervisor"
)

const second = time.Second

// quiet is what was observed when nothing went wrong: opens of both kinds, before and after a fault at 1 s.
func quiet() evidence {
	e := evidence{
		fault: second, lifted: 10 * second, reasons: map[event.Reason]times{},
		before: roster.Status{State: supervisor.Running, PID: 7, Content: "v1"},
		last:   roster.Status{State: supervisor.Running, PID: 7, Content: "v1"},
		states: []stateSeen{{at: 0, state: supervisor.Running}},
		cores:  []coreSeen{{at: 0, pid: 100}},
		usage:  Usage{MemoryMiB: 10, Processes: 10, Files: 10, CPUPercent: 10},
	}
	for at := time.Duration(0); at < 10*second; at += second / 10 {
		e.opens = append(e.opens, opened{at: at, took: time.Millisecond},
			opened{at: at, took: time.Millisecond, bad: true, how: denied})
		e.votes = append(e.votes, voted{at: at, took: time.Millisecond, id: "hashlist"})
	}
	return e
}

func sound() Drill { return Drill{Name: "x", Title: "x", Engine: faulty} }

func failures(checks []Check) (what []string) {
	for _, c := range checks {
		if !c.Passed {
			what = append(what, c.What)
		}
	}
	return what
}

// TestPromises: each promise can be broken, and is not by what is fine.
func TestPromises(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		drill func(*Drill)
		e     func(*evidence)
		want  string // how the broken promise begins; "": none
	}{
		{"nothing", nil, func(*evidence) {}, ""},
		{"before the fault", nil, func(e *evidence) {
			e.opens = append(e.opens, opened{at: second / 2, took: 9 * second}, opened{at: second / 2, how: denied})
		}, ""},
		{"waits", nil, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 5 * second, took: rule + margin + 1e6})
		}, "no open waited"},
		{"no open", nil, func(e *evidence) { e.opens = nil }, "no open waited"},
		{"fails", nil, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 5 * second, how: failed})
		}, "no open failed"},
		{"wrongly", nil, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 5 * second, how: denied})
		}, "no good file"},
		{"missed", nil, func(e *evidence) { e.opens = append(e.opens, opened{at: 5 * second, bad: true}) }, "no bad file"},
		{"wrongly for a while", func(d *Drill) { d.DenyFor = recovery }, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 5 * second, how: denied})
		}, ""},
		{"wrongly for too long", func(d *Drill) { d.DenyFor = recovery }, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 7 * second, how: denied})
		}, "good files are no longer denied"},
		{"missed for too long", func(d *Drill) { d.OpenFor = recovery }, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 7 * second, bad: true})
		}, "bad files are denied again"},
		{"longer than this drill", func(d *Drill) {
			d.Expect = []Expectation{{What: "x", See: Sight{Kind: seeNewCore}, After: time.Minute}}
		}, func(*evidence) {}, ""},
		{"as long as this drill", func(d *Drill) {
			d.Expect = []Expectation{{What: "x", See: Sight{Kind: seeNewCore}, After: 9 * second}}
		}, func(*evidence) {}, "x"},
		{"stall", func(d *Drill) { d.Stall = true }, func(e *evidence) {
			e.opens = append(e.opens, opened{at: 5 * second, took: stallLimit + margin - 1e6})
		}, ""},
	} {
		d, e := sound(), quiet()
		if c.drill != nil {
			c.drill(&d)
		}
		c.e(&e)
		got := failures(d.judge(&e))
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)) {
			t.Errorf("%s: broken promises: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestSights: nothing is seen in a quiet drill that a fault must show, and each can be seen.
func TestSights(t *testing.T) {
	t.Parallel()
	note := func(at time.Duration, title string) func(*evidence) {
		return func(e *evidence) {
			e.notes = append(e.notes, noteSeen{at: at, note: journal.Note{Code: "provider.x", Title: title}})
		}
	}
	for _, c := range []struct {
		see  Sight
		make func(*evidence)
	}{
		{Sight{Kind: seeRestarts, N: 2}, func(e *evidence) { e.last.Restarts = 2 }},
		{Sight{Kind: seeRestarts, N: 1}, func(e *evidence) { // and its counter began anew
			e.states = append(e.states, stateSeen{at: 2 * second, state: supervisor.Backoff},
				stateSeen{at: 3 * second, state: supervisor.Starting})
		}},
		{Sight{Kind: seeState, Text: "running"}, func(e *evidence) {
			e.states = append(e.states, stateSeen{at: 2 * second, state: supervisor.Backoff})
		}},
		{Sight{Kind: seeCounter, Text: "late", N: 1}, func(e *evidence) { e.last.Counters = session.Counters{Late: 1} }},
		{Sight{Kind: seeReason, Text: "^deadline$"}, func(e *evidence) { e.count(event.ReasonDeadline, 2*second) }},
		{Sight{Kind: seeNote, Text: "roll(ed)?[ -]?back"}, note(2*second, "Content was rolled back")},
		{Sight{Kind: seeRefused, Text: "KO-1007"}, func(e *evidence) { e.refused = "f:1:1: KO-1007: no" }},
		{Sight{Kind: seeRefused}, func(e *evidence) { e.refused = "no" }},
		{Sight{Kind: seeRefused, Text: "crash"}, note(2*second, "an update was refused: it crashes")},
		{Sight{Kind: seeCheck, Text: "field 21"}, func(e *evidence) { e.checked = "field 21 is" }},
		{Sight{Kind: seeYields}, func(e *evidence) { e.yields = 2 * second }},
		{Sight{Kind: seeContent, Text: "v2"}, func(e *evidence) { e.last.Content = "v2" }},
		{Sight{Kind: seeNewCore}, func(e *evidence) {
			e.cores = append(e.cores, coreSeen{at: 2 * second}, coreSeen{at: 3 * second, pid: 101})
		}},
	} {
		e := quiet()
		if ok, detail := c.see.in(&e); ok {
			t.Errorf("%+v is seen where nothing happened: %s", c.see, detail)
		}
		c.make(&e)
		if ok, detail := c.see.in(&e); !ok {
			t.Errorf("%+v is not seen: %s", c.see, detail)
		}
	}
	e := quiet()
	note(second/2, "rolled back")(&e)
	if ok, _ := (Sight{Kind: seeNote, Text: "rolled back"}).in(&e); ok {
		t.Error("a note from before the fault counts")
	}
	for _, c := range []struct {
		see    Sight
		breaks func(*evidence)
	}{
		{Sight{Kind: seeUntouched}, func(e *evidence) { e.last.PID = 8 }},
		{Sight{Kind: seeUntouched}, func(e *evidence) { e.last.Content = "v2" }},
		{Sight{Kind: seeMemoryBelow, N: 11}, func(e *evidence) { e.usage.MemoryMiB = 11 }},
		{Sight{Kind: seeProcessesBelow, N: 11}, func(e *evidence) { e.usage.Processes = 11 }},
		{Sight{Kind: seeFilesBelow, N: 11}, func(e *evidence) { e.usage.Files = 11 }},
		{Sight{Kind: seeCPUBelow, N: 11}, func(e *evidence) { e.usage.CPUPercent = 0 }}, // not measured
	} {
		e := quiet()
		if ok, detail := c.see.in(&e); !ok {
			t.Errorf("%+v fails where nothing happened: %s", c.see, detail)
		}
		c.breaks(&e)
		if ok, _ := c.see.in(&e); ok {
			t.Errorf("%+v holds, whatever happens", c.see)
		}
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	e := quiet()
	e.opens = append(e.opens,
		opened{at: 3*second + 1, took: 250 * time.Millisecond}, opened{at: 3*second + 50e6, bad: true},
		opened{at: 3*second + 60e6, bad: true}) // denied again at 3.1 s
	h := e.host(rule)
	if h.LongestMS != 250 || h.Missed != 2 || h.UnprotectedMS != 50 || h.RuleMS != 1600 {
		t.Errorf("got %+v", h)
	}
	n := e.neighbours([]string{"hashlist", "nobody"})
	if n[0].Ratio != 1 || n[0].Votes != 90 || n[1].Ratio != 0 {
		t.Errorf("neighbours %+v", n)
	}
	total := 0
	for _, b := range e.buckets() {
		total += b.Count
	}
	if total != len(e.opens) {
		t.Errorf("%d opens in buckets, %d seen", total, len(e.opens))
	}
}

// TestCatalogue: every drill is complete, and every part that it names is one.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	kinds := []string{
		seeRestarts, seeState, seeCounter, seeReason, seeNote, seeRefused, seeCheck, seeUntouched, seeContent, seeNewCore,
		seeMemoryBelow, seeProcessesBelow, seeFilesBelow, seeCPUBelow, seeYields,
	}
	for _, d := range Catalogue() {
		if names[d.Name] || d.Name == "" || d.Title == "" || len(d.Expect) == 0 || len(d.Content) == 0 {
			t.Errorf("%q is incomplete, or there twice", d.Name)
		}
		names[d.Name] = true
		if (d.Update == nil) == (d.Signal == 0) {
			t.Errorf("%s: want either an update or a signal", d.Name)
		}
		for _, x := range d.Expect {
			if _, err := regexp.Compile(x.See.Text); err != nil || !slices.Contains(kinds, x.See.Kind) {
				t.Errorf("%s: %q cannot be seen: %+v", d.Name, x.What, x.See)
			}
		}
	}
	for _, name := range []string{
		"crash", "crash-on-load", "crash-checked", "hang", "stop", "spin", "leak", "fork-bomb", "descriptor-leak",
		"garbage", "overlong",
		"double-votes", "deny-everything", "slow", "flapping", "channel-file-291", "core-crash", "core-stop",
	} {
		if !names[name] {
			t.Errorf("%s is not in the catalogue", name)
		}
	}
	if got, err := Select([]string{"channel-file-291"}); err != nil || len(got) != 3 {
		t.Errorf("the Channel File is shown %d times, %v", len(got), err)
	}
	if got, err := Select([]string{"stop", "crash", "stop"}); err != nil || len(got) != 2 || got[0].Name != "crash" {
		t.Errorf("two drills became %d, %v", len(got), err)
	}
	if _, err := Select([]string{"stop", "sing"}); err == nil || !strings.Contains(err.Error(), "KO-2012") {
		t.Errorf("an unknown drill: %v", err)
	}
}
