package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/keepout-security/keepout/event"
)

// paint puts colour around words, or does not.
type paint struct{ on bool }

// paintFor follows the usual rules: a terminal, and no NO_COLOR (https://no-color.org).
func paintFor(f *os.File) paint {
	_, refused := os.LookupEnv("NO_COLOR")
	return paint{on: !refused && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))}
}

// The colours, as SGR codes.
const (
	red    = "31;1"
	green  = "32"
	yellow = "33"
	grey   = "90"
	bold   = "1"
)

func (p paint) in(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// word is what people see of an outcome, padded so that the columns stand.
func (p paint) word(v *event.Verdict) string {
	text, code := "ALLOWED ", green
	switch v.Outcome {
	case event.Denied:
		text, code = "DENIED  ", red
	case event.WouldDeny:
		text, code = "WOULD   ", yellow
	case event.Timeout:
		text, code = "TIMEOUT ", yellow
	case event.Unavailable:
		text, code = "UNAVAIL ", yellow
	case event.Allowed:
	}
	return p.in(code, text)
}

// printJSON prints one object, indented for people who look at it.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
