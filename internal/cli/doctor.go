package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/docs"
	"github.com/keepout-security/keepout/internal/doctor"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/wire"
)

func (a *app) doctorCommand() *cobra.Command {
	var code string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Prove protection with canaries, and check what it rests on (exit 3 when degraded)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code != "" {
				return a.explainCode(code)
			}
			// A terminal that goes away must not leave canaries behind.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			report, err := doctor.Run(ctx, doctor.Options{RunDir: a.runDir, Version: a.version})
			if errors.Is(err, context.Canceled) {
				return errors.New("interrupted; the canaries are removed")
			}
			if err != nil {
				return fmt.Errorf("doctor: %w", err)
			}
			if a.output == "json" {
				err = printJSON(a.out, report)
			} else {
				a.printReport(&report)
			}
			switch {
			case err != nil:
				return err
			case !report.Reachable:
				return exit(exitUnreachable)
			case report.Degraded():
				return exit(exitDegraded)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&code, "explain", "", "print what a code means and what to do, for example KO-1301")
	return cmd
}

// sectionTitle says what a section is about.
func sectionTitle(s doctor.Section) string {
	switch s {
	case doctor.Proof:
		return "providers, put to the test"
	case doctor.Watch:
		return "watched paths"
	case doctor.Cage:
		return "cages"
	case doctor.Core, doctor.Kernel, doctor.Host:
	}
	return string(s)
}

// printReport prints a report for people.
func (a *app) printReport(r *doctor.Report) {
	for _, section := range doctor.Sections() {
		var of []doctor.Finding
		for _, f := range r.Findings {
			if f.Section == section {
				of = append(of, f)
			}
		}
		if len(of) == 0 {
			continue
		}
		fmt.Fprintln(a.out, a.paint.in(bold, sectionTitle(section)))
		for _, f := range a.gather(section, of) {
			a.printFinding(&f)
		}
		fmt.Fprintln(a.out)
	}
	fmt.Fprintln(a.out, a.summary(r))
}

// gather puts together, on a terminal, what is well with the kernel and the host: a report shall fit on one screen, and
// what is wrong shall stand out. Elsewhere every finding keeps its line.
func (a *app) gather(section doctor.Section, findings []doctor.Finding) []doctor.Finding {
	if a.width <= 0 || section != doctor.Kernel && section != doctor.Host {
		return findings
	}
	var out []doctor.Finding
	var well []string
	for _, f := range findings {
		if f.Severity == doctor.OK {
			well = append(well, f.Title)
		} else {
			out = append(out, f)
		}
	}
	if len(well) > 0 {
		out = append(out, doctor.Finding{Section: section, Severity: doctor.OK, Title: strings.Join(well, "; ")})
	}
	return out
}

// indentation of a finding's text, and of what continues it.
const findingIndent = "    "

func (a *app) printFinding(f *doctor.Finding) {
	text := f.Title
	if f.Code != "" {
		text = f.Code + " " + text
	}
	colour := severityColours(f.Severity)
	for i, line := range a.wrap(text, findingIndent) {
		lead := findingIndent
		if i == 0 {
			lead = "  " + a.paint.in(colour, a.sign(f.Severity)) + " "
			if f.Code != "" {
				line = a.paint.in(colour, f.Code) + strings.TrimPrefix(line, f.Code)
			}
		}
		fmt.Fprintln(a.out, lead+line)
	}
	if f.Fix == "" {
		return
	}
	for _, line := range a.wrap("next: "+f.Fix, findingIndent) {
		fmt.Fprintln(a.out, findingIndent+a.paint.in(grey, line))
	}
}

// wrap fits a text into the terminal beside an indentation, and makes it safe for it. Where there is no terminal it
// stays on one line, for programs.
func (a *app) wrap(text, indent string) []string {
	width := a.width - len(indent)
	if a.width <= 0 {
		width = math.MaxInt
	}
	if a.ascii {
		text = strings.NewReplacer("µ", "u", "…", "...").Replace(text)
	}
	return wrap(text, width)
}

// summary is the last line: what it comes to, and the counts.
func (a *app) summary(r *doctor.Report) string {
	c := r.Counts
	word, colour := "protected as configured", green
	switch {
	case !r.Reachable:
		word, colour = "not protected: the core does not answer", red
	case !r.Protected():
		word, colour = "not protected as configured", red
	case c.Errors > 0:
		word, colour = "something is wrong", red
	case c.Warnings > 0:
		word, colour = "degraded", yellow
	}
	counts := fmt.Sprintf("%s in %.1f s: %d ok, %d for information, %s, %s",
		plural(c.OK+c.Info+c.Warnings+c.Errors, "check"), float64(r.TookMS)/1000, c.OK, c.Info,
		plural(c.Warnings, "warning"), plural(c.Errors, "error"))
	between := "  "
	if a.width > 0 && 2+len(word)+len(between)+len(counts) > a.width {
		between = "\n  "
	}
	return a.paint.in(colour, a.sign(worst(c))) + " " + a.paint.in(colour, word) + between + counts
}

func worst(c doctor.Counts) health.Severity {
	switch {
	case c.Errors > 0:
		return health.Failure
	case c.Warnings > 0:
		return health.Warning
	}
	return doctor.OK
}

// sign marks a severity, in UTF-8 or in ASCII.
func (a *app) sign(s health.Severity) string {
	pick := func(utf, ascii string) string {
		if a.ascii {
			return ascii
		}
		return utf
	}
	switch s {
	case doctor.OK:
		return pick("✔", "+")
	case health.Warning:
		return "!"
	case health.Failure:
		return pick("✘", "x")
	default:
		return pick("·", "-")
	}
}

func severityColours(s health.Severity) string {
	if s == doctor.OK {
		return green
	}
	return severityColour(s)
}

// asciiOnly reports whether the terminal's character set, by the usual variables, is something else than UTF-8.
// Where none is set, which is what services have, it is not UTF-8 either (POSIX).
func asciiOnly() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
		}
	}
	return true
}

// readable is how wide running text should be at the most, and is where no terminal says.
const readable = 90

// wrap breaks a text between words so that no line has more than width characters; a longer word gets its own line.
// What would move a cursor is replaced.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		word = wire.Clip(word)
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// plural is a number with its noun.
func plural[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func textWidth(terminal int) int {
	if terminal <= 0 {
		return readable
	}
	return min(terminal, readable)
}

// explainCode prints the section of docs/errors.md about a code.
func (a *app) explainCode(code string) error {
	entry, found := docs.Find(strings.ToUpper(strings.TrimSpace(code)))
	if !found {
		return usageError{errors.New("no such code: " + wire.Clip(code) + "; they look like KO-1301")}
	}
	if a.output == "json" {
		return printJSON(a.out, entry)
	}
	fmt.Fprintln(a.out, a.paint.in(bold, entry.Code)+"  "+entry.Topic)
	for _, part := range []struct{ title, text string }{{"what it means", entry.Means}, {"what to do", entry.Do}} {
		fmt.Fprintln(a.out)
		fmt.Fprintln(a.out, a.paint.in(grey, part.title))
		for _, line := range wrap(part.text, textWidth(a.width)-2) {
			fmt.Fprintln(a.out, "  "+line)
		}
	}
	return nil
}
