package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollout/simulate"
)

func (a *app) rolloutCommand() *cobra.Command {
	return group("rollout", "New engines and content, ring by ring",
		append(a.rolloutAdminCommands(), a.rolloutSimulateCommand())...)
}

func (a *app) rolloutSimulateCommand() *cobra.Command {
	opt := simulate.Defaults()
	opt.Hosts = 1_000_000
	var plot string
	cmd := &cobra.Command{
		Use: "simulate", Short: "Play a rollout over a simulated fleet, with the controller that decides in the field",
		Long: simulateHelp(), Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opt.Check(); err != nil {
				return usageError{err}
			}
			if ext := filepath.Ext(plot); plot != "" && ext != ".html" && ext != ".svg" {
				return usageError{fmt.Errorf("--plot %s: want a file that ends in .html or .svg", plot)}
			}
			return a.simulateRollout(cmd.Context(), opt, plot)
		},
	}
	f := cmd.Flags()
	f.IntVar(&opt.Hosts, "hosts", opt.Hosts, "machines in the fleet")
	f.StringVar(&opt.Scenario, "scenario", opt.Scenario, "what the release does (see above)")
	f.StringVar(&opt.Schedule, "schedule", opt.Schedule, "fast, normal or engine: how long a host soaks")
	f.IntVar(&opt.Seeds, "seeds", opt.Seeds, "runs")
	f.Uint64Var(&opt.Seed, "seed", opt.Seed, "seed of the first run; the next run has the next one")
	f.IntVar(&opt.Start, "start", opt.Start, "hour of the day at which it starts, 0 to 23")
	f.Float64Var(&opt.Beacon, "beacon", opt.Beacon, "share of dead hosts whose recovery environment gets through")
	f.Float64Var(&opt.Liars, "liars", opt.Liars, "share of hosts that say they are well whatever happens")
	f.Float64Var(&opt.Skewed, "skewed", opt.Skewed, "share of hosts whose clock is too wrong to accept a grant")
	f.StringVar(&plot, "plot", "", "also draw broken hosts over time into this file (.html or .svg)")
	return cmd
}

func simulateHelp() string {
	var b strings.Builder
	b.WriteString("Play a rollout over a simulated fleet, with the controller that decides in the field.\n\nScenarios:\n")
	names, about := simulate.Scenarios()
	for i, n := range names {
		fmt.Fprintf(&b, "  %-16s %s\n", n, about[i])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (a *app) simulateRollout(ctx context.Context, opt simulate.Options, plot string) error {
	clearLine := a.showProgress(&opt)
	res, err := simulate.Play(ctx, opt)
	clearLine()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted: no result")
		}
		return err
	}
	if plot != "" {
		if err := writePlot(plot, res); err != nil {
			return fmt.Errorf("plot: %w", err)
		}
	}
	if a.output == "json" {
		return printJSON(a.out, res)
	}
	a.printSimulation(res)
	if plot != "" {
		fmt.Fprintf(a.out, "\nbroken hosts over time: %s\n", plot)
	}
	return nil
}

func writePlot(file string, res *simulate.Result) error {
	var b strings.Builder
	if err := simulate.Plot(&b, res, filepath.Ext(file) == ".html"); err != nil {
		return err
	}
	return durable.WriteFile(file, []byte(b.String()), 0o644)
}

// How often progress is written: over the same line of a terminal, and as another line of anything else.
const (
	progressTerminal = time.Second / 4
	progressLog      = 30 * time.Second
)

// showProgress tells on standard error how far it is. The returned function takes it away from a terminal.
func (a *app) showProgress(opt *simulate.Options) func() {
	f, ok := a.err.(*os.File)
	if !ok {
		return func() {}
	}
	every, before, after := progressLog, "", "\n"
	last := time.Now()
	if term.IsTerminal(int(f.Fd())) {
		every, before, after, last = progressTerminal, "\r\x1b[K", "", time.Time{}
	}
	shown := false
	opt.Progress = func(p simulate.Progress) {
		if time.Since(last) < every {
			return
		}
		last, shown = time.Now(), true
		fmt.Fprintf(f, "%srun %d of %d: %v, %s hosts granted%s", before, min(p.Done+1, p.Seeds), p.Seeds,
			p.At.Round(time.Minute), grouped(p.Granted), after)
	}
	return func() {
		if shown {
			fmt.Fprint(f, before)
		}
	}
}

func (a *app) printSimulation(res *simulate.Result) {
	o := res.Options
	fmt.Fprintf(a.out, "%s, %s hosts, schedule %s, %s from seed %d; start at %d:00, beacon %g, liars %g\n\n",
		a.paint.in(bold, res.Scenario), grouped(res.Hosts), res.Schedule, plural(res.Seeds, "run"), res.Seed,
		o.Start, o.Beacon, o.Liars)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	runs := plural(res.Seeds, "run")
	fmt.Fprintf(w, "stopped by a gate\t%d of %s\n", res.Halted, runs)
	if res.MinutesToHalt != nil {
		fmt.Fprintf(w, "after\t%.1f minutes (median)\n", *res.MinutesToHalt)
		fmt.Fprintf(w, "because\t%s\n", res.Evidence)
	}
	if res.Completed > 0 {
		fmt.Fprintf(w, "complete\t%d of %s, after %.0f minutes (median)\n", res.Completed, runs, res.Minutes)
	}
	fmt.Fprintf(w, "granted\t%s hosts (median)\n", grouped(res.Granted))
	b := res.Broken
	fmt.Fprintf(w, "broken\t%s hosts (median), %s (99th percentile)\n", grouped(b.Median), grouped(b.P99))
	for _, r := range res.References {
		fmt.Fprintf(w, "broken by %s\t%s hosts (%s)\n", r.Name, grouped(r.Broken), r.About)
	}
	_ = w.Flush() // as with Fprint: there is nobody to tell
	if len(res.Runs) > 0 {
		a.printFunnel(res)
	}
}

// printFunnel prints the rings of the first run.
func (a *app) printFunnel(res *simulate.Result) {
	x := res.Runs[0].State.Explain()
	fmt.Fprintf(a.out, "\n%s\n", a.paint.in(bold, fmt.Sprintf("rings of seed %d: %s", res.Runs[0].Seed, x.Status)))
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ring\tmembers\tgranted\tsoaking\tconfirmed\tsilent\trolled back\t")
	for _, r := range x.Rings {
		name := strconv.Itoa(r.Ring)
		if r.Role == "control" {
			name = "control"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, grouped(r.Members), grouped(r.Granted), grouped(r.Soaking),
			grouped(r.Confirmed), grouped(r.Silent), grouped(r.RolledBack+r.Failed))
	}
	_ = w.Flush() // as above
}

// grouped writes a count with commas, which a fleet needs.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
