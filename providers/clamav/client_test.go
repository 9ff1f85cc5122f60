package main

import (
	"errors"
	"strings"
	"testing"
)

func TestParseFinding(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  finding
	}{
		{"fd[10]: OK", finding{}},
		{"fd[10]: Eicar-Test.UNOFFICIAL FOUND", finding{name: "Eicar-Test.UNOFFICIAL"}},
		{"fd[3]: Name with FOUND in it FOUND", finding{name: "Name with FOUND in it"}},
		{"fd[3]: OK FOUND", finding{name: "OK"}},
		{"fd[3]: Can't allocate memory ERROR", finding{trying: "Can't allocate memory"}},
		{
			"fd[3]: Heuristics.Limits.Exceeded.MaxScanTime FOUND",
			finding{trying: "Heuristics.Limits.Exceeded.MaxScanTime"},
		},
	} {
		if got, err := parseFinding(tt.reply); err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v, want %+v", tt.reply, got, err, tt.want)
		}
	}
	for _, reply := range []string{
		"", "OK", "fd[]: OK", "fd[x]: OK", "fd[-1]: OK", "fd[1]:OK", "fd[1]: ok", "fd[1]: OK ", "fd[1]: ",
		"fd[1]:  FOUND", "fd[1]: FOUND", "fd[1]:  ERROR", "fd[1]: Name", "/tmp/x: OK", "1: fd[1]: OK",
		"UNKNOWN COMMAND", "COMMAND READ TIMED OUT ERROR",
	} {
		if got, err := parseFinding(reply); !errors.Is(err, errReply) {
			t.Errorf("%q: %+v, %v, want an unknown answer", reply, got, err)
		}
	}
}

// FuzzParseReply holds that only clamd's own words make a finding.
func FuzzParseReply(f *testing.F) {
	for _, seed := range []string{
		"fd[10]: OK\x00", "fd[1]: A FOUND\x00", "fd[1]: A ERROR\x00", "fd[1]: OK\x00fd[1]: A FOUND\x00", "\x00", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		reply, err := cutReply(raw)
		var got finding
		if err == nil {
			got, err = parseFinding(reply)
		}
		if err != nil {
			if !errors.Is(err, errReply) || got != (finding{}) {
				t.Errorf("%q: %+v, %v", raw, got, err)
			}
			return
		}
		text := string(raw)
		switch {
		case got.name != "" && got.trying != "":
			t.Errorf("%q: both found and failed", raw)
		case got.name != "":
			if !strings.HasSuffix(text, ": "+got.name+" FOUND\x00") {
				t.Errorf("%q: found %q", raw, got.name)
			}
		case got.trying == "" && !strings.HasSuffix(text, "]: OK\x00"):
			t.Errorf("%q: counts as clean", raw)
		}
	})
}
