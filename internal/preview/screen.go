package preview

import (
	"fmt"
	"io"
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
	drawn int      // lines of the table on the terminal
	table []string // that is drawn
}

func (s *screen) live() bool { return s.width >= minWidth }

// line writes a line above the table.
func (s *screen) line(text string) {
	s.wipe()
	fmt.Fprintln(s.out, text)
	s.draw()
}

// wipe takes the table from the terminal: the cursor goes to its first line, and all below it is cleared.
func (s *screen) wipe() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) draw() {
	for _, l := range s.table {
		fmt.Fprintln(s.out, l)
	}
	s.drawn = len(s.table)
}

// show draws another table, where the output is a terminal.
func (s *screen) show(table []string) {
	if s.live() {
		s.wipe()
		s.table = table
		s.draw()
	}
}

// leave writes the table a last time, and leaves it there.
func (s *screen) leave(table []string) {
	s.wipe()
	for _, l := range table {
		fmt.Fprintln(s.out, l)
	}
	s.table = nil
}

// title begins a step.
func (s *screen) title(text string) {
	s.step++
	s.line(fmt.Sprintf("\n%s %s", s.paint(cyan, fmt.Sprintf("%2d", s.step)), s.paint(bold, text)))
}

// command shows a command as a person types it.
func (s *screen) command(text string) {
	s.line("   " + s.paint(grey, "$") + " " + s.cut(text, 5))
}

// remark writes what happened, and when.
func (s *screen) remark(since time.Duration, r remark) {
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
	s.line(fmt.Sprintf("   %s %s %s", s.paint(grey, fmt.Sprintf("%6.1fs", since.Seconds())), s.paint(code, mark), text))
}

func (s *screen) good(format string, args ...any) { s.mark(green, "✓", fmt.Sprintf(format, args...)) }
func (s *screen) bad(format string, args ...any)  { s.mark(red, "✗", fmt.Sprintf(format, args...)) }
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
			strip.WriteString(paint(newest, fmt.Sprint(h.release)))
		default:
			strip.WriteString(paint(grey, fmt.Sprint(h.release)))
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
