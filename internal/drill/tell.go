package drill

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// The colours, as SGR codes.
const (
	red    = "31;1"
	green  = "32"
	yellow = "33"
	grey   = "90"
	bold   = "1"
)

// List prints the catalogue.
func List(out io.Writer, paint func(code, text string) string) {
	for _, d := range Catalogue() {
		fmt.Fprintf(out, "%s  %s\n", paint(bold, fmt.Sprintf("%-26s", d.Name)), d.Title)
	}
	fmt.Fprintln(out, "\nkeepout drill NAME…, or keepout drill --all; as root. --for 60s lets each fault last."+
		"\nThose of a signal also run on this host's daemon: keepout drill --live "+strings.Join(liveNames(), "|"))
}

// tell prints what one drill found.
func tell(opt Options, number int, r *Result) {
	out, paint := opt.Out, opt.Paint
	fmt.Fprintf(out, "%2d %s %s  %s\n", number, verdict(paint, r), paint(bold, r.Name), r.Title)
	for _, m := range r.Timeline {
		at := float64(m.AtMS-r.FaultMS) / 1000
		fmt.Fprintf(out, "     %s %s %s\n", paint(grey, fmt.Sprintf("%+6.2f s", at)),
			paint(grey, fmt.Sprintf("%-8s", m.Lane)), m.Text)
	}
	h := r.Host
	through := fmt.Sprintf("%d let through, unprotected %.0f ms", h.Missed, h.UnprotectedMS)
	if h.GoodOnly {
		through = "let through: cannot be seen"
	}
	fmt.Fprintf(out, "     host: %d opens, longest %.1f ms (rule %.0f ms), %d wrongly denied, %s, %d failed\n", h.Opens,
		h.LongestMS, h.RuleMS, h.WronglyDenied, through, h.Failed)
	if others := compared(r); len(others) > 0 {
		fmt.Fprintf(out, "     good providers' p99: %s\n", strings.Join(others, "; "))
	}
	fmt.Fprintf(out, "     %s took at most %d MiB, %d tasks, %d descriptors, %d %% of a processor\n", r.Provider,
		r.Usage.MemoryMiB, r.Usage.Processes, r.Usage.Files, r.Usage.CPUPercent)
	for _, c := range r.Checks {
		fmt.Fprintf(out, "     %s %s%s\n", mark(paint, c.Passed), c.What, paint(grey, aside(c)))
	}
	if r.Error != "" {
		fmt.Fprintf(out, "     %s %s\n", mark(paint, false), r.Error)
	}
	fmt.Fprintln(out)
}

func verdict(paint func(code, text string) string, r *Result) string {
	if r.Passed {
		return paint(green, "PASS")
	}
	return paint(red, "FAIL")
}

func mark(paint func(code, text string) string, ok bool) string {
	if ok {
		return paint(green, "✓")
	}
	return paint(red, "✗")
}

// aside is what follows a check.
func aside(c Check) string {
	if c.Detail == "" {
		return ""
	}
	return ": " + c.Detail
}

// compared lists the good providers' votes before and after.
func compared(r *Result) (out []string) {
	for _, n := range r.Neighbours {
		if n.Ratio == 0 || n.Votes == 0 {
			out = append(out, n.ID+" no votes to compare")
			continue
		}
		out = append(out, fmt.Sprintf("%s %.2f → %.2f ms (%.1f×)", n.ID, float64(n.BeforeUS)/1000,
			float64(n.DuringUS)/1000, n.Ratio))
	}
	return out
}

// conclude prints the last lines.
func conclude(opt Options, r *Report) {
	fmt.Fprintf(opt.Out, "%d drills in %.0f s: %d passed, %d failed\n", len(r.Drills), r.Seconds, r.Passed, r.Failed)
	if opt.Report != "" {
		fmt.Fprintln(opt.Out, "report:", opt.Report)
	}
}

func writeJSON(out io.Writer, r *Report) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
