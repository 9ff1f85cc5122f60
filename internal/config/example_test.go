package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"github.com/keepout-security/keepout/event"
)

func TestExampleIsAccepted(t *testing.T) {
	t.Parallel()
	l, err := Parse("example.yaml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Watch) != 1 || len(l.Providers) != 1 {
		t.Errorf("want one example each, got %+v and %+v", l.Watch, l.Providers)
	}
}

// keysOf lists the YAML paths of a type, with "[0]" for the entries of a list.
func keysOf(typ reflect.Type, at string) (paths []string) {
	switch typ.Kind() {
	case reflect.Struct:
		for f := range typ.Fields() {
			if key := f.Tag.Get("yaml"); key != "" {
				paths = append(paths, at+"."+key)
				paths = append(paths, keysOf(f.Type, at+"."+key)...)
			}
		}
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Struct {
			paths = keysOf(typ.Elem(), at+"[0]")
		}
	default:
	}
	return paths
}

func TestExampleNamesEveryKey(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseBytes([]byte(Example), 0)
	if err != nil {
		t.Fatal(err)
	}
	paths := keysOf(reflect.TypeFor[Config](), "$")
	if len(paths) < 25 {
		t.Fatalf("only %d keys found: %v", len(paths), paths)
	}
	for _, p := range paths {
		path, err := yaml.PathString(p)
		if err != nil {
			t.Fatal(err)
		}
		if node, err := path.FilterFile(file); err != nil || node == nil {
			t.Errorf("%s is not in the example", p)
		}
	}
}

// TestExampleShowsTheDefaults: outside the two lists of examples, leaving a key out and copying it from the
// example is the same.
func TestExampleShowsTheDefaults(t *testing.T) {
	t.Parallel()
	l, err := Parse("example.yaml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	got := l.Config
	got.Watch, got.Providers = nil, nil
	want := Default()
	want.Vital = []string{} // written as an empty list
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example has\n%+v\nthe defaults are\n%+v", got, want)
	}

	bare, err := Parse("bare.yaml", []byte("version: 1\nwatch: [{path: /srv}]\nproviders: [{id: hashlist}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := bare.Watch[0].Types(), l.Watch[0].Types(); !reflect.DeepEqual(got, want) {
		t.Errorf("default events %v, the example shows %v", got, want)
	}
	if got, want := bare.Providers[0].Mode, l.Providers[0].Mode; got != want || got != event.Audit {
		t.Errorf("default mode %q, the example shows %q", got, want)
	}
}

func TestExampleIsForPeople(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(Example) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 120 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.Contains(line, "\t") || strings.HasSuffix(line, " \n") {
			t.Errorf("tab or space at the end: %q", line)
		}
	}
}
