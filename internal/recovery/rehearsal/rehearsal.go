//go:build linux

// Package rehearsal asks for one visit to the recovery environment that changes nothing, and keeps what it found.
//
// It guarantees: the loader is asked only after the visit was marked, because a visit without the mark counts as a real
// one; a mark that nobody took can be taken back, and the next start of the system does so; a report that cannot be
// read is none.
package rehearsal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
)

// ReportFile is the name of the report in Keepout's folder.
const ReportFile = "rehearsal.json"

const (
	maxReport = 32 << 10
	maxText   = 400
	maxSteps  = 16
)

// Report is what one rehearsal found.
type Report struct {
	Version int       `json:"version"` // 1
	Time    time.Time `json:"time"`    // by the machine's clock then
	Passed  bool      `json:"passed"`  // everything that is configured worked
	Kernel  string    `json:"kernel"`  // of the environment
	Built   time.Time `json:"built"`   // when the image was
	Steps   []Step    `json:"steps"`
	Fix     string    `json:"fix,omitempty"`     // the harmless fix that was found and verified
	Trouble string    `json:"trouble,omitempty"` // the last thing that went wrong
	Screen  float64   `json:"screen_seconds"`    // from the kernel's start to the first picture
	Whole   float64   `json:"whole_seconds"`     // from the kernel's start to the restart
}

// Step is one line of the screen as it ended.
type Step struct {
	Done   bool   `json:"done"`
	Text   string `json:"text"`
	Detail string `json:"detail,omitempty"`
}

// Ask marks the next visit as a rehearsal and then asks the loader for it. A report of an earlier one is removed, so
// that none is taken for this one's.
func Ask(dir *esp.Dir, l loader.Loader) error {
	if err := os.Remove(dir.Join(ReportFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the last report: %w", err)
	}
	if err := durable.WriteFileOn(esp.Disk(), dir.Join(esp.Rehearsal), []byte("rehearsal\n"), 0o600); err != nil {
		return fmt.Errorf("mark the rehearsal: %w", err)
	}
	if err := l.ToRecovery(); err != nil {
		return errors.Join(err, Cancel(dir)) // without the loader's word there is no visit that it could be about
	}
	return nil
}

// Cancel takes the mark back. A loader that was asked still starts the environment once, and that visit counts.
func Cancel(dir *esp.Dir) error {
	if err := os.Remove(dir.Join(esp.Rehearsal)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the rehearsal back: %w", err)
	}
	return nil
}

// notStarted is the trouble of a rehearsal that was missed.
const notStarted = "the loader started the system in place of the recovery environment"

// Missed takes back the mark that a start of the system finds: the loader was not asked any more, or did not listen,
// and the next visit, which is a real one, would be taken for the rehearsal. It leaves a report that says so, and
// reports whether there was a mark. On an error the mark may still be there.
func Missed(dir *esp.Dir, now time.Time) (bool, error) {
	if _, err := os.Lstat(dir.Join(esp.Rehearsal)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	err := Cancel(dir)
	return true, errors.Join(err, Keep(dir, &Report{Time: now.UTC().Truncate(time.Second), Trouble: notStarted}))
}

// Keep writes the report where the system finds it. What is too long is cut.
func Keep(dir *esp.Dir, r *Report) error {
	out := *r
	out.Version, out.Trouble = 1, cut(r.Trouble)
	out.Steps = nil
	for _, s := range r.Steps[:min(len(r.Steps), maxSteps)] {
		out.Steps = append(out.Steps, Step{Done: s.Done, Text: cut(s.Text), Detail: cut(s.Detail)})
	}
	text, err := json.MarshalIndent(&out, "", " ")
	if err != nil {
		return fmt.Errorf("keep the rehearsal's report: %w", err)
	}
	return durable.WriteFileOn(esp.Disk(), dir.Join(ReportFile), append(text, '\n'), 0o600)
}

func cut(text string) string { return text[:min(len(text), maxText)] }

// Read returns the last rehearsal's report. The error matches fs.ErrNotExist when there is none.
func Read(dir *esp.Dir) (Report, error) {
	f, err := os.Open(dir.Join(ReportFile))
	if err != nil {
		return Report{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxReport+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return Report{}, fmt.Errorf("the rehearsal's report: %w", err)
	}
	return parse(text)
}

func parse(text []byte) (Report, error) {
	var r Report
	if len(text) > maxReport {
		return r, fmt.Errorf("the rehearsal's report has more than %d bytes", maxReport)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Report{}, fmt.Errorf("the rehearsal's report: %w", err)
	}
	if r.Version != 1 || len(r.Steps) > maxSteps {
		return Report{}, fmt.Errorf("the rehearsal's report has version %d and %d steps", r.Version, len(r.Steps))
	}
	return r, nil
}
