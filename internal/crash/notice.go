package crash

import (
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// NoticeFor is how long a failure is told at login and as a problem.
const NoticeFor = 14 * 24 * time.Hour

// Recent is the newest record that is worth telling without being asked: of at most NoticeFor ago, and no rehearsal. A
// record from a machine whose clock was not set counts as recent. The records are in the order of List.
func Recent(records []Record, now time.Time) (Record, bool) {
	for _, r := range records {
		age := now.Sub(r.Time)
		if !r.Test && (r.Time.Year() < 2020 || age < NoticeFor && age > -NoticeFor) {
			return r, true
		}
	}
	return Record{}, false
}

// Notice is the text for those who log in, for motd(5). It is empty where there is nothing to tell.
func Notice(records []Record, now time.Time) string {
	r, found := Recent(records, now)
	if !found {
		return ""
	}
	var b strings.Builder
	s := Tell(&r)
	b.WriteString("Keepout: " + s.Title + ", " + When(r.Time) + ".\n")
	for _, fact := range s.Facts {
		b.WriteString("  " + fact + "\n")
	}
	b.WriteString("  " + s.Suspect + "\n")
	if s.Reason != "" {
		b.WriteString("    " + s.Reason + "\n")
	}
	if s.Outcome != "" {
		b.WriteString("  " + s.Outcome + "\n")
	}
	b.WriteString("  " + s.Files + " The whole story: " + command(&r) + "\n")
	return b.String()
}

func command(r *Record) string { return strings.TrimSpace("keepout crash show " + r.Code) }

// Problem is a recent failure as a problem, for status and doctor.
func Problem(records []Record, now time.Time) (health.Problem, bool) {
	r, found := Recent(records, now)
	if !found {
		return health.Problem{}, false
	}
	p := health.Problem{
		Code: "KO-2501", Severity: health.Warning, Subject: r.Code, Fix: command(&r),
		Title: "this machine could not start " + When(r.Time),
	}
	if r.Suspect != nil {
		p.Title += "; suspected: " + r.Suspect.Label()
		p.Provider = r.Suspect.ID
	}
	if r.Outcome != nil && r.Outcome.Recovered {
		p.Code = "KO-2502"
		p.Title += "; it has recovered"
		if r.Outcome.Action != "" {
			p.Title += ": " + r.Outcome.Action
		}
	}
	return p, true
}
