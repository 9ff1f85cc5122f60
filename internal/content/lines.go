package content

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// minBuffer keeps the number of reads low where lines are short, in bytes.
const minBuffer = 64 << 10

// lines checks a file of format lines or text.
func (c *check) lines(name string, f *File, r io.Reader) error {
	longest := int(cmp.Or(f.Line, DefaultLine))
	in := bufio.NewReaderSize(r, max(longest+2, minBuffer))
	row := newRow(f)
	used := int64(0)
	for number := 1; !c.done(); number++ {
		line, err := in.ReadSlice('\n')
		end := errors.Is(err, io.EOF)
		cut := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !end && !cut {
			return err
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
		var content bool
		var bad *Mistake
		if len(line) > longest {
			bad = &Mistake{
				Column: longest + 1, What: fmt.Sprintf("line longer than %d bytes", longest),
				Why: "the schema allows no more", Next: "shorten it",
			}
		} else {
			content, bad = row.check(line)
		}
		if bad != nil {
			bad.File, bad.Line = c.path(name), number
			c.add(*bad)
		}
		if content {
			used++
		}
		if !f.Lines.holds(used, 0) && used > f.Lines.Max {
			c.add(Mistake{
				File: c.path(name), Line: number, Column: 1, What: fmt.Sprintf("line %d of content", used),
				Why: "the schema wants " + f.Lines.String(), Next: "shorten the file",
			})
			return nil
		}
		if cut {
			return nil // where the next line begins is not known
		}
		if end {
			break
		}
	}
	if !c.done() && !f.Lines.holds(used, 0) {
		c.whole(name, fmt.Sprintf("%d lines of content", used), "the schema wants "+f.Lines.String(), "complete the file")
	}
	return nil
}

// checkText holds that a line is UTF-8 and shows all that it contains.
func checkText(line []byte) *Mistake {
	for at := 0; at < len(line); {
		if b := line[at]; b < utf8.RuneSelf && b >= ' ' && b != 0x7f || b == '\t' || b == '\f' {
			at++
			continue
		}
		r, size := utf8.DecodeRune(line[at:])
		if r == utf8.RuneError && size == 1 || unicode.IsControl(r) {
			return &Mistake{
				Column: at + 1, What: "found " + describe(line[at:]), Why: "the format is text in UTF-8",
				Next: "save the file as UTF-8, without control characters",
			}
		}
		at += size
	}
	return nil
}
