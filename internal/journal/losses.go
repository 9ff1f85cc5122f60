package journal

import (
	"fmt"
	"time"
)

// CodePruneFailed is the note that the number of files cannot be kept within its bound.
const CodePruneFailed = "journal.prune-failed"

// losses is what was lost and not yet told.
type losses struct {
	spilled      uint64 // the queue was full
	refused      uint64 // the disk refused
	err          error  // the disk's last answer
	since, until time.Time
}

func (l *losses) any() bool { return l.spilled+l.refused > 0 }

func (l *losses) add(since, until time.Time) {
	if !l.any() || since.Before(l.since) {
		l.since = since
	}
	if until.After(l.until) {
		l.until = until
	}
}

// note says the loss in the journal itself.
func (l *losses) note(now time.Time) Note {
	n := l.spilled + l.refused
	detail := fmt.Sprintf("%d records lost between %s and %s: "+
		"%d because the queue was full, %d because of the disk",
		n, l.since.UTC().Format(time.RFC3339Nano), l.until.UTC().Format(time.RFC3339Nano), l.spilled, l.refused)
	if l.err != nil {
		detail += " (" + l.err.Error() + ")"
	}
	return Note{
		Time: now, Code: CodeLost, Title: fmt.Sprintf("%d records are missing from the journal", n),
		Severity: High, Detail: detail,
	}
}

// recovered is the note about a torn end.
func recovered(now time.Time, e ending) Note {
	return Note{
		Time: now, Code: CodeRecovered, Severity: Medium,
		Title:  "An incomplete last line was removed from the journal",
		Detail: fmt.Sprintf("%d bytes lost after line %d (power cut or crash while writing)", e.torn, e.head.Seq),
	}
}
