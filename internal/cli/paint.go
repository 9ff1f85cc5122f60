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

// outcomeColour is green for what passed by the votes, red for what was denied, and yellow for what a policy decided
// or what would be denied.
func outcomeColour(o event.Outcome) string {
	switch o {
	case event.Allowed:
		return green
	case event.Denied:
		return red
	default:
		return yellow
	}
}

// wordWidth is that of the longest outcome, UNAVAILABLE.
const wordWidth = len(event.Unavailable)

// word is what people see of an outcome in a list, the same as everywhere else, padded so that the columns stand.
func (p paint) word(v *event.Verdict) string {
	return p.in(outcomeColour(v.Outcome), fmt.Sprintf("%-*s", wordWidth, v.Outcome))
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
