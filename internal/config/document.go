package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/keepout-security/keepout/internal/health"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Error is one thing wrong in a file, at a place.
type Error struct {
	Code         string // KO-nnnn
	File         string
	Line, Column int
	What         string
	Fix          string
}

// Error gives "file:line:column: KO-nnnn: what. Next: fix".
func (e *Error) Error() string {
	p := health.Problem{Code: e.Code, Title: e.What, Fix: e.Fix}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, p.Error())
}

// document is a parsed file that remembers where everything stands.
type document struct {
	path string
	file *ast.File
	code string // of syntax errors
}

// decodeFile reads path strictly into v.
func decodeFile(path, code string, v any) (*document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Code: code, File: path, Line: 1, Column: 1, What: err.Error(), Fix: "create the file, or name another"}
	}
	defer func() { _ = f.Close() }() // only read
	b := make([]byte, maxFile+1)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		n += m
		if err != nil {
			break
		}
	}
	if n > maxFile {
		return nil, &Error{Code: code, File: path, Line: 1, Column: 1, What: "file is over 1 MiB", Fix: "shorten it"}
	}
	return decode(path, code, b[:n], v)
}

// decode is decodeFile on bytes.
func decode(path, code string, b []byte, v any) (*document, error) {
	d := &document{path: path, code: code}
	if err := yaml.UnmarshalWithOptions(b, v, yaml.Strict()); err != nil {
		return nil, d.syntax(err)
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, d.syntax(err)
	}
	d.file = file
	return d, nil
}

// syntax turns the library's error, which knows the place, into ours.
func (d *document) syntax(err error) error {
	e := &Error{Code: d.code, File: d.path, Line: 1, Column: 1, What: err.Error(), Fix: "keepout config explain lists every key"}
	var known yaml.Error
	if errors.As(err, &known) {
		e.What = known.GetMessage()
		if t := known.GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	e.What, _, _ = strings.Cut(e.What, "\n")
	return e
}

// at makes an error at the value with this YAML path, for example "$.providers[0].id", or at the nearest parent
// that exists.
func (d *document) at(path, code, what, fix string) error {
	e := &Error{Code: code, File: d.path, Line: 1, Column: 1, What: what, Fix: fix}
	for p := path; p != "" && p != "$"; p = parentPath(p) {
		yp, err := yaml.PathString(p)
		if err != nil {
			continue
		}
		node, err := yp.FilterFile(d.file)
		if err != nil || node == nil || node.GetToken() == nil {
			continue
		}
		pos := node.GetToken().Position
		e.Line, e.Column = pos.Line, pos.Column
		break
	}
	return e
}

func parentPath(p string) string {
	i := strings.LastIndexAny(p, ".[")
	if i < 0 {
		return ""
	}
	return p[:i]
}
