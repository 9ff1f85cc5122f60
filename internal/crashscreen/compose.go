package crashscreen

import (
	"strings"

	"github.com/keepout-security/keepout/internal/crash"
)

// Page is what the person at the machine wants to see.
type Page int

// The pages.
const (
	Main    Page = iota // the story
	Details             // what lies behind F2
)

// role is what a block is, from which each output takes its size and shade.
type role int

const (
	roleTitle   role = iota
	roleStrong       // the suspect, the code
	rolePlain        // facts
	roleFaint        // reasons, what continues a step
	roleHeading      // over the steps
	roleStep
	roleChoice
	roleDetail
)

// block is a paragraph.
type block struct {
	role role
	mark string // "done", or the choice's key
	text string
	gap  bool // an empty line before it, as long as there is room
	rows int  // how many rows it may take, 0 for any number
}

// composed is a page before it is laid out. What is in foot is never cut.
type composed struct {
	head  []block // full width
	steps []block // beside the square code
	foot  []block // beside the square code, at its end
	keys  []crash.Key
	link  string // what the square code says
}

// squeezes are the degrees to which a page can give up room: everything as it is; finished steps together; texts on two
// rows; no empty rows; texts on one row; without the finished steps.
const squeezes = 5

// compose puts a page together for an output that can show some characters.
func compose(record *crash.Record, page Page, can func(rune) bool, squeeze int) composed {
	story := crash.Tell(presentable(record, can))
	if page == Details {
		return composeDetails(record, &story, can)
	}
	c := composed{keys: story.Keys, link: link(&story)}
	if story.Test != "" {
		c.head = append(c.head, block{role: roleStrong, text: story.Test, rows: 2})
	}
	c.head = append(c.head, block{role: roleTitle, text: story.Title, rows: 3})
	for i, fact := range story.Facts {
		c.head = append(c.head, block{role: rolePlain, text: fact, gap: i == 0})
	}
	c.head = append(c.head, block{role: roleStrong, text: story.Suspect, gap: true})
	if story.Reason != "" {
		c.head = append(c.head, block{role: roleFaint, text: story.Reason})
	}
	if story.Heading != "" {
		c.steps = append(c.steps, block{role: roleHeading, text: story.Heading, gap: true})
	}
	c.steps = append(c.steps, stepBlocks(story.Steps, squeeze)...)
	for _, k := range story.Choices {
		c.steps = append(c.steps, block{role: roleChoice, mark: k.Name, text: k.Text})
	}
	if story.Outcome != "" {
		c.steps = append(c.steps, block{role: rolePlain, text: story.Outcome, gap: true})
	}
	c.foot = append(c.foot, block{role: roleStrong, text: story.Files, gap: true})
	if story.Report != "" {
		c.foot = append(c.foot, block{role: roleStrong, text: story.Report})
	}
	if story.Address != "" {
		c.foot = append(c.foot, block{role: roleFaint, text: story.Address, rows: 2})
	}
	c.each(can, squeeze)
	return c
}

// each limits the blocks to what a degree of squeezing allows and to what the output can show.
func (c *composed) each(can func(rune) bool, squeeze int) {
	for _, list := range [][]block{c.head, c.steps, c.foot} {
		for i := range list {
			b := &list[i]
			b.text = shown(b.text, can)
			if squeeze >= 3 {
				b.gap = false
			}
			switch {
			case squeeze >= 4:
				b.rows = 1
			case squeeze >= 2 && b.rows == 0:
				b.rows = 2
			}
		}
	}
	for i := range c.keys {
		c.keys[i] = crash.Key{Name: shown(c.keys[i].Name, can), Text: shown(c.keys[i].Text, can)}
	}
}

// marks are what stands between a step's brackets.
func mark(p crash.Progress) string {
	switch p {
	case crash.Done:
		return "done"
	case crash.Running:
		return ".."
	case crash.Failed:
		return "fail"
	case crash.Skipped:
		return "skip"
	case crash.Waiting:
	}
	return ""
}

func stepBlocks(steps []crash.Step, squeeze int) []block {
	var out []block
	var finished []string
	for _, s := range steps {
		if s.Progress == crash.Done && squeeze >= 1 {
			finished = append(finished, s.Text)
			continue
		}
		text := s.Text
		if s.Detail != "" {
			text += " – " + s.Detail
		}
		out = append(out, block{role: roleStep, mark: mark(s.Progress), text: text})
	}
	if len(finished) > 0 && squeeze < squeezes {
		together := block{role: roleStep, mark: mark(crash.Done), text: strings.Join(finished, "; ")}
		out = append([]block{together}, out...)
	}
	return out
}

func composeDetails(record *crash.Record, story *crash.Story, can func(rune) bool) composed {
	c := composed{keys: []crash.Key{{Name: "F2", Text: "back"}}}
	title := "Details"
	if story.Report != "" {
		title += " of " + strings.ToLower(story.Report[:1]) + story.Report[1:]
	}
	c.head = []block{{role: roleHeading, text: title}}
	cleaned := record.Cleaned()
	lines := cleaned.Details
	if len(lines) == 0 {
		lines = []string{"There are no details: no message of the kernel was kept."}
	}
	for i, line := range lines {
		c.steps = append(c.steps, block{role: roleDetail, text: line, gap: i == 0, rows: 2})
	}
	for _, k := range story.Keys {
		if k.Name != "F2" {
			c.keys = append(c.keys, k)
		}
	}
	c.each(can, 0)
	return c
}

// link is what a telephone reads from the square code: the address, else the code in words.
func link(s *crash.Story) string {
	if s.Address != "" {
		return s.Address
	}
	if s.Report != "" {
		return "Keepout " + strings.ToLower(s.Report[:1]) + s.Report[1:]
	}
	return ""
}

// presentable takes away the names that an output cannot show whole, so that ids stand in for them.
func presentable(record *crash.Record, can func(rune) bool) *crash.Record {
	r := record.Cleaned()
	fix := func(p *crash.Product) {
		if strings.ContainsFunc(p.Name, func(c rune) bool { return !can(c) }) && p.ID != "" {
			p.Name = ""
		}
	}
	if r.Starting != nil {
		fix(r.Starting)
	}
	if r.Suspect != nil {
		fix(&r.Suspect.Product)
	}
	return &r
}

// shown replaces runs of what an output cannot show.
func shown(text string, can func(rune) bool) string {
	var b strings.Builder
	odd := false
	for _, r := range text {
		if can(r) {
			b.WriteRune(r)
			odd = false
		} else if !odd {
			b.WriteRune(crash.Replacement)
			odd = true
		}
	}
	return b.String()
}

// wrap breaks a text between words so that no line is wider than width, by a measure; a word that is wider itself is
// broken where it must. With a limit on the rows, the last ends in dots where something was cut.
func wrap(text string, width, rows int, measure func(string) int, dots string) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		for word != "" {
			joined := word
			if line != "" {
				joined = line + " " + word
			}
			if measure(joined) <= width {
				line, word = joined, ""
				continue
			}
			if line != "" {
				lines, line = append(lines, line), ""
				continue
			}
			head := fitting(word, width, measure)
			lines, word = append(lines, head), word[len(head):]
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	if rows <= 0 || len(lines) <= rows {
		return lines
	}
	lines = lines[:rows]
	last := lines[rows-1]
	for last != "" && measure(last+dots) > width {
		r := []rune(last)
		last = string(r[:len(r)-1])
	}
	lines[rows-1] = strings.TrimRight(last, " .…") + dots
	return lines
}

// fitting is the longest beginning of a word that is not wider than width, and at least its first character.
func fitting(word string, width int, measure func(string) int) string {
	end := 0
	for i, r := range word {
		next := i + len(string(r))
		if end > 0 && measure(word[:next]) > width {
			break
		}
		end = next
	}
	return word[:end]
}
