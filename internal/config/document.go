package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

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
	// advice is the next step where a file is wrong, unless the code says which.
	advice string
}

// decodeFile reads path strictly into v.
func decodeFile(path, code string, v any) (*document, error) { return decodeWith(path, code, "", v) }

// decodeWith is decodeFile with advice.
func decodeWith(path, code, advice string, v any) (*document, error) {
	d := &document{path: path, code: code, advice: advice}
	f, err := os.Open(path)
	if err != nil {
		return nil, d.where(nil, pathless(err), "create the file, or name another")
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, d.where(nil, pathless(err), "name a file that can be read")
	}
	return d.decode(b, v)
}

// pathless is an error without the path, which stands before it anyway.
func pathless(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Op + ": " + pe.Err.Error()
	}
	return err.Error()
}

// decode is decodeFile on bytes.
func decode(path, code string, b []byte, v any) (*document, error) {
	return (&document{path: path, code: code}).decode(b, v)
}

func (d *document) decode(b []byte, v any) (*document, error) {
	if len(b) > maxFile {
		return nil, d.where(nil, "the file is over 1 MiB", "shorten it")
	}
	b = bytes.TrimPrefix(b, []byte("\uFEFF")) // some editors mark UTF-8 with it
	tokens := lexer.Tokenize(string(b))
	if err := d.scan(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, d.syntax(err)
	}
	body, err := d.only(file)
	if err != nil {
		return nil, err
	}
	s := &shape{d: d}
	s.check(body, reflect.TypeOf(v).Elem(), "the file")
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	if err := yaml.UnmarshalWithOptions(b, v, yaml.Strict()); err != nil {
		return nil, d.syntax(err)
	}
	d.file = file
	return d, nil
}

// only returns the content of the one document that a file may have.
func (d *document) only(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for i, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType {
			continue
		}
		if i > 0 {
			return nil, d.where(firstToken(doc.Body), "a second document begins here", "keep one document in a file")
		}
		body = doc.Body
	}
	if body == nil {
		return nil, d.where(nil, "the file is empty", d.fix())
	}
	return body, nil
}

// fix is what to do about a file that is not what it should be.
func (d *document) fix() string {
	if d.advice != "" {
		return d.advice
	}
	if d.code == CodeManifest {
		return "docs/write-a-provider.md explains every key"
	}
	return "keepout config explain lists every key"
}

// syntax turns the library's error, which knows the place, into ours.
func (d *document) syntax(err error) error {
	var known yaml.Error
	if errors.As(err, &known) {
		return d.where(known.GetToken(), known.GetMessage(), d.fix())
	}
	return d.where(nil, err.Error(), d.fix())
}

// where makes an error at a token; without one, at the beginning.
func (d *document) where(t *token.Token, what, fix string) error {
	e := &Error{Code: d.code, File: d.path, Line: 1, Column: 1, Fix: fix}
	if t != nil && t.Position != nil {
		e.Line, e.Column = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	e.What, _, _ = strings.Cut(what, "\n")
	return e
}

// at makes an error at the value with this YAML path, for example "$.providers[0].id", or at the nearest parent
// that exists.
func (d *document) at(path, code, what, fix string) error {
	if d == nil {
		return &Error{Code: code, What: what, Fix: fix} // not from a file
	}
	for p := path; p != "" && p != "$"; p = parentPath(p) {
		yp, err := yaml.PathString(p)
		if err != nil {
			continue
		}
		node, err := yp.FilterFile(d.file)
		if err != nil || node == nil || firstToken(node) == nil {
			continue
		}
		pos := firstToken(node).Position
		return &Error{Code: code, File: d.path, Line: pos.Line, Column: pos.Column, What: what, Fix: fix}
	}
	return &Error{Code: code, File: d.path, Line: 1, Column: 1, What: what, Fix: fix}
}

func parentPath(p string) string {
	i := strings.LastIndexAny(p, ".[")
	if i < 0 {
		return ""
	}
	return p[:i]
}
