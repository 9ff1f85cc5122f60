package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/health"
)

func (a *app) crashCommand() *cobra.Command {
	var dir string
	show := &cobra.Command{
		Use: "show [CODE]", Short: "Tell what happened when this machine could not start",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("want one report code at most, got %d", len(args))}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			records, err := crash.Saved(dir)
			if err != nil {
				return err
			}
			code := ""
			if len(args) == 1 {
				code = args[0]
			}
			for i := range records {
				if code == "" || strings.EqualFold(records[i].Code, code) {
					return a.printCrash(&records[i])
				}
			}
			if code != "" {
				return health.Problem{
					Code: "KO-2503", Title: "no report " + crash.Clean(code, crash.MaxName) + " is kept on this machine",
					Severity: health.Failure, Fix: a.command("crash list"),
				}
			}
			return a.printNoCrash()
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List the failures to start that are kept", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			records, err := crash.Saved(dir)
			if err != nil {
				return err
			}
			return a.printCrashes(records)
		},
	}
	notice := &cobra.Command{
		Use: "notice", Short: "Print the login notice about a recent failure to start, or nothing (for motd)",
		Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			records, err := crash.Saved(dir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.out, crash.Notice(records, time.Now()))
			return err
		},
	}
	cmd := group("crash", "Tell what happened when this machine could not start", show, list, notice)
	cmd.PersistentFlags().StringVar(&dir, "dir", "",
		"folder of the records; default: keepout/diag on the ESP or the boot file system")
	return cmd
}

func (a *app) printNoCrash() error {
	if a.output == "json" {
		return printJSON(a.out, struct{}{})
	}
	_, err := fmt.Fprintln(a.out, "This machine has not failed to start, as far as is kept.")
	return err
}

func (a *app) printCrash(r *crash.Record) error {
	if a.output == "json" {
		return printJSON(a.out, r)
	}
	s := crash.Tell(r)
	line := func(indent, text string) {
		for _, l := range a.wrap(text, indent) {
			fmt.Fprintln(a.out, indent+l)
		}
	}
	if s.Test != "" {
		line("", s.Test)
	}
	fmt.Fprintln(a.out, a.paint.in(bold, s.Title))
	line("", "It was "+crash.When(r.Time)+".")
	fmt.Fprintln(a.out)
	for _, fact := range s.Facts {
		line("  ", fact)
	}
	line("  ", s.Suspect)
	if s.Reason != "" {
		line("    ", s.Reason)
	}
	if len(s.Steps) > 0 {
		fmt.Fprintln(a.out)
		fmt.Fprintln(a.out, "What was done")
	}
	for _, step := range s.Steps {
		text := step.Text
		if step.Detail != "" {
			text += ": " + step.Detail
		}
		fmt.Fprintf(a.out, "  %-8s %s\n", progressWord(step.Progress), strings.Join(a.wrap(text, "           "),
			"\n           "))
	}
	fmt.Fprintln(a.out)
	for _, text := range []string{s.Outcome, s.Files, strings.TrimSpace(s.Report + "  " + s.Address)} {
		if text != "" {
			line("", text)
		}
	}
	if len(r.Details) > 0 {
		fmt.Fprintln(a.out)
		fmt.Fprintln(a.out, "Details")
		for _, d := range r.Details {
			fmt.Fprintln(a.out, "  "+d)
		}
	}
	return nil
}

func progressWord(p crash.Progress) string {
	switch p {
	case crash.Done, crash.Failed, crash.Skipped:
		return string(p)
	case crash.Running:
		return "begun"
	case crash.Waiting:
	}
	return "not yet"
}

func (a *app) printCrashes(records []crash.Record) error {
	if a.output == "json" {
		if records == nil {
			records = []crash.Record{}
		}
		return printJSON(a.out, records)
	}
	if len(records) == 0 {
		return a.printNoCrash()
	}
	for i := range records {
		r := &records[i]
		what := "not recovered"
		switch {
		case r.Test:
			what = "rehearsal"
		case r.Outcome != nil && r.Outcome.Recovered:
			what = "recovered"
		}
		suspect := "nobody suspected"
		if r.Suspect != nil {
			suspect = "suspected: " + r.Suspect.Label()
		}
		fmt.Fprintf(a.out, "%-10s %s  %-13s  %s\n", r.Code, r.Time.UTC().Format("2006-01-02 15:04"), what, suspect)
	}
	return nil
}
