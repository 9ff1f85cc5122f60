package docs

import (
	"regexp"
	"strings"
)

// Entry is what errors.md says about one code, as plain text.
type Entry struct {
	Code  string `json:"code"`
	Topic string `json:"topic"` // the heading that it stands under
	Means string `json:"means"`
	Do    string `json:"do"`
}

var pattern = regexp.MustCompile(`^KO-\d{4}$`)

// Find returns the entry of a code ("KO-1301").
func Find(code string) (Entry, bool) {
	if !pattern.MatchString(code) {
		return Entry{}, false
	}
	topic := ""
	for line := range strings.Lines(Errors) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			topic = heading
		}
		row, ok := strings.CutPrefix(line, "| "+code+" |")
		if !ok {
			continue
		}
		// A bar within a cell is written \| (GitHub's tables).
		cells := strings.Split(strings.ReplaceAll(strings.TrimSuffix(row, "|"), `\|`, "\x00"), "|")
		if len(cells) != 2 {
			return Entry{}, false
		}
		return Entry{Code: code, Topic: topic, Means: plain(cells[0]), Do: plain(cells[1])}, true
	}
	return Entry{}, false
}

var link = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)

var emphasis = regexp.MustCompile("\\*+([^*`]+)\\*+")

// plain takes the marks out of a cell: links become "text (docs/target)" where the text is not the target itself.
func plain(cell string) string {
	cell = strings.ReplaceAll(strings.TrimSpace(cell), "\x00", "|")
	cell = link.ReplaceAllStringFunc(cell, func(l string) string {
		m := link.FindStringSubmatch(l)
		if m[1] == m[2] {
			return "docs/" + m[2]
		}
		return m[1] + " (docs/" + m[2] + ")"
	})
	return strings.ReplaceAll(emphasis.ReplaceAllString(cell, "$1"), "`", "")
}
