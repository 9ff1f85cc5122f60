package content

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/keepout-security/keepout/internal/health"
)

// Code is the code of all this package's errors; docs/errors.md.
const Code = "KO-1007"

// maxMistakes is how many mistakes are told at once; the check ends there.
const maxMistakes = 20

// Mistake is one thing wrong in one file.
type Mistake struct {
	File   string `json:"file"`             // path, below the content's folder as it was given
	Line   int    `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column int    `json:"column,omitempty"` // in bytes, from 1
	What   string `json:"what"`             // was found
	Why    string `json:"why"`              // that is wrong
	Next   string `json:"next"`             // what to do
}

// Error gives "file:line:column: KO-1007: what: why. Next: fix" in one line that is safe for a terminal.
func (m Mistake) Error() string {
	place := Printable(m.File)
	if m.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", place, m.Line, m.Column)
	}
	p := health.Problem{Code: Code, Title: m.What + ": " + m.Why, Fix: m.Next}
	return place + ": " + p.Error()
}

// Refused says why content was refused. It is the only error of Check besides that of its context.
type Refused struct {
	Mistakes []Mistake `json:"mistakes"` // at least 1, at most 20
	More     bool      `json:"more"`     // the check ended at the bound
}

// Error gives a line for each mistake.
func (r *Refused) Error() string {
	var lines []string
	for _, m := range r.Mistakes {
		lines = append(lines, m.Error())
	}
	if r.More {
		lines = append(lines, fmt.Sprintf("and more: only the first %d mistakes are told", len(r.Mistakes)))
	}
	return strings.Join(lines, "\n")
}

// clip bounds a text for a message.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Printable replaces what could move a terminal's cursor or hide text.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// quote shows a field in a message.
func quote(b []byte) string { return fmt.Sprintf("%q", clip(string(b))) }

// describe names the first character of what was found.
func describe(at []byte) string {
	r, size := utf8.DecodeRune(at)
	switch {
	case r == utf8.RuneError && size <= 1:
		return fmt.Sprintf("byte 0x%02x", at[0])
	case r == '\uFEFF':
		return "a byte order mark"
	}
	return fmt.Sprintf("%q", r)
}
