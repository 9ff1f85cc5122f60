package spec

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func good() Spec {
	return Spec{
		Name: "sigs-2", Provider: "acme", Channel: "content", Digest: "sha256:" + strings.Repeat("a", 64), Counter: 1,
		Target: map[string]string{"env": "prod"}, Pins: []Pin{{Labels: map[string]string{"a": "b"}, Place: "first"}},
		Freezes: []Freeze{{From: "2026-12-24T00:00:00Z", To: "2027-01-02T00:00:00+01:00", Reason: "holidays"}},
	}
}

// TestCheck: what is wrong is named with its place.
func TestCheck(t *testing.T) {
	t.Parallel()
	s := good()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if got := FromPB(s.PB()); !reflect.DeepEqual(got, s) {
		t.Errorf("over the wire it becomes %+v", got)
	}
	for path, breakIt := range map[string]func(*Spec){
		"name":            func(s *Spec) { s.Name = "A b" },
		"provider":        func(s *Spec) { s.Provider = "../x" },
		"channel":         func(s *Spec) { s.Channel = "both" },
		"digest":          func(s *Spec) { s.Digest = strings.ToUpper(s.Digest) },
		"counter":         func(s *Spec) { s.Counter = 0 },
		"previous":        func(s *Spec) { s.Previous = s.Digest },
		"new_path":        func(s *Spec) { s.Channel, s.NewPath = "engine", true },
		"reason":          func(s *Spec) { s.Emergency = true },
		"pins":            func(s *Spec) { s.Pins = make([]Pin, maxPins+1) },
		"pins[0].place":   func(s *Spec) { s.Pins[0].Place = "middle" },
		"pins[0].labels":  func(s *Spec) { s.Pins[0].Labels = nil },
		"freezes[0].from": func(s *Spec) { s.Freezes[0].From = "tomorrow" },
		"freezes[0].to":   func(s *Spec) { s.Freezes[0].To = s.Freezes[0].From },
	} {
		s := good()
		breakIt(&s)
		var p *Problem
		if err := s.Check(); !errors.As(err, &p) || p.Path != path {
			t.Errorf("%s: %v", path, err)
		}
	}
}
