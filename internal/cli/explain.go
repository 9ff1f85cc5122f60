package cli

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/wire"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain EVENT-ID|PATH", Short: "Say who decided on an event, and why (exit 5 when it was denied)",
		Args: exactArgs(1, "an event id or a path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var rec *event.Record
			err := a.ask(cmd.Context(), control.Request{Do: "explain", Query: args[0]}, func(r control.Reply) error {
				rec = r.Record
				return nil
			})
			if err != nil {
				return err
			}
			if rec == nil {
				return errors.New("the daemon sent no record")
			}
			if a.output == "json" {
				err = printJSON(a.out, explanationOf(rec))
			} else {
				err = a.explain(rec)
			}
			if err == nil && !rec.Verdict.Allowed {
				err = exit(exitDenied)
			}
			return err
		},
	}
}

// explanation is the stable form of explain -o json.
type explanation struct {
	ID        string        `json:"id"`
	Time      string        `json:"time"`
	Event     event.Type    `json:"event"`
	Path      string        `json:"path"`
	SHA256    string        `json:"sha256"`
	Actor     event.Process `json:"actor"`
	Verdict   event.Outcome `json:"verdict"`
	Allowed   bool          `json:"allowed"`
	Reason    event.Reason  `json:"reason"`
	DecidedBy string        `json:"decided_by"`
	Rule      string        `json:"rule"`
	Mode      event.Mode    `json:"mode"`
	LatencyUS int64         `json:"latency_us"`
	Shared    uint32        `json:"shared"`
	Votes     []explainVote `json:"votes"`
}

type explainVote struct {
	Provider   string       `json:"provider"`
	Mode       event.Mode   `json:"mode"`
	Action     event.Action `json:"action"`
	Confidence uint8        `json:"confidence"`
	Rule       string       `json:"rule"`
	Content    string       `json:"content"`
	Counted    bool         `json:"counted"`
	Reason     event.Reason `json:"reason"`
	LatencyUS  int64        `json:"latency_us"`
}

func explanationOf(rec *event.Record) explanation {
	ev, v := &rec.Event, &rec.Verdict
	e := explanation{
		ID: journal.FormatID(ev.ID), Time: ev.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), Event: ev.Type,
		Path: ev.File.Path, SHA256: ev.File.SHA256, Actor: ev.Actor, Verdict: v.Outcome, Allowed: v.Allowed, Reason: v.Reason,
		DecidedBy: v.DecidedBy, Rule: v.Rule, Mode: v.Mode, LatencyUS: v.Latency.Microseconds(), Shared: v.Shared,
		Votes: []explainVote{},
	}
	for _, b := range v.Ballots {
		e.Votes = append(e.Votes, explainVote{
			Provider: b.Provider, Mode: b.Mode, Action: b.Vote.Action, Confidence: b.Vote.Confidence,
			Rule: b.Vote.Rule, Content: b.Vote.Content, Counted: b.Counted, Reason: b.Reason,
			LatencyUS: b.Latency.Microseconds(),
		})
	}
	return e
}

// explain prints the same for people.
func (a *app) explain(rec *event.Record) error {
	ev, v := &rec.Event, &rec.Verdict
	fmt.Fprintf(a.out, "%s %s %s\n", a.paint.in(outcomeColour(v.Outcome), string(v.Outcome)), ev.Type,
		a.paint.in(bold, shownPath(ev)))
	fmt.Fprintf(a.out, "  %s  %s[%d] uid=%d  answered in %s  #%s\n", ev.Time.Local().Format("2006-01-02 15:04:05.000"),
		orUnknown(ev.Actor.Comm), ev.Actor.PID, ev.Actor.UID, micros(max(v.Latency.Microseconds(), 1)),
		journal.FormatID(ev.ID))
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, b := range v.Ballots {
		said := b.Vote.Action.String()
		if !b.Counted {
			said = "no vote"
		}
		why := wire.Clip(b.Vote.Rule)
		if b.Reason != event.ReasonVoted {
			why = strings.TrimSpace(why + " (" + string(b.Reason) + ")")
		}
		mark := ""
		if b.Provider == v.DecidedBy {
			mark = "\t<- decided"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s%s\n", b.Provider, b.Mode, said, why, micros(b.Latency.Microseconds()), mark)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	fmt.Fprintf(a.out, "  reason %s, decided by %s, host in %s mode, tier B (fanotify)\n", v.Reason, v.DecidedBy, v.Mode)
	if v.Reason == event.ReasonAllowance {
		fmt.Fprintf(a.out, "  an administrator allowed this content: %s\n", wire.Clip(v.Rule))
	}
	if ev.File.SHA256 != "" && v.Outcome != event.Denied {
		fmt.Fprintf(a.out, "  SHA-256 %s\n", ev.File.SHA256)
	}
	if v.Shared > 0 {
		fmt.Fprintf(a.out, "  %d identical events in flight got the same answer\n", v.Shared)
	}
	if rec.Selftest() {
		fmt.Fprintln(a.out, "  a canary of keepout doctor, which had to be denied: nothing to do")
	} else if v.Outcome == event.Denied && ev.File.SHA256 != "" {
		fmt.Fprintf(a.out, "  undo: %s\n", a.command("allow "+ev.File.SHA256+` --for 1h --reason "…"`))
	}
	return nil
}
