package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

func write(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, planFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPlan(t *testing.T) {
	t.Parallel()
	var p plan
	if err := p.read(filepath.Join(write(t, "# a plan\n\nfault deny\n delay 20ms \non every\n"), planFile)); err != nil {
		t.Fatal(err)
	}
	if want := (plan{fault: "deny", delay: 20 * time.Millisecond, every: true}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	if err := p.read(filepath.Join(write(t, "fault none\non marked"), planFile)); err != nil || p.fault != "" || p.every {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, text := range []string{"fault sing", "delay soon", "on sunday", "mood bad", "fault"} {
		err := p.read(filepath.Join(write(t, "on every\n"+text), planFile))
		if (err == nil) != (text == "fault") || err != nil && !strings.Contains(err.Error(), planFile+":2: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestRefusesOutsideACage: a test is in none, so nothing happens here, whatever the plan says.
func TestRefusesOutsideACage(t *testing.T) {
	t.Parallel()
	for _, fault := range append(append([]string{}, onEvent...), atOnce...) {
		f := &faulty{}
		_, err := f.load(t.Context(), provider.Settings{Content: write(t, "on every\nfault "+fault)})
		if err == nil || !strings.Contains(err.Error(), "not in a cage") {
			t.Fatalf("%s: %v", fault, err)
		}
		if v := f.vote(&provider.Event{Event: event.Event{ID: 1}}); v.Action != event.Abstain {
			t.Errorf("%s: it votes %v", fault, v)
		}
	}
	f := &faulty{}
	if _, err := f.load(t.Context(), provider.Settings{Content: write(t, "delay 1ms")}); err != nil {
		t.Errorf("a plan without a fault: %v", err)
	}
	if v := f.vote(&provider.Event{Event: event.Event{ID: 1}}); v.Action != event.Allow {
		t.Errorf("without a fault it votes %v", v)
	}
}
