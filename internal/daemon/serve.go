package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/trail"
)

// serve answers one request on the admin socket.
func (d *Daemon) serve(ctx context.Context, req control.Request, reply func(control.Reply) error) error {
	switch req.Do {
	case "status":
		s := d.status()
		return reply(control.Reply{Status: &s})
	case "checkup":
		c := d.checkup()
		return reply(control.Reply{Checkup: &c})
	case "events":
		d.catchUp()
		return d.serveEvents(ctx, req, reply)
	case "explain":
		d.catchUp()
		return d.serveExplain(req, reply)
	case "mode":
		return d.setMode(req.Mode)
	case "allow":
		return d.allow(req)
	case "provider":
		return d.setProvider(req)
	case "version":
		return d.setVersion(req)
	case "logs":
		return d.serveLogs(req, reply)
	case "reload":
		if err := d.reload(); err != nil {
			return d.refusedReload(err)
		}
		return nil
	default:
		return health.Problem{
			Code: "KO-2005", Title: fmt.Sprintf("unknown request %q", req.Do), Severity: health.Failure,
			Fix: "see docs/control.md",
		}
	}
}

// catchUp waits for the records of verdicts that were just given: the kernel has its answer first, and who then asks
// about it at once must not be told of an older one.
func (d *Daemon) catchUp() {
	time.Sleep(bookkeeping)
	d.trail.Sync()
}

// bookkeeping is how long after an answer its record is queued, at the most on any machine that is not overloaded.
const bookkeeping = 5 * time.Millisecond

func (d *Daemon) serveEvents(ctx context.Context, req control.Request, reply func(control.Reply) error) error {
	since := time.Time{}
	if req.Seconds > 0 {
		since = time.Now().Add(-time.Duration(req.Seconds) * time.Second)
	}
	wanted := func(rec *event.Record) bool {
		o := rec.Verdict.Outcome
		return !rec.Event.Time.Before(since) && (!req.Denied || o == event.Denied || o == event.WouldDeny) &&
			(req.Name == "" || strings.HasPrefix(filepath.Base(rec.Event.File.Path), req.Name))
	}
	var recent []event.Record
	var follower *trail.Follower
	if !req.Follow {
		recent = d.trail.Recent(wanted)
	} else if recent, follower = d.trail.Follow(wanted); follower == nil {
		return health.Problem{Code: "KO-2008", Title: "too many followers", Severity: health.Failure, Fix: "end one of them"}
	}
	if req.Limit > 0 && len(recent) > req.Limit {
		recent = recent[len(recent)-req.Limit:]
	}
	if follower != nil {
		defer d.trail.Unfollow(follower)
	}
	for _, rec := range recent {
		if err := reply(control.Reply{Record: &rec}); err != nil {
			return err
		}
	}
	if follower == nil {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case rec := <-follower.C:
			if !wanted(&rec) {
				continue
			}
			if err := reply(control.Reply{Record: &rec, Lost: d.trail.Missed(follower)}); err != nil {
				return err
			}
		}
	}
}

// serveExplain finds the newest record with this event id or path: in memory, then in the journal.
func (d *Daemon) serveExplain(req control.Request, reply func(control.Reply) error) error {
	id, err := strconv.ParseUint(strings.TrimPrefix(req.Query, "#"), 16, 64)
	byID := err == nil && !strings.HasPrefix(req.Query, "/")
	wanted := func(rec *event.Record) bool {
		return byID && rec.Event.ID == id || !byID && rec.Event.File.Path == req.Query
	}
	found := d.trail.Recent(wanted)
	if len(found) == 0 {
		found = d.journalled(wanted)
	}
	if len(found) == 0 {
		return health.Problem{
			Code: "KO-2004", Severity: health.Failure, Title: fmt.Sprintf("no verdict on %q is kept", req.Query),
			Fix: d.command("events") + " lists what is; allowed opens are kept for a short time only",
		}
	}
	return reply(control.Reply{Record: &found[len(found)-1]})
}

// journalled searches the journal. What it cannot read is as if it were not there, and logged.
func (d *Daemon) journalled(wanted func(*event.Record) bool) []event.Record {
	var found []event.Record
	if err := d.journal.Sync(); err != nil {
		d.log.Warn("journal is not complete", slog.Any("error", err))
	}
	err := journal.Read(d.journalDir(), time.Time{}, func(e *journal.Entry) bool {
		if e.Kind == journal.KindEvent && wanted(&e.Record) {
			found = append(found[:0], e.Record)
		}
		return true
	})
	if err != nil {
		d.log.Warn("journal search ended early", slog.Any("error", err))
	}
	return found
}

func (d *Daemon) setMode(m event.Mode) error {
	if m != event.Monitor && m != event.Enforce {
		return health.Problem{
			Code: "KO-2009", Title: fmt.Sprintf("mode %q is not known", m), Severity: health.Failure,
			Fix: d.command("mode monitor") + ", or " + d.command("mode enforce"),
		}
	}
	d.mode.Store(&m)
	d.log.Info("mode set", slog.String("mode", string(m)))
	d.journal.Note(journal.Note{
		Code: "mode.set", Title: "An administrator set the mode to " + string(m), Severity: journal.Medium,
	})
	return nil
}

// Bounds of an allowance.
const (
	minAllow = time.Minute
	maxAllow = 30 * 24 * time.Hour
)

func (d *Daemon) allow(req control.Request) error {
	length := time.Duration(req.Seconds) * time.Second
	if length < minAllow || length > maxAllow || strings.TrimSpace(req.Reason) == "" {
		return health.Problem{
			Code: "KO-2010", Severity: health.Failure, Title: "an allowance needs a reason and a time of 1m to 720h",
			Fix: d.command(`allow SHA256 --for 1h --reason "…"`),
		}
	}
	p, err := d.pardons.Add(req.SHA256, length, req.Reason)
	if err != nil {
		return health.Problem{
			Code: "KO-2010", Severity: health.Failure, Title: err.Error(), Fix: "sha256sum FILE prints the digest",
		}
	}
	d.journal.Note(journal.Note{
		Code: "allowance.added", Title: "An administrator allowed a content", Severity: journal.Medium,
		Detail: fmt.Sprintf("%s until %s: %s", p.SHA256, p.Until.Format(time.RFC3339), p.Reason),
	})
	return nil
}

// Bounds of a provider's log as it is shown.
const (
	maxLogShown = 256 << 10 // bytes of its end
	maxLogLine  = 4 << 10   // bytes of one line; the rest is left out
)

// serveLogs sends the end of a provider's log, a line a reply.
func (d *Daemon) serveLogs(req control.Request, reply func(control.Reply) error) error {
	text, err := d.roster.Log(req.Provider, maxLogShown)
	if err != nil {
		return health.Problem{
			Code: "KO-2011", Severity: health.Failure, Title: err.Error(), Fix: d.command("provider list"),
		}
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if req.Limit > 0 && len(lines) > req.Limit {
		lines = lines[len(lines)-req.Limit:]
	}
	for _, line := range lines {
		line = strings.ToValidUTF8(line[:min(len(line), maxLogLine)], "?")
		if line == "" {
			continue // an empty reply would say nothing
		}
		if err := reply(control.Reply{Log: line}); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) setProvider(req control.Request) error {
	if err := d.roster.SetEnabled(req.Provider, req.Enable); err != nil {
		return health.Problem{
			Code: "KO-2011", Severity: health.Failure, Title: err.Error(), Fix: d.command("provider list"),
		}
	}
	word := "disabled"
	if req.Enable {
		word = "enabled"
	}
	d.journal.Note(journal.Note{
		Code: "provider." + word, Title: "An administrator " + word + " a provider", Severity: journal.Medium,
		Provider: req.Provider,
	})
	return nil
}
