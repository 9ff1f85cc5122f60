package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/wire"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show mode, providers and problems (exit 3 when degraded)", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.fetchStatus(cmd.Context())
			if err != nil {
				return err
			}
			if a.output == "json" {
				err = printJSON(a.out, s)
			} else {
				err = a.printStatus(a.out, s)
			}
			if err == nil && health.Degraded(s.Problems) {
				err = exit(exitDegraded)
			}
			return err
		},
	}
}

// printStatus renders the status; top uses it too.
func (a *app) printStatus(w io.Writer, s *control.Status) error {
	healthWord := a.paint.in(green, "healthy")
	if health.Degraded(s.Problems) {
		healthWord = a.paint.in(yellow, "degraded")
	}
	v := s.Verdicts
	fmt.Fprintf(w, "%s  mode %s  tier %s (fanotify)  pid %d  up %s\n", healthWord, a.paint.in(bold, string(s.Mode)),
		s.Tier, s.PID, time.Since(s.Since).Round(time.Second))
	fmt.Fprintf(w, "verdicts: %d allowed, %d denied, %d would deny, %d timeout, %d unavailable, %d in flight\n",
		v.Allowed, v.Denied, v.WouldDeny, v.Timeout, v.Unavailable, v.InFlight)
	for _, f := range s.Watching {
		fmt.Fprintf(w, "watching: %s (%s)\n", f.Path, f.Kind)
	}
	for _, p := range s.Allowed {
		fmt.Fprintf(w, "allowed: %s until %s, %d denials lifted: %s\n", p.SHA256, p.Until.Local().Format(time.DateTime),
			p.Used, wire.Clip(p.Reason))
	}
	if err := a.printProviders(w, s.Providers, false); err != nil { // a problem says the cause
		return err
	}
	for i := range s.Problems {
		a.printProblem(w, &s.Problems[i])
	}
	return nil
}

// printProblem prints one problem: what, since when, and what to do.
func (a *app) printProblem(w io.Writer, p *health.Problem) {
	text := p.Title
	if !p.Since.IsZero() {
		text += "  (" + ago(time.Since(p.Since)) + ")"
	}
	indent := strings.Repeat(" ", len("KO-nnnn "))
	for i, line := range a.wrap(text, indent) {
		if i == 0 {
			fmt.Fprintf(w, "%s %s\n", a.paint.in(severityColour(p.Severity), p.Code), line)
		} else {
			fmt.Fprintln(w, indent+line)
		}
	}
	if p.Fix == "" {
		return
	}
	for _, line := range a.wrap("next: "+p.Fix, indent) {
		fmt.Fprintln(w, indent+line)
	}
}

// ago says how long something is there, as people do.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return fmt.Sprintf("for %.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("for %.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("for %.0f h", d.Hours())
	default:
		return fmt.Sprintf("for %.0f days", d.Hours()/24)
	}
}

// printProviders prints the table, and below it who is started again when, with the cause in full if so wanted.
func (a *app) printProviders(w io.Writer, list []roster.Status, causes bool) error {
	if len(list) == 0 {
		return nil
	}
	// Colour would upset the columns, so it comes last.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROVIDER\tMODE\tSTATE\tPID\tASKED\tANSWERED\tMISSED\tBYPASSED\tDROPPED\tP50\tP99\tCONTENT")
	for i := range list {
		p := &list[i]
		c := p.Counters
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", p.ID, p.Mode, standing(p), orDash(p.PID),
			c.Delivered, c.Answered, missed(p), c.Bypassed+c.Skipped, c.Dropped, micros(p.Latency.P50), micros(p.Latency.P99),
			cmp.Or(p.Content, "-"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for i := range list {
		p := &list[i]
		if p.State == supervisor.Backoff {
			cause := ""
			if causes {
				cause = p.Cause + "; "
			}
			fmt.Fprintf(w, "  %s: %snext try in %s\n", p.ID, cause,
				(time.Duration(p.RetryMS) * time.Millisecond).Round(100*time.Millisecond))
		}
		if p.Yields {
			fmt.Fprintf(w, "  %s: burns processor time, and makes way for whoever wants some\n", p.ID)
		}
		a.printStanding(w, p)
	}
	return nil
}

// printStanding says why a provider is not waited for, or enforces nothing.
func (a *app) printStanding(w io.Writer, p *roster.Status) {
	if d := p.Demoted; d != nil {
		fmt.Fprintf(w, "  in audit since %s: %s\n", d.Since.Local().Format(time.TimeOnly), wire.Clip(d.Cause))
	}
	for _, b := range p.Breaker {
		if b.State == arbiter.Closed {
			continue
		}
		when := "since " + b.Since.Local().Format(time.TimeOnly)
		if b.Until != nil {
			when += ", tried again at " + b.Until.Local().Format(time.TimeOnly)
		}
		fmt.Fprintf(w, "  %s: breaker of %s events %s %s: %d votes missing, %d events passed by\n", p.ID, b.Type, b.State,
			when, b.Misses, b.Bypassed)
	}
}

// standing is a provider's state in one word: whether it runs, and if it does, whether it counts.
func standing(p *roster.Status) string {
	if p.State != supervisor.Running && p.State != supervisor.Degraded {
		return string(p.State)
	}
	for _, b := range p.Breaker {
		if b.State != arbiter.Closed {
			return "bypassed"
		}
	}
	if p.Demoted != nil {
		return "demoted"
	}
	return string(p.State)
}

// missed is how many votes of a provider were late, could not be asked for, or were garbage.
func missed(p *roster.Status) (n uint64) {
	for _, b := range p.Breaker {
		n += b.Misses
	}
	return n
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// micros renders microseconds as people read them.
func micros(us int64) string {
	if us == 0 {
		return "-"
	}
	d := time.Duration(us) * time.Microsecond
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", us)
	case d < time.Second:
		return fmt.Sprintf("%.1fms", float64(us)/1e3)
	default:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
}
