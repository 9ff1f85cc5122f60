package content

import (
	"fmt"
	"path"
	"regexp"
	"slices"

	"github.com/keepout-security/keepout/internal/unit"
)

// Bounds of a schema and of what it may allow.
const (
	maxRules   = 32      // entries under files
	maxNames   = 64      // patterns of one entry
	maxFields  = 256     // of a line
	maxValues  = 256     // of an enum
	maxPattern = 1024    // bytes of a regular expression or a name
	maxLine    = 1 << 20 // bytes: the most that a schema may allow one line to have
)

// Defaults where a schema says nothing.
const (
	DefaultLine  = 4096 // bytes of the longest line
	DefaultFiles = 4096 // files that match one entry
	DefaultTotal = unit.Size(4 << 30)
)

// Schema is what a manifest declares about its content, under content_schema. The zero value declares nothing, and
// everything is accepted.
type Schema struct {
	Files  []File    `yaml:"files"`  // the first entry that a file's name matches is its rule
	Total  unit.Size `yaml:"total"`  // of all files with a rule; default 4GiB
	Others string    `yaml:"others"` // files without a rule: refuse (default), or ignore because the engine does
}

// File is the rule for the files of certain names.
type File struct {
	Names  []string  `yaml:"names"`  // patterns of path.Match, with slashes, from the content's folder
	Count  Range     `yaml:"count"`  // how many files match; default 0..4096
	Size   unit.Size `yaml:"size"`   // of each; required: nothing is unbounded
	Format string    `yaml:"format"` // lines, text (UTF-8 without control characters) or opaque (bounds only)
	Line   unit.Size `yaml:"line"`   // lines and text: the longest line; default 4096B
	Lines  Range     `yaml:"lines"`  // lines and text: how many, without comments and blank ones; default any

	Separator string  `yaml:"separator"` // lines: one character between fields; default: any run of spaces and tabs
	Comment   string  `yaml:"comment"`   // lines: a field that begins with it ends the line; default: no comments
	Fields    []Field `yaml:"fields"`    // lines: what a line consists of, in order
}

// Field is one field of a line.
type Field struct {
	Name     string   `yaml:"name"`     // for people
	Type     string   `yaml:"type"`     // text (printable UTF-8), hex, int, enum or regex
	Length   Range    `yaml:"length"`   // text, regex: bytes; hex: digits. Default 1.. up to the line
	Range    Range    `yaml:"range"`    // int
	Values   []string `yaml:"values"`   // enum
	Pattern  string   `yaml:"pattern"`  // regex: RE2 syntax, matches the whole field
	Wildcard string   `yaml:"wildcard"` // a word that is accepted as well, whatever the type
	Optional bool     `yaml:"optional"` // may be missing, with all fields behind it
	Rest     bool     `yaml:"rest"`     // last field only: takes the rest of the line, separators and all
}

// Declared reports whether there is anything to check.
func (s *Schema) Declared() bool { return len(s.Files) > 0 || s.Total != 0 || s.Others != "" }

// Refusal notes one error of a schema: where (a YAML path below the schema, such as ".files[0].size"), what to do,
// and what is wrong.
type Refusal func(at, fix, format string, args ...any)

// Validate reports what is wrong with the schema itself. A schema must be valid for Check.
func (s *Schema) Validate(bad Refusal) {
	if !s.Declared() {
		return
	}
	if len(s.Files) == 0 || len(s.Files) > maxRules {
		bad(".files", fmt.Sprintf("write 1 to %d entries", maxRules), "%d entries under files", len(s.Files))
	}
	if !slices.Contains([]string{"", "refuse", "ignore"}, s.Others) {
		bad(".others", "write refuse or ignore", "others %q is not known", s.Others)
	}
	for i := range s.Files[:min(len(s.Files), maxRules)] {
		s.Files[i].validate(fmt.Sprintf(".files[%d]", i), bad)
	}
}

func (f *File) validate(at string, bad Refusal) {
	if len(f.Names) == 0 || len(f.Names) > maxNames {
		bad(at+".names", fmt.Sprintf("write 1 to %d patterns", maxNames), "%d names", len(f.Names))
	}
	for i, name := range f.Names {
		if _, err := path.Match(name, ""); err != nil || name == "" || len(name) > maxPattern {
			bad(fmt.Sprintf("%s.names[%d]", at, i), `write a name, or a pattern such as "*.txt"`,
				"name %q is no pattern", clip(name))
		}
	}
	if f.Size == 0 {
		bad(at+".size", "write for example size: 64MiB", "size is not bounded")
	}
	if f.Line > maxLine {
		bad(at+".line", "choose up to 1MiB", "line is out of range")
	}
	ofLines := f.Separator != "" || f.Comment != "" || len(f.Fields) > 0
	switch f.Format {
	case "lines":
		f.validateLines(at, bad)
	case "text":
		if ofLines {
			bad(at+".format", "write format: lines, or remove them", "separator, comment and fields are for lines")
		}
	case "opaque":
		if ofLines || f.Line != 0 || f.Lines.set {
			bad(at+".format", "write format: lines or text, or remove them", "opaque content has no lines")
		}
	default:
		bad(at+".format", "write lines, text or opaque", "format %q is not known", f.Format)
	}
}

func (f *File) validateLines(at string, bad Refusal) {
	if len(f.Separator) > 1 || f.Separator == "\n" || f.Separator >= "\x80" {
		bad(at+".separator", `write one character, such as ","`, "separator %q is not one character", clip(f.Separator))
	}
	if f.Comment != "" && f.Comment == f.Separator {
		bad(at+".comment", `write for example "#"`, "comment and separator are the same")
	}
	if len(f.Fields) == 0 || len(f.Fields) > maxFields {
		bad(at+".fields", fmt.Sprintf("write 1 to %d", maxFields), "%d fields", len(f.Fields))
		return
	}
	for i := range f.Fields {
		field, here := &f.Fields[i], fmt.Sprintf("%s.fields[%d]", at, i)
		if i > 0 && f.Fields[i-1].Optional && !field.Optional {
			bad(here+".name", "write optional: true, or move it", "field %q comes after an optional one", field.Name)
		}
		if field.Rest && i < len(f.Fields)-1 {
			bad(here+".rest", "remove it, or move the field", "field %q is not the last", field.Name)
		}
		field.validate(here, bad)
	}
}

func (f *Field) validate(at string, bad Refusal) {
	if f.Name == "" || len(f.Name) > maxPattern {
		bad(at+".name", "write one", "a field has no name")
	}
	uses := map[string]bool{
		"range": f.Type == "int", "values": f.Type == "enum", "pattern": f.Type == "regex",
		"length": f.Type == "text" || f.Type == "hex" || f.Type == "regex",
	}
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"range", f.Range.set}, {"values", len(f.Values) > 0}, {"pattern", f.Pattern != ""}, {"length", f.Length.set},
	} {
		if key.set && !uses[key.name] {
			bad(at+"."+key.name, "remove it", "%s does not belong to type %q", key.name, clip(f.Type))
		}
	}
	if f.Length.set && f.Length.Max < 0 {
		bad(at+".length", "choose 0 or more", "length is negative")
	}
	switch f.Type {
	case "text", "hex", "int":
	case "enum":
		if len(f.Values) == 0 || len(f.Values) > maxValues {
			bad(at+".values", fmt.Sprintf("write 1 to %d", maxValues), "%d values", len(f.Values))
		}
	case "regex":
		if _, err := f.compile(); err != nil {
			bad(at+".pattern", "write a regular expression in RE2 syntax", "%v", err)
		}
	default:
		bad(at+".type", "write text, hex, int, enum or regex", "type %q is not known", clip(f.Type))
	}
}

// compile makes the pattern match whole fields.
func (f *Field) compile() (*regexp.Regexp, error) {
	if f.Pattern == "" || len(f.Pattern) > maxPattern {
		return nil, fmt.Errorf("pattern has %d bytes, want 1 to %d", len(f.Pattern), maxPattern)
	}
	re, err := regexp.Compile(`\A(?:` + f.Pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	return re, nil
}
