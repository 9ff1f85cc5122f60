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
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/guard/link"
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
		Memory: d.leases.Counters(), Sensor: d.sensor.Counters(), Watching: d.sensor.Filesystems(),
		Journal: control.JournalStatus{Lost: d.journal.Lost() + d.trail.Lost(), Head: d.journal.Head()},
		Allowed: []control.Allowance{},
	}
	for _, p := range d.pardons.All() {
		s.Allowed = append(s.Allowed, control.Allowance{
			SHA256: p.SHA256, Until: p.Until, Reason: p.Reason, Used: p.Used,
		})
	}
	s.Guard = control.GuardStatus{PID: os.Getppid(), Cores: d.gap.Cores}
	if d.gap.Cause != link.None {
		s.Guard.Gap = &control.Gap{
			Cause: d.gap.Cause.String(), LengthMS: d.gap.Length.Milliseconds(), Decided: d.gap.Decided, Until: d.since,
		}
	}
	more := append(d.gapProblem(), d.roster.Problems()...)
	more = append(more, d.boot.problems(d.command)...)
	more = append(more, d.updates.problems()...)
	if err := d.sensor.Unmarked(); err != nil {
		more = append(more, health.Problem{
			Code: "KO-1205", Severity: health.Failure, Title: fmt.Sprintf("not everything that is watched is marked: %v", err),
			Fix: d.command("config reload"),
		})
	}
	for i := range more { // they do not know where this daemon is found
		more[i].Fix = strings.ReplaceAll(more[i].Fix, "keepout provider", d.command("provider"))
	}
	s.Problems = d.noticed.carry(problems(&s, d.sensor.Health(), d.command, more...), time.Now())
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

// problems derives what a person must know, beside more; command makes a hint that can be typed as it stands. It is
// pure.
func problems(
	s *control.Status, sensorErr error, command func(string) string, more ...health.Problem,
) []health.Problem {
	out := slices.Clone(more)
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
		if p.Mode == event.Enforce && up(p.State) && p.Demoted == nil {
			enforcing++
		}
		out = append(out, standingProblems(p, command)...)
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

// vital returns the paths that no provider may deny beside the usual ones: what the administrator names, and our own.
func (d *Daemon) vital(loaded *config.Loaded) []string {
	out := append([]string{}, loaded.Vital...)
	for _, name := range []string{"keepoutd", "keepout-core", "keepout"} {
		out = append(out, filepath.Join(filepath.Dir(os.Args[0]), name))
	}
	return out
}

// standingProblems says why a provider that runs is not waited for.
func standingProblems(p *roster.Status, command func(string) string) (out []health.Problem) {
	enable := command("provider enable " + p.ID)
	switch {
	case p.Demoted == nil:
	case p.Demoted.Why == docket.DenyStorm:
		out = append(out, health.Problem{
			Code: "KO-1312", Severity: health.Failure, Provider: p.ID, Title: p.Demoted.Cause + "; it is in audit",
			Fix: "give it back its old content; if these denials are meant: " + enable,
		})
	default:
		out = append(out, health.Problem{
			Code: "KO-1311", Severity: health.Warning, Provider: p.ID, Title: p.Demoted.Cause + "; it is in audit",
			Fix: "raise budgets: or give it more room; it enforces again when it is faster, or now: " + enable,
		})
	}
	for _, b := range p.Breaker {
		if b.State != arbiter.Closed && up(p.State) {
			out = append(out, health.Problem{
				Code: "KO-1310", Severity: health.Warning, Provider: p.ID,
				Title: fmt.Sprintf("%s is bypassed for %s: %d votes missing so far, %d events passed by", p.ID, b.Type,
					b.Misses, b.Bypassed),
				Fix: "see what it waits for; it is tried on copies and comes back by itself",
			})
		}
	}
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
		q.Code, q.Title = "KO-1304", p.ID+" runs in a reduced cage: "+strings.Join(p.Confinement.Missing(), "; ")
		q.Fix = "docs/threat-model.md says what each layer needs and stops"
		if !p.Confinement.Weak() {
			q.Severity = health.Info // the other layers make up for it
		}
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
