package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

// channel writes a channel file with one instance whose path and pipe are as given, and returns its folder.
func channel(t *testing.T, path, pipe string) string {
	t.Helper()
	criteria := make([]string, len(definition()))
	for i := range criteria {
		criteria[i] = wildcard
	}
	criteria[1], criteria[20] = path, pipe
	dir := t.TempDir()
	file := filepath.Join(dir, "c-00000291-1.channel")
	if err := os.WriteFile(file, []byte("# test\n"+strings.Join(criteria, ",")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func ask(e *engine, path string) provider.Vote {
	return e.vote(&provider.Event{Event: event.Event{Type: event.Open, File: event.File{Path: path}}})
}

// outOfBounds runs f and reports whether it ended in the run-time error of the defect.
func outOfBounds(t *testing.T, f func()) (hit bool) {
	t.Helper()
	defer func() {
		r := recover()
		err, ok := r.(runtime.Error)
		hit = ok && strings.Contains(err.Error(), "index out of range [20] with length 20")
		if r != nil && !hit {
			t.Errorf("another panic: %v", r)
		}
	}()
	f()
	return false
}

// TestTheWildcardHidIt: what was tested and shipped until July works, and detects.
func TestTheWildcardHidIt(t *testing.T) {
	t.Parallel()
	e := &engine{}
	if _, err := e.load(t.Context(), provider.Settings{Content: channel(t, "*/evil", "*")}); err != nil {
		t.Fatal(err)
	}
	if v := ask(e, "/srv/evil"); v.Action != event.Deny {
		t.Errorf("the marked file: %v", v)
	}
	if v := ask(e, "/srv/good"); v.Action != event.Allow {
		t.Errorf("another file: %v", v)
	}
}

// TestTheValidatorTrustsTheDefinition: the content that will crash the engine is valid to its own validator.
func TestTheValidatorTrustsTheDefinition(t *testing.T) {
	t.Parallel()
	if n := len(inputs(&provider.Event{})); n != 20 || len(definition()) != 21 {
		t.Fatalf("%d fields declared, %d supplied: this is not the case of July 2024", len(definition()), n)
	}
	e := &engine{}
	set := provider.Settings{Content: channel(t, "*", "evil"), Values: map[string]string{"self_test": "off"}}
	if _, err := e.load(t.Context(), set); err != nil {
		t.Errorf("refused: %v", err)
	}
	if !outOfBounds(t, func() { ask(e, "/srv/any") }) {
		t.Error("the first event does not read the 21st of 20 inputs")
	}
}

// TestTheFirstMatchingEvent: the defect waits until the criteria before the 21st are met.
func TestTheFirstMatchingEvent(t *testing.T) {
	t.Parallel()
	e := &engine{}
	set := provider.Settings{Content: channel(t, "*/report.doc", "evil")}
	if _, err := e.load(t.Context(), set); err != nil { // the engine's own event does not match
		t.Fatal(err)
	}
	if v := ask(e, "/srv/good"); v.Action != event.Allow {
		t.Errorf("another file: %v", v)
	}
	if !outOfBounds(t, func() { ask(e, "/srv/report.doc") }) {
		t.Error("the first matching event does not read the 21st of 20 inputs")
	}
}

// TestTheLoadCanShowIt: content that concerns every event ends a load that tries it.
func TestTheLoadCanShowIt(t *testing.T) {
	t.Parallel()
	e := &engine{}
	set := provider.Settings{Content: channel(t, "*", "evil")}
	if !outOfBounds(t, func() { _, _ = e.load(t.Context(), set) }) {
		t.Error("the self-test does not read the 21st of 20 inputs")
	}
}
