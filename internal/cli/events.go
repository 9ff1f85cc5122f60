package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/wire"
)

func (a *app) eventsCommand() *cobra.Command {
	req := control.Request{Do: "events"}
	var since time.Duration
	cmd := &cobra.Command{
		Use: "events", Short: "List recent verdicts, or follow them", Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since < 0 {
				return usageError{errors.New("--since is in the past: write for example 1h")}
			}
			req.Seconds = int64(since.Seconds())
			lost := uint64(0)
			return a.ask(cmd.Context(), req, func(r control.Reply) error {
				if r.Record == nil {
					return nil
				}
				if r.Lost > lost {
					a.missing(r.Lost - lost)
					lost = r.Lost
				}
				if a.output == "json" {
					return a.printOCSF(r.Record)
				}
				_, err := fmt.Fprintln(a.out, a.line(r.Record))
				return err
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&req.Follow, "follow", "f", false, "go on until interrupted")
	f.BoolVar(&req.Denied, "denied", false, "only what was or would have been denied")
	f.IntVarP(&req.Limit, "last", "n", 0, "at most so many past events")
	f.DurationVar(&since, "since", 0, "only events of the last so long, for example 1h")
	return cmd
}

// missing says on standard error that events were left out.
func (a *app) missing(n uint64) {
	if a.output == "json" {
		fmt.Fprintf(a.err, "{\"missing\":%d}\n", n)
		return
	}
	fmt.Fprintf(a.err, "keepout: %s missing here: this reader was too slow\n", plural(n, "event"))
}

// printOCSF prints the objects that the journal would hold, one a line.
func (a *app) printOCSF(rec *event.Record) error {
	for _, o := range journal.OCSF(*rec, journal.Here()) {
		if err := json.NewEncoder(a.out).Encode(o); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// line is the compact form: time, verdict, act, object, actor, who decided, latency, id.
func (a *app) line(rec *event.Record) string {
	ev, v := &rec.Event, &rec.Verdict
	by := ""
	switch v.Outcome {
	case event.Denied, event.WouldDeny:
		by = "by " + v.DecidedBy
		if v.Rule != "" {
			by += ": " + wire.Clip(v.Rule)
		}
	case event.Timeout, event.Unavailable:
		by = fmt.Sprintf("%s, by policy of %s", v.Reason, v.DecidedBy)
	case event.Allowed:
		if v.Reason == event.ReasonAllowance {
			by = "allowance: " + wire.Clip(v.Rule)
		}
	}
	if v.Shared > 0 {
		by += fmt.Sprintf(" (+%d the same)", v.Shared)
	}
	if by != "" {
		by += "  "
	}
	return fmt.Sprintf("%s %s %-5s %s  %s[%d] uid=%d  %s%s  %s", ev.Time.Local().Format("15:04:05"),
		a.paint.word(v), ev.Type, shownPath(ev), orUnknown(ev.Actor.Comm), ev.Actor.PID, ev.Actor.UID, by,
		micros(max(v.Latency.Microseconds(), 1)), a.paint.in(grey, "#"+journal.FormatID(ev.ID)))
}

func shownPath(ev *event.Event) string {
	if ev.File.Path == "" {
		return "(no path)"
	}
	return wire.Clip(path.Join(ev.File.Path, ev.Name))
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return wire.Clip(s)
}
