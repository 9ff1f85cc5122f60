package control

import (
	"path/filepath"
	"strings"

	"github.com/keepout-security/keepout/event"
)

// Checkup is what "keepout doctor" must know and only the core can tell it. Field names are stable.
type Checkup struct {
	Watch     []CheckupWatch    `json:"watch"`      // as configured, in that order
	Providers []CheckupProvider `json:"providers"`  // as configured, in that order
	ContentMS int64             `json:"content_ms"` // the budget
	StallMS   int64             `json:"stall_ms"`   // the stall limit
	Config    CheckupConfig     `json:"config"`
	Disk      CheckupDisk       `json:"disk"`
	Files     CheckupFiles      `json:"files"`
	// ElapsedMS is how long the core has run by a clock that nobody sets; Status.Since is by the one on the wall.
	ElapsedMS int64 `json:"elapsed_ms"`
}

// CheckupWatch is one configured watch.
type CheckupWatch struct {
	Path   string       `json:"path"`
	Events []event.Type `json:"events"`
}

// CheckupProvider is how one provider can be put to the test.
type CheckupProvider struct {
	ID       string       `json:"id"`
	Mode     event.Mode   `json:"mode"`
	Events   []event.Type `json:"events"`             // that its manifest lets it ask for
	Selftest []byte       `json:"selftest,omitempty"` // content that its engine must deny, in base64
	Problem  string       `json:"problem,omitempty"`  // why there is none
	// FailClosed: a missing vote of it is a denial, where it enforces.
	FailClosed bool `json:"fail_closed,omitempty"`
}

// CheckupConfig compares the configuration in force with the file.
type CheckupConfig struct {
	Changed bool       `json:"changed"`         // the file says something else
	Wrong   string     `json:"wrong,omitempty"` // the file would be refused
	Mode    event.Mode `json:"mode"`            // of the host, as configured; an administrator may have set another
}

// CheckupDisk says where the core writes, and how much it may.
type CheckupDisk struct {
	StateDir     string `json:"state_dir"`
	JournalDir   string `json:"journal_dir"`
	JournalBytes int64  `json:"journal_bytes"` // the journal has now
	JournalMax   int64  `json:"journal_max"`   // bytes that it may have
}

// CheckupFiles is the core's table of open files.
type CheckupFiles struct {
	Open   int    `json:"open"`
	Limit  uint64 `json:"limit"`
	Wanted uint64 `json:"wanted"` // with less, a full docket could leave the kernel without a descriptor for us
}

// DefaultDir is the run directory of a daemon that was told no other.
const DefaultDir = "/run/keepout"

// Command returns a line for a shell that runs keepout against the daemon with this run directory, so that a hint can
// be followed as it stands.
func Command(dir, args string) string {
	if dir == "" || dir == DefaultDir {
		return "keepout " + args
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
		dir = "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return "keepout --run-dir " + dir + " " + args
}

// plainRunes mean themselves to every shell.
const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:,@"
