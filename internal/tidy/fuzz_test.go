package tidy

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// fuzzed are packages that read what somebody else wrote, whatever their functions are called.
var fuzzed = []string{
	"wire", "internal/boot", "internal/config", "internal/content", "internal/control", "internal/journal",
	"internal/sensor/fanotify", "internal/store",
}

// TestEveryDecoderIsFuzzed: no byte from outside is trusted, and only a fuzzer tries them all.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	t.Parallel()
	decoders, targets := map[string]string{}, map[string]bool{}
	for _, pkg := range fuzzed {
		decoders[pkg] = "listed in internal/tidy/fuzz_test.go"
	}
	for _, s := range tree(t) {
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok || f.Recv != nil:
			case s.test && strings.HasPrefix(f.Name.Name, "Fuzz"):
				targets[s.dir()] = true
			case !s.test && !s.generated && decodes(f):
				decoders[s.dir()] = f.Name.Name + " at " + s.at(f)
			}
		}
	}
	for pkg, why := range decoders {
		if !targets[pkg] {
			t.Errorf("%s reads bytes from outside (%s) and has no fuzz target: add FuzzX with seeds from its tests",
				pkg, why)
		}
	}
}

// decodes reports whether f is an exported Decode... or Parse... of bytes, a string or a reader.
func decodes(f *ast.FuncDecl) bool {
	name := f.Name.Name
	if !strings.HasPrefix(name, "Decode") && !strings.HasPrefix(name, "Parse") {
		return false
	}
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		switch kind := p.Type.(type) {
		case *ast.Ident:
			return kind.Name == "string"
		case *ast.ArrayType:
			elem, ok := kind.Elt.(*ast.Ident)
			return ok && elem.Name == "byte"
		case *ast.SelectorExpr:
			return kind.Sel.Name == "Reader"
		}
		return false
	})
}

func TestDecodes(t *testing.T) {
	t.Parallel()
	s, err := parse("x.go", []byte(`package x
func DecodeX(b []byte) {}
func ParseX(r io.Reader) {}
func ParseY(name string) {}
func ParseZ(n int) {}
func Encode(b []byte) {}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []bool{true, true, true, false, false}
	for i, d := range s.ast.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && decodes(f) != want[i] {
			t.Errorf("decodes(%s) = %v, want %v", f.Name.Name, !want[i], want[i])
		}
	}
}
