package daemon

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

func (d *Daemon) journalDir() string { return filepath.Join(d.opt.StateDir, "journal") }

// status gathers what the parts know.
func (d *Daemon) status() control.Status {
	s := control.Status{
		Version: d.opt.Version, Mode: d.Policy().Mode, Tier: "B", PID: os.Getpid(), Since: d.since,
		Config: d.opt.Config, Providers: d.roster.Status(), Verdicts: d.docket.Totals(),
		Sensor: d.sensor.Counters(), Watching: d.sensor.Filesystems(),
		Journal: control.JournalStatus{Lost: d.journal.Lost() + d.trail.Lost(), Head: d.journal.Head()},
		Allowed: []control.Allowance{},
	}
	for _, p := range d.pardons.All() {
		s.Allowed = append(s.Allowed, control.Allowance{
			SHA256: p.SHA256, Until: p.Until, Reason: p.Reason, Used: p.Used,
		})
	}
	s.Problems = d.noticed.carry(problems(&s, d.sensor.Health(), d.command), time.Now())
	return s
}

// command is a line for a shell that runs keepout against this daemon.
func (d *Daemon) command(args string) string { return control.Command(d.opt.RunDir, args) }

// healthEvery is how often problems are looked for while nobody asks, so that each knows since when it is there.
const healthEvery = 10 * time.Second

// noticed remembers since when the problems are there.
type noticed struct {
	mu   sync.Mutex
	last []health.Problem
}

func (n *noticed) carry(problems []health.Problem, now time.Time) []health.Problem {
	n.mu.Lock()
	defer n.mu.Unlock()
	health.Carry(n.last, problems, now)
	n.last = slices.Clone(problems)
	return problems
}

// problems derives what a person must know; command makes a hint that can be typed as it stands. It is pure.
func problems(s *control.Status, sensorErr error, command func(string) string) []health.Problem {
	out := []health.Problem{}
	add := func(code string, severity health.Severity, fix, format string, args ...any) {
		out = append(out, health.Problem{Code: code, Severity: severity, Fix: fix, Title: fmt.Sprintf(format, args...)})
	}
	if s.Mode == event.Monitor {
		add("KO-1501", health.Info, command("mode enforce"), "monitor mode: nothing is denied, only recorded")
	}
	if len(s.Watching) == 0 {
		add("KO-1502", health.Warning, "add paths under watch: in "+s.Config+", then "+command("config reload"),
			"nothing is watched")
	}
	for _, f := range s.Watching {
		if f.Remote {
			add("KO-1201", health.Warning, "watch the file system on the machine that holds it",
				"%s is a %s file system: its files are allowed unasked", f.Path, f.Kind)
			out[len(out)-1].Subject = f.Path
		}
	}
	if sensorErr != nil {
		add("KO-1202", health.Failure, "restart keepoutd and report this", "the sensor stopped reading: %v", sensorErr)
	}
	if s.Sensor.NoFile > 0 {
		add("KO-1204", health.Warning, "raise the descriptor limit of keepoutd and of the host (fs.file-max)",
			"the kernel refused %s because it had no descriptor for us", number(s.Sensor.NoFile, "open"))
	}
	if s.Sensor.Overflows > 0 {
		add("KO-1203", health.Warning, "raise fs.fanotify.max_queued_events",
			"notify events were lost %s", number(s.Sensor.Overflows, "time"))
	}
	if s.Journal.Lost > 0 {
		add("KO-1401", health.Warning, "make room on the disk; verdicts go on meanwhile",
			"%s could not be kept", number(s.Journal.Lost, "record"))
	}
	enforcing := 0
	for i := range s.Providers {
		p := &s.Providers[i]
		if p.Mode == event.Enforce && up(p.State) {
			enforcing++
		}
		if q, bad := providerProblem(p, command); bad {
			out = append(out, q)
		}
	}
	if s.Mode == event.Enforce && enforcing == 0 {
		add("KO-1601", health.Failure,
			"write mode: enforce for a provider and reload, or see why none runs: "+command("provider list"),
			"enforce mode, but no provider in mode enforce votes")
	}
	health.Sort(out)
	return out
}

func up(s supervisor.State) bool { return s == supervisor.Running || s == supervisor.Degraded }

func providerProblem(p *roster.Status, command func(string) string) (health.Problem, bool) {
	q := health.Problem{Severity: health.Warning, Provider: p.ID}
	switch p.State {
	case supervisor.Running:
		if !p.Confinement.Reduced {
			return q, false
		}
		q.Code, q.Title, q.Fix = "KO-1304", p.ID+" runs in a reduced cage", command("doctor")+" names what is missing"
	case supervisor.Degraded:
		q.Code, q.Title = "KO-1302", fmt.Sprintf("%s is degraded: %s", p.ID, brief(p.Detail))
		q.Fix = command("provider list") + " shows it in full; mend its content, then " + command("config reload")
	case supervisor.Disabled:
		q.Code, q.Title, q.Fix = "KO-1303", p.ID+" is disabled", command("provider enable "+p.ID)
	case supervisor.Starting, supervisor.Loading:
		q.Code, q.Title = "KO-1301", fmt.Sprintf("%s does not vote yet: it is %s", p.ID, p.State)
		q.Fix = "give it the time to load; " + command("provider list") + " shows how far it is"
	default:
		what, next := health.Split(p.Cause)
		q.Code, q.Title = "KO-1301", fmt.Sprintf("%s does not vote: %s", p.ID, brief(cmp.Or(what, string(p.State))))
		q.Fix = cmp.Or(next, command("provider list")+" shows the cause in full and the next try")
	}
	return q, true
}

// maxBrief bounds what a problem quotes of somebody else's words, in characters; the provider's status has them all.
const maxBrief = 100

// brief shortens somebody else's words to one line.
func brief(words string) string {
	words, _, _ = strings.Cut(words, "\n")
	if r := []rune(words); len(r) > maxBrief {
		return string(r[:maxBrief-1]) + "…"
	}
	return words
}

// number is a count with its noun.
func number(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// refusedReload says once what is wrong and once what to do.
func (d *Daemon) refusedReload(err error) health.Problem {
	p := health.Problem{
		Code: "KO-2007", Severity: health.Failure, Title: "the old configuration stays: " + health.Unadvised(err),
		Fix: "keepout config check " + d.opt.Config + " --providers-dir " + d.opt.ProvidersDir,
	}
	if parts := strings.Split(err.Error(), ". Next: "); len(parts) == 2 { // one thing is wrong
		p.Fix = parts[1] + "; then " + d.command("config reload")
	}
	return p
}
