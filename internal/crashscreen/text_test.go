package crashscreen

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/crash"
)

// TestDetailsText: of a long text the end is shown, and it is said that the beginning is missing.
func TestDetailsText(t *testing.T) {
	t.Parallel()
	record := stories()["looking"]
	for i := range 100 {
		record.Details = append(record.Details, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 200)))
	}
	lines := Text(&record, Details, Columns, Rows)
	page := strings.Join(lines, "\n")
	if len(lines) != Rows || lines[0] != "Details of report 2FB4-12B9" || !strings.Contains(page, "line 99") ||
		strings.Contains(page, "line 0 ") || !strings.Contains(page, "  ...\n") || !strings.HasPrefix(lines[Rows-1],
		"F2 back") {
		t.Errorf("got\n%s", page)
	}
	record.Details = nil
	if page := strings.Join(Text(&record, Details, Columns, Rows), "\n"); !strings.Contains(page, "There are no details") {
		t.Errorf("without details:\n%s", page)
	}
}

// TestSerialChange: after the first page, only what is new goes over the line.
func TestSerialChange(t *testing.T) {
	t.Parallel()
	before := stories()["looking"]
	after := before
	after.Steps = append([]crash.Step(nil), before.Steps...)
	after.Steps[2] = crash.Step{Progress: crash.Done, Text: "Found fix 2026-07-19.1\r\x1b[2J"}
	if got, want := SerialChange(&before, &after), "  [done] Found fix 2026-07-19.1 ?[2J\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := SerialChange(&before, &before); got != "" {
		t.Errorf("nothing changed, and it says %q", got)
	}
}

// TestConsole: nothing but the frame around the text is an escape sequence, and no line wraps by itself.
func TestConsole(t *testing.T) {
	t.Parallel()
	record := stories()["odd"]
	out := string(Console(&record, Main, Columns, Rows))
	const frame = "\x1b[0;1;37;40m\x1b[2J\x1b[H\x1b[?25l"
	text, framed := strings.CutPrefix(out, frame)
	if !framed || strings.Contains(text, "\x1b") || strings.Count(text, "\r\n") != Rows-1 {
		t.Errorf("got %q", out)
	}
}
