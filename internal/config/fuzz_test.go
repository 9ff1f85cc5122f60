package config

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

var placed = regexp.MustCompile(`^keepout\.yaml:[1-9]\d*:[1-9]\d*: KO-100[126]: `)

// wellSaid holds what is true of every error: each line has a place and a code, and is bounded.
func wellSaid(t *testing.T, err error) {
	t.Helper()
	list := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		list = joined.Unwrap()
	}
	if len(list) > maxErrors {
		t.Errorf("%d errors at once", len(list))
	}
	for _, e := range list {
		if !placed.MatchString(e.Error()) {
			t.Errorf("no place or code: %q", e)
		}
		if strings.Contains(e.Error(), "Go struct") || strings.Contains(e.Error(), "interface {}") {
			t.Errorf("in Go's words: %q", e)
		}
	}
}

func seeds(f *testing.F) {
	f.Helper()
	f.Add([]byte(Example))
	f.Add([]byte(strings.Join(manifest, "\n")))
	text, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split(string(text), "=== in\n")[1:] {
		in, _, _ := strings.Cut(c, "=== out\n")
		f.Add([]byte(in))
	}
	for _, in := range []string{
		"\uFEFFversion: 1\r\n", "a: &a [*a]", "{", "---\n---\nversion: 1\n", "version: |\n 1\n", "? a", "\x00", "'",
		"%YAML 1.2\n---\n",
		"version: 1\nproviders: [{id: a, settings: {a: ~, 1: 2, b: .inf, c: .nan, d: 2020-01-01}}]\n",
	} {
		f.Add([]byte(in))
	}
}

// FuzzParse: a configuration is accepted or refused with its place, and what is accepted keeps the bounds.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse("keepout.yaml", b)
		if err != nil {
			wellSaid(t, err)
			return
		}
		if l.Version != 1 || len(l.Providers) > maxProviders || l.Budgets.Content > Duration(HardLimit) {
			t.Errorf("accepted: %+v", l.Config)
		}
		for _, w := range l.Watch {
			if len(w.Types()) == 0 {
				t.Errorf("a watch without events: %+v", w)
			}
		}
	})
}

// FuzzManifest is the same for what a vendor wrote.
func FuzzManifest(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &Manifest{dir: "lists"}
		var err error
		if m.doc, err = decode("keepout.yaml", CodeManifest, b, m); err == nil {
			err = m.check()
		}
		if err != nil {
			wellSaid(t, err)
			return
		}
		if m.Version != 1 || m.ID != "lists" || strings.Contains(m.Executable, "/") || len(m.Events) == 0 {
			t.Errorf("accepted: %+v", m)
		}
	})
}
