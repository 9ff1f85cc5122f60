package content

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// row checks one line after the other; it allocates only for mistakes.
type row struct {
	f        *File
	comment  []byte
	patterns []*regexp.Regexp // of the fields, where they have one
	required int              // fields that every line has
}

func newRow(f *File) *row {
	r := &row{f: f, comment: []byte(f.Comment), patterns: make([]*regexp.Regexp, len(f.Fields))}
	for i := range f.Fields {
		if !f.Fields[i].Optional {
			r.required = i + 1
		}
		if f.Fields[i].Type == "regex" {
			r.patterns[i], _ = f.Fields[i].compile() // a valid schema's patterns do
		}
	}
	return r
}

// check looks at one line without its end; content is false for blank lines and comments.
func (r *row) check(line []byte) (content bool, bad *Mistake) {
	if r.f.Format == "text" {
		return len(bytes.TrimSpace(line)) > 0, checkText(line)
	}
	n, at := 0, 0
	for more := len(bytes.TrimSpace(line)) > 0; more; n++ {
		if r.f.Separator == "" {
			at += leadingBlanks(line[at:])
		}
		if at == len(line) && r.f.Separator == "" || len(r.comment) > 0 && bytes.HasPrefix(line[at:], r.comment) {
			break
		}
		if n == len(r.f.Fields) {
			return true, r.surplus(line[at:], n, at)
		}
		end := r.fieldEnd(line, n, at)
		if bad := r.field(n, line[at:end], at); bad != nil {
			return true, bad
		}
		more = end < len(line)
		at = end
		if r.f.Separator != "" {
			at++
		}
	}
	if n > 0 && n < r.required {
		return true, &Mistake{
			Column: len(line) + 1, What: fmt.Sprintf("line has %d fields", n), Why: r.wants(),
			Next: fmt.Sprintf("add %s", r.f.Fields[n].Name),
		}
	}
	return n > 0, nil
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' }

func leadingBlanks(b []byte) int {
	n := 0
	for n < len(b) && isBlank(b[n]) {
		n++
	}
	return n
}

// fieldEnd returns where the field that begins at at ends.
func (r *row) fieldEnd(line []byte, n, at int) int {
	end := len(line)
	if r.f.Fields[n].Rest {
		for r.f.Separator == "" && end > at && isBlank(line[end-1]) {
			end--
		}
		return end
	}
	if r.f.Separator != "" {
		if i := bytes.IndexByte(line[at:], r.f.Separator[0]); i >= 0 {
			end = at + i
		}
		return end
	}
	for end = at; end < len(line) && !isBlank(line[end]); end++ {
	}
	return end
}

// surplus says that a line goes on where no field is left.
func (r *row) surplus(rest []byte, n, at int) *Mistake {
	if r.f.Separator != "" {
		n += 1 + bytes.Count(rest, []byte(r.f.Separator))
	} else {
		n += len(bytes.Fields(rest))
	}
	return &Mistake{
		Column: at + 1, What: fmt.Sprintf("line has %d fields", n), Why: r.wants(),
		Next: "remove what is too much; an engine built for fewer fields must not see it",
	}
}

func (r *row) wants() string {
	if r.required == len(r.f.Fields) {
		return fmt.Sprintf("the schema has %d", r.required)
	}
	return fmt.Sprintf("the schema has %d to %d", r.required, len(r.f.Fields))
}

// field checks one field; at is where it begins in the line.
func (r *row) field(n int, value []byte, at int) *Mistake {
	f := &r.f.Fields[n]
	if f.Wildcard != "" && string(value) == f.Wildcard {
		return nil
	}
	var offset int
	var what, why string
	switch f.Type {
	case "hex":
		offset, what, why = f.checkHex(value)
	case "int":
		what, why = f.checkInt(value)
	case "enum":
		what, why = f.checkEnum(value)
	case "regex":
		if what, why = f.checkLength(value, "bytes"); what == "" && !r.patterns[n].Match(value) {
			what, why = "found "+quote(value), "does not match "+clip(f.Pattern)
		}
	default:
		offset, what, why = f.checkPrintable(value)
	}
	if what == "" {
		return nil
	}
	next := "correct the field, or the line"
	if f.Wildcard != "" {
		next = fmt.Sprintf("correct the field, or write %s for any", f.Wildcard)
	}
	return &Mistake{
		Column: at + offset + 1, What: what, Why: fmt.Sprintf("field %d, %s, %s", n+1, f.Name, why), Next: next,
	}
}

func (f *Field) checkLength(value []byte, unit string) (what, why string) {
	if f.Length.holds(int64(len(value)), 1) {
		return "", ""
	}
	want := f.Length.String()
	if want == "" {
		want = "at least 1"
	}
	return fmt.Sprintf("found %d %s", len(value), unit), "has " + want
}

func (f *Field) checkHex(value []byte) (offset int, what, why string) {
	for i, b := range value {
		if b-'0' >= 10 && (b|0x20)-'a' >= 6 {
			return i, "found " + describe(value[i:]), "consists of hex digits"
		}
	}
	what, why = f.checkLength(value, "hex digits")
	return 0, what, why
}

func (f *Field) checkInt(value []byte) (what, why string) {
	number, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return "found " + quote(value), "is a whole number"
	}
	if f.Range.set && !f.Range.holds(number, 0) {
		return fmt.Sprintf("found %d", number), "is in " + f.Range.String()
	}
	return "", ""
}

func (f *Field) checkEnum(value []byte) (what, why string) {
	for _, v := range f.Values {
		if string(value) == v {
			return "", ""
		}
	}
	return "found " + quote(value), "is one of " + clip(fmt.Sprint(f.Values))
}

func (f *Field) checkPrintable(value []byte) (offset int, what, why string) {
	for at := 0; at < len(value); {
		r, size := utf8.DecodeRune(value[at:])
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			return at, "found " + describe(value[at:]), "is printable UTF-8"
		}
		at += size
	}
	what, why = f.checkLength(value, "bytes")
	return 0, what, why
}
