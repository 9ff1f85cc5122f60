package crashscreen

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/keepout-security/keepout/internal/crash"
)

// The smallest and the usual text screen.
const (
	minColumns = 40
	minRows    = 12
	Columns    = 80
	Rows       = 25
)

// Text lays a page out on a text console of so many columns and rows (at least 40×12; smaller ones are taken as that).
// The lines are ASCII, none is longer than the columns, and there are exactly rows of them; the last holds the keys.
func Text(record *crash.Record, page Page, columns, rows int) []string {
	columns, rows = max(columns, minColumns), max(rows, minRows)
	var lines, keys []string
	for squeeze := range squeezes + 1 {
		c := compose(record, page, ascii, squeeze)
		keys = keyRows(c.keys, columns)
		room := rows - len(keys)
		if page == Details {
			lines = tail(textBlocks(c.head, columns), textBlocks(c.steps, columns), room)
			break
		}
		head, steps, foot := textBlocks(c.head, columns), textBlocks(c.steps, columns), textBlocks(c.foot, columns)
		lines = append(append(head, steps...), foot...)
		if len(lines) <= room {
			break
		}
		// Only the last degree gets here with too much: a menu or a list of steps longer than the screen.
		keep := max(room-len(head)-len(foot), 0)
		lines = append(append(head, steps[:min(keep, len(steps))]...), foot...)
		lines = lines[max(len(lines)-room, 0):]
	}
	for len(lines) < rows-len(keys) {
		lines = append(lines, "")
	}
	return append(lines, keys...)
}

// Console is Text with the escape sequences of a Linux console or any ANSI terminal around it: it clears the screen,
// hides the cursor and writes white on black.
func Console(record *crash.Record, page Page, columns, rows int) []byte {
	var b strings.Builder
	b.WriteString("\x1b[0;1;37;40m\x1b[2J\x1b[H\x1b[?25l")
	b.WriteString(strings.Join(Text(record, page, columns, rows), "\r\n"))
	return []byte(b.String())
}

// Serial is the story as plain text for a serial line or a log, without a width and without control characters other
// than line feeds. SerialChange goes on from there.
func Serial(record *crash.Record) string {
	c := compose(record, Main, ascii, 0)
	var b strings.Builder
	for _, list := range [][]block{c.head, c.steps, c.foot} {
		for _, line := range textBlocks(list, 1<<20) {
			b.WriteString(line + "\n")
		}
	}
	if len(c.keys) > 0 {
		b.WriteString("\n" + strings.Join(keyRows(c.keys, 1<<20), "\n") + "\n")
	}
	return b.String()
}

// SerialChange is what is new since before, one line for each step or sentence that changed; it is empty when nothing
// did. A serial line has no screen to draw again.
func SerialChange(before, after *crash.Record) string {
	known := map[string]bool{}
	for line := range strings.Lines(Serial(before)) {
		known[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(Serial(after)) {
		if !known[line] {
			b.WriteString(line)
		}
	}
	return b.String()
}

// ascii reports whether a character can be shown as ASCII, perhaps as another one (plainText).
func ascii(r rune) bool {
	return r >= ' ' && r <= '~' || strings.ContainsRune(asciiKnown, r)
}

// asciiKnown are the characters beyond ASCII that plainText writes in ASCII.
const asciiKnown = "…–—’‘“”·×µ®™©ÀÁÂÃÅÄàáâãåäÇçÈÉÊËèéêëÌÍÎÏìíîïÑñÒÓÔÕØÖòóôõøöÙÚÛÜùúûüÝýÿßŠšŽžČčŁłŒœÆæ"

func plainText(text string) string {
	return strings.NewReplacer(
		"…", "...", "–", "-", "—", "-", "’", "'", "‘", "'", "“", `"`, "”", `"`, "·", ".", "×", "x", "µ", "u",
		"®", "(R)", "™", "(TM)", "©", "(C)", "À", "A", "Á", "A", "Â", "A", "Ã", "A", "Å", "A", "Ä", "A",
		"à", "a", "á", "a", "â", "a", "ã", "a", "å", "a", "ä", "a", "Ç", "C", "ç", "c", "È", "E", "É", "E", "Ê", "E",
		"Ë", "E", "è", "e", "é", "e", "ê", "e", "ë", "e", "Ì", "I", "Í", "I", "Î", "I", "Ï", "I", "ì", "i", "í", "i",
		"î", "i", "ï", "i", "Ñ", "N", "ñ", "n", "Ò", "O", "Ó", "O", "Ô", "O", "Õ", "O", "Ø", "O", "Ö", "O", "ò", "o",
		"ó", "o", "ô", "o", "õ", "o", "ø", "o", "ö", "o", "Ù", "U", "Ú", "U", "Û", "U", "Ü", "U", "ù", "u", "ú", "u",
		"û", "u", "ü", "u", "Ý", "Y", "ý", "y", "ÿ", "y", "ß", "ss", "Š", "S", "š", "s", "Ž", "Z", "ž", "z", "Č", "C",
		"č", "c", "Ł", "L", "ł", "l", "Œ", "OE", "œ", "oe", "Æ", "AE", "æ", "ae",
	).Replace(text)
}

// textBlocks wraps blocks into lines of text.
func textBlocks(blocks []block, columns int) []string {
	var lines []string
	widest := 1 // of the menu's keys
	for i := range blocks {
		if blocks[i].role == roleChoice {
			widest = max(widest, len(plainText(blocks[i].mark)))
		}
	}
	for _, b := range blocks {
		first, rest := "", ""
		switch b.role {
		case roleStep:
			first, rest = fmt.Sprintf("  [%-4s] ", centred(b.mark)), "         "
		case roleChoice:
			first = fmt.Sprintf("  %-*s  ", widest, plainText(b.mark))
			rest = strings.Repeat(" ", len(first))
		case roleFaint, roleDetail:
			first, rest = "  ", "    "
		case roleTitle, roleStrong, rolePlain, roleHeading:
		}
		if b.gap {
			lines = append(lines, "")
		}
		for i, line := range wrap(plainText(b.text), columns-max(len(first), len(rest)), b.rows, utf8.RuneCountInString,
			"...") {
			if i > 0 {
				first = rest
			}
			lines = append(lines, first+line)
		}
	}
	return lines
}

// centred puts two dots into the middle of the four places between the brackets.
func centred(mark string) string {
	if len(mark) == 2 {
		return " " + mark + " "
	}
	return mark
}

// keyRows writes the keys side by side, on as many rows as they need.
func keyRows(keys []crash.Key, columns int) []string {
	var rows []string
	row := ""
	for _, k := range keys {
		text := plainText(k.Name + " " + k.Text)
		text = text[:min(len(text), columns)]
		switch {
		case row == "":
			row = text
		case len(row)+3+len(text) <= columns:
			row += "   " + text
		default:
			rows, row = append(rows, row), text
		}
	}
	if row != "" {
		rows = append(rows, row)
	}
	return rows
}

// tail shows the end of a long list below its head, and says that its beginning is missing.
func tail(head, lines []string, room int) []string {
	room -= len(head)
	if len(lines) > room {
		lines = append([]string{"  ..."}, lines[len(lines)-max(room-1, 0):]...)
	}
	return append(head, lines[:min(len(lines), max(room, 0))]...)
}
