package preview

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The colours, as SGR codes.
const (
	red    = "31;1"
	green  = "32"
	yellow = "33"
	grey   = "90"
	bold   = "1"
	cyan   = "36"
)

// minWidth is the narrowest terminal on which the table is redrawn: no line of it may wrap.
const minWidth = 72

// screen writes the story. On a terminal its last lines are a table that is drawn anew; elsewhere it is written once.
type screen struct {
	out   io.Writer
	paint func(code, text string) string
	width int // 0: no terminal
	began time.Time
	step  int
	table []string // that is on the terminal, and replaced next
}

func (s *screen) live() bool { return s.width >= minWidth }

func (s *screen) line(text string) { fmt.Fprintln(s.out, text) }

// show writes lines, and on a terminal a table below them in place of the one that was drawn last. It writes nothing
// where nothing is new.
func (s *screen) show(lines, table []string) {
	if !s.live() {
		table = nil
	}
	if len(lines) == 0 && slices.Equal(table, s.table) {
		return
	}
	s.replace(append(lines, table...))
	s.table = table
}

// leave writes a table that stays.
func (s *screen) leave(table []string) {
	s.replace(table)
	s.table = nil
}

// replace writes lines in place of the table on the terminal, at once, so that it does not flicker: the cursor goes to
// the table's first line, and all below it is cleared.
func (s *screen) replace(lines []string) {
	var b strings.Builder
	if len(s.table) > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", len(s.table))
	}
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	_, _ = io.WriteString(s.out, b.String()) // a reader who is gone ends the story by SIGPIPE
}

// title begins a step.
func (s *screen) title(text string) {
	s.step++
	s.line(fmt.Sprintf("\n%s %s", s.paint(cyan, fmt.Sprintf("%2d", s.step)), s.paint(bold, text)))
}

// command shows a command as a person types it, digests shortened.
func (s *screen) command(text string) {
	text = longDigest.ReplaceAllString(text, "$1…")
	s.line("   " + s.paint(grey, "$") + " " + s.cut(text, 5))
}

var longDigest = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}`)

// remark is a line about what happened, and when.
func (s *screen) remark(since time.Duration, r remark) string {
	mark, code := "·", grey
	switch r.tone {
	case good:
		mark, code = "✓", green
	case bad:
		mark, code = "✗", red
	case plain:
	}
	text := s.cut(r.text, 13)
	if r.tone == bad {
		text = s.paint(code, text)
	}
	return fmt.Sprintf("   %s %s %s", s.paint(grey, fmt.Sprintf("%6.1fs", since.Seconds())), s.paint(code, mark), text)
}

func (s *screen) good(format string, args ...any) { s.mark(green, "✓", fmt.Sprintf(format, args...)) }

func (s *screen) bad(format string, args ...any) { s.mark(red, "✗", fmt.Sprintf(format, args...)) }

func (s *screen) note(format string, args ...any) { s.mark(grey, "·", fmt.Sprintf(format, args...)) }

func (s *screen) mark(code, sign, text string) {
	s.line("   " + s.paint(code, sign) + " " + text)
}

// cut shortens text to what the terminal has left beside taken columns.
func (s *screen) cut(text string, taken int) string {
	room := s.width - taken
	if s.width == 0 || utf8.RuneCountInString(text) <= room {
		return text
	}
	return string([]rune(text)[:max(room-1, 0)]) + "…"
}

// rows is the table of a rollout: its rings, and a sign for each host. A release is bad when it must not stay.
func rows(v *view, release int, isBad bool, paint func(code, text string) string) []string {
	newest := green
	if isBad {
		newest = red
	}
	out := []string{"", "   " + paint(grey, fmt.Sprintf("%-14s%6s%9s%9s%11s%8s%6s", "RING", "HOSTS", "GRANTED", "SOAKING",
		"CONFIRMED", "SILENT", "BACK"))}
	for _, r := range v.rollout.GetRings() {
		cell := func(n uint32, width int, code string) string {
			text := fmt.Sprintf("%*d", width, n)
			if n == 0 {
				code = grey
			}
			return paint(code, text)
		}
		out = append(out, fmt.Sprintf("   %-14s%6d", ringName(r), r.GetMembers())+cell(r.GetGranted(), 9, bold)+
			cell(r.GetSoaking(), 9, yellow)+cell(r.GetConfirmed(), 11, green)+cell(r.GetSilent(), 8, red)+
			cell(r.GetFailed()+r.GetRolledBack(), 6, red))
	}
	var strip strings.Builder
	counts := map[int]int{}
	for _, h := range v.hosts {
		counts[h.release]++
		switch h.release {
		case 0:
			strip.WriteString(paint(red, "✗"))
		case release:
			strip.WriteString(paint(newest, strconv.Itoa(h.release)))
		default:
			strip.WriteString(paint(grey, strconv.Itoa(h.release)))
		}
	}
	legend := []string{}
	for n := 1; n <= release; n++ {
		if counts[n] > 0 {
			legend = append(legend, fmt.Sprintf("%d on release %d", counts[n], n))
		}
	}
	if counts[0] > 0 {
		legend = append(legend, fmt.Sprintf("%d without an engine", counts[0]))
	}
	return append(out, "   hosts  "+strip.String(), "          "+paint(grey, strings.Join(legend, ", ")))
}
