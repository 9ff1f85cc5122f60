package demo

import (
	"fmt"
	"io"
	"strings"
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

// teller writes the story.
type teller struct {
	out   io.Writer
	paint func(code, text string) string
	width int
	step  int
}

func newTeller(opt Options) *teller {
	return &teller{out: opt.Out, paint: opt.Paint, width: opt.Width}
}

// title begins a step.
func (t *teller) title(text string) {
	t.step++
	fmt.Fprintf(t.out, "\n%s %s\n", t.paint(cyan, fmt.Sprintf("%2d", t.step)), t.paint(bold, text))
}

// command shows a command as a person types it.
func (t *teller) command(text string) {
	fmt.Fprintf(t.out, "   %s %s\n", t.paint(grey, "$"), text)
}

// output shows what a program printed, each line cut to the terminal.
func (t *teller) output(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(t.out, "   %s\n", t.highlight(cut(strings.TrimRight(line, "\n"), t.width-3)))
	}
}

// highlight colours the words that matter.
func (t *teller) highlight(line string) string {
	for _, w := range []struct{ word, code string }{
		{"DENIED", red},
		{"Operation not permitted", red},
		{"ALLOWED", green},
		{"<- decided", bold},
		{" running ", green},
		{" enforce ", bold},
	} {
		line = strings.ReplaceAll(line, w.word, t.paint(w.code, w.word))
	}
	return line
}

// cut shortens a line to width columns; width ≤ 0 leaves it.
func cut(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}

func (t *teller) good(format string, args ...any) { t.mark(green, "✓", fmt.Sprintf(format, args...)) }

func (t *teller) bad(format string, args ...any) { t.mark(red, "✗", fmt.Sprintf(format, args...)) }

func (t *teller) note(format string, args ...any) { t.mark(grey, "·", fmt.Sprintf(format, args...)) }

func (t *teller) mark(code, sign, text string) {
	fmt.Fprintf(t.out, "   %s %s\n", t.paint(code, sign), text)
}
