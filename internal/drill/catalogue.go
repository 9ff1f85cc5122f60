package drill

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// Numbers of every drill's configuration and judgement.
const (
	contentBudget = 2 * time.Second        // the default: less would tell a busy machine's story, not the fault's
	rule          = contentBudget * 8 / 10 // when a missing vote is replaced by policy
	stallLimit    = time.Second
	paceSoon      = 20 * time.Second // two parts of a window, after which a provider is noticed that is always slow
	margin        = time.Second      // generous: a busy machine is no failure
	recovery      = 5 * time.Second  // from bad content to last-known-good
)

// The hostile engines, by their folder in bin/hostile.
const (
	faulty     = "faulty"
	channel291 = "channel291"
)

// Drill is one fault and what must be seen of it.
type Drill struct {
	Name  string // for the command line
	Group string // a name that selects several
	Title string // what goes wrong, in a few words

	Engine   string            // of bin/hostile
	Settings map[string]string // of the hostile provider
	Content  map[string]string // its content at the start: files and their text
	NoSchema bool              // its content is not checked against a schema
	NoLoad   bool              // its content is not loaded in a throw-away cage first

	Update map[string]string // the fault is an update of its content, then a reload, or
	Signal unix.Signal       // a signal to its process,
	Core   bool              // or to the core's

	Stall       bool          // the openers may wait for the stall limit instead of the budget
	Rule        time.Duration // what they may wait, where it is not this package's own number
	GoodOnly    bool          // nobody denies a file here: what is let through cannot be seen
	DenyFor     time.Duration // how long good files may be denied, once the fault is committed
	OpenFor     time.Duration // how long bad files may pass
	Expect      []Expectation
	Explanation string // one more sentence, for the report
}

// rule is what an open may wait.
func (d *Drill) rule() time.Duration {
	switch {
	case d.Rule > 0:
		return d.Rule
	case d.Stall:
		return stallLimit
	}
	return rule
}

// Expectation is one thing that must be seen after the fault.
type Expectation struct {
	What string
	See  Sight

	// After is how long the fault must last for it: a shorter drill does not expect it.
	After time.Duration
}

// plan makes an update of the engine faulty; it meets every event.
func plan(lines ...string) map[string]string {
	return map[string]string{"plan.txt": strings.Join(append(lines, "on every"), "\n") + "\n"}
}

// upset is a drill whose fault arrives as a content update of the engine faulty, which shows it only when it votes on
// this host's events: a throw-away load would find most of them.
func upset(name, title string, lines []string, expect ...Expectation) Drill {
	return Drill{
		Name: name, Title: title, Engine: faulty, Content: plan("fault none"), Update: plan(lines...), NoLoad: true,
		Expect: expect,
	}
}

// onLoad is an upset that a throw-away load finds.
func onLoad(name, title string, lines []string, expect ...Expectation) Drill {
	d := upset(name, title, lines, append(expect, Expectation{
		What: "the update is refused before the running engine sees it", See: Sight{Kind: seeRefused},
	}, Expectation{What: "it goes on with what it had", See: Sight{Kind: seeUntouched}})...)
	d.NoLoad = false
	return d
}

// What many drills must see.
func restarted() Expectation {
	return Expectation{What: "its process ended and was started again", See: Sight{Kind: seeRestarts, N: 1}}
}

// lost is what is seen of a crash: its pending votes are replaced when the end of the process is noticed, or at their
// deadline, whichever comes first.
func lost() Expectation {
	return Expectation{
		What: "what it owed was answered by its policy",
		See:  Sight{Kind: seeReason, Text: "^(" + string(event.ReasonLost) + "|" + string(event.ReasonDeadline) + ")$"},
	}
}

func missed() Expectation {
	return Expectation{
		What: "missing votes were replaced at 80 % of the budget",
		See:  Sight{Kind: seeReason, Text: "^" + string(event.ReasonDeadline) + "$"},
	}
}

func counted(counter, what string) Expectation {
	return Expectation{What: what, See: Sight{Kind: seeCounter, Text: counter, N: 1}}
}

func bypassed() Expectation {
	return Expectation{
		What: "the breaker stops waiting for it", See: Sight{Kind: seeNote, Text: "bypass"},
	}
}

func rolledBack() Expectation {
	return Expectation{
		What: "its content is rolled back, with the cause", See: Sight{Kind: seeNote, Text: "roll(ed)?[ -]?back"},
	}
}

// Catalogue lists the drills in the order of --all.
func Catalogue() []Drill {
	return slices.Concat(crashes(), silences(), hunger(), lies(), channelFile(), core())
}

func crashes() []Drill {
	killed := Drill{
		Name: "killed", Title: "the process is killed from outside", Engine: faulty, Content: plan("fault none"),
		Signal: unix.SIGKILL,
		Expect: []Expectation{restarted(), {
			What: "it votes again", See: Sight{Kind: seeState, Text: string(supervisor.Running)},
		}},
	}
	return []Drill{
		upset("crash", "the engine crashes on every event", []string{"fault crash"},
			lost(), restarted(), rolledBack()),
		onLoad("crash-on-load", "the new content ends the engine while it loads", []string{"fault crash-on-load"}),
		onLoad("crash-checked", "the crash again, found before it runs on this host", []string{"fault crash"}),
		upset("flapping", "the engine ends 0.4 s after each start", []string{"fault flap"}, restarted(), rolledBack()),
		killed,
	}
}

func silences() []Drill {
	return []Drill{
		upset("hang", "the engine never answers", []string{"fault hang"},
			missed(),
			counted("late", "the misses were counted"), bypassed()),
		{
			Name: "stop", Title: "the process is stopped (SIGSTOP)", Engine: faulty, Content: plan("fault none"),
			Signal: unix.SIGSTOP,
			Expect: []Expectation{
				missed(), restarted(), bypassed(),
			},
		},
		upset("slow", "every vote takes 1.2 s of its 2 s", []string{"delay 1200ms"},
			counted("answered", "its votes are counted"),
			Expectation{
				What: "it is put in audit, and nobody waits for it", See: Sight{Kind: seeNote, Text: "slow.*audit"},
				After: paceSoon + 10*time.Second,
			}),
		upset("late", "every vote comes just after its deadline", []string{"fault late"},
			missed(),
			counted("late_votes", "the late votes were counted"), bypassed()),
		onLoad("hang-on-load", "the engine never finishes loading", []string{"fault hang-on-load"}),
	}
}

func hunger() []Drill {
	return []Drill{
		upset("spin", "the engine burns every processor it gets", []string{"fault spin"}, Expectation{
			What: "it gets no more than half a processor", See: Sight{Kind: seeCPUBelow, N: 60},
		}, Expectation{What: "it makes way for whoever wants a processor", See: Sight{Kind: seeYields}}),
		upset("leak", "the engine takes memory without end", []string{"fault leak"},
			Expectation{What: "it gets no more than its 256 MiB", See: Sight{Kind: seeMemoryBelow, N: 257}}, restarted()),
		upset("fork-bomb", "the engine starts processes without end", []string{"fault forkbomb"},
			Expectation{What: "it gets no more than its 64 processes", See: Sight{Kind: seeProcessesBelow, N: 65}}),
		upset("descriptor-leak", "the engine keeps every descriptor it is given", []string{"fault fdleak"},
			Expectation{What: "it gets no more than its 128 descriptors", See: Sight{Kind: seeFilesBelow, N: 129}}),
	}
}

func lies() []Drill {
	deny := upset("deny-everything", "the new content denies every file", []string{"fault deny"},
		Expectation{What: "it is put in audit", See: Sight{Kind: seeNote, Text: "deny-storm|audit"}},
		rolledBack())
	deny.DenyFor = recovery
	liar := upset("liar", "the engine allows and denies at random", []string{"fault lie"},
		Expectation{What: "it is put in audit", See: Sight{Kind: seeNote, Text: "deny-storm|audit"}})
	liar.DenyFor = recovery
	return []Drill{
		upset("garbage", "the engine sends bytes that are no message", []string{"fault garbage"},
			lost(), restarted()),
		upset("overlong", "the engine sends packets over the limit", []string{"fault overlong"},
			lost(), restarted()),
		upset("double-votes", "the engine votes twice on every event", []string{"fault double"},
			counted("double_votes", "second votes were counted, and changed nothing")),
		upset("unknown-votes", "the engine votes on what it was not asked", []string{"fault unknown"},
			counted("unknown", "they were counted"), restarted()),
		deny, liar,
	}
}

func core() []Drill {
	again := Expectation{What: "a new core goes on", See: Sight{Kind: seeNewCore}}
	base := Drill{
		Engine: faulty, Content: plan("fault none"), Core: true, Stall: true,
		OpenFor: recovery, Expect: []Expectation{again},
	}
	crash, stop := base, base
	crash.Name, crash.Title, crash.Signal = "core-crash", "the core itself is killed (SIGKILL)", unix.SIGKILL
	stop.Name, stop.Title, stop.Signal = "core-stop", "the core itself is stopped (SIGSTOP)", unix.SIGSTOP
	return []Drill{crash, stop}
}

// Find returns the drills that a name selects: one, or a group.
func Find(name string) []Drill {
	return slices.DeleteFunc(Catalogue(), func(d Drill) bool { return d.Name != name && d.Group != name })
}

// Entry is a drill as it is listed.
type Entry struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// Names lists the catalogue.
func Names() []Entry {
	all := Catalogue()
	out := make([]Entry, len(all))
	for i, d := range all {
		out[i] = Entry{Name: d.Name, Title: d.Title}
	}
	return out
}
