package tidy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/keepout-security/keepout"
	root   = "../.." // the tests run in internal/tidy
)

// source is one Go file of the module, whatever its build constraint says.
type source struct {
	name      string // from the module's root, with slashes
	text      []byte
	fset      *token.FileSet
	ast       *ast.File
	test      bool
	generated bool
}

// dir is the file's package, from the module's root.
func (s *source) dir() string { return path.Dir(s.name) }

// at says where a node is, for a finding.
func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.name, s.fset.Position(n.Pos()).Line)
}

// imports returns the name by which the file knows the import, or "" when it does not import it.
func (s *source) imports(importPath string) string {
	for _, spec := range s.ast.Imports {
		if strings.Trim(spec.Path.Value, `"`) != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// parse makes a source from text.
func parse(name string, text []byte) (*source, error) {
	s := &source{name: name, text: text, fset: token.NewFileSet(), test: strings.HasSuffix(name, "_test.go")}
	var err error
	s.ast, err = parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s.generated = ast.IsGenerated(s.ast)
	return s, nil
}

// skipped are folders without source of this module; "testdata" may hold anything.
var skipped = map[string]bool{".git": true, "bin": true, "dist": true, "testdata": true}

// walk calls visit with every file that belongs to the tree, named from the root with slashes.
func walk(visit func(name string) error) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped[d.Name()]:
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(name))
	})
}

var sources = sync.OnceValues(func() (all []*source, err error) {
	err = walk(func(name string) error {
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		s, err := parse(name, text)
		all = append(all, s)
		return err
	})
	return all, err
})

// eachSource applies a rule to every file, after it has shown that it finds something in the bad example.
func eachSource(t *testing.T, rule func(*source) []string, badName, bad string) {
	t.Helper()
	example, err := parse(badName, []byte(bad))
	if err != nil {
		t.Fatal(err)
	}
	if len(rule(example)) == 0 {
		t.Fatalf("the rule is blind: it finds nothing wrong in\n%s", bad)
	}
	for _, s := range tree(t) {
		for _, finding := range rule(s) {
			t.Error(finding)
		}
	}
}

func tree(t *testing.T) []*source {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatalf("read the tree: %v", err)
	}
	if len(all) == 0 {
		t.Fatal("read the tree: no Go file")
	}
	return all
}

// listed is what the go command knows of a package.
type listed struct {
	ImportPath                         string
	Name                               string
	Standard                           bool
	Imports, TestImports, XTestImports []string
	Module                             *struct {
		Path string
		Main bool
	}
}

// goList runs "go list" for the product's platform: linux/amd64, without C.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{
		"list", "-json=ImportPath,Name,Standard,Imports,TestImports,XTestImports,Module",
	}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.Bytes())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list %v: %v", args, err)
		}
		all = append(all, p)
	}
}

// local returns a package's path from the module's root, and whether it is of this module.
func local(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}
