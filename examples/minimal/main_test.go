package main

import (
	"os"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/provider/conformance"
)

// TestMain lets this binary be the provider too, so that the test needs no compiler.
func TestMain(m *testing.M) {
	if os.Getenv("KEEPOUT_EXAMPLE") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestConformance(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	conformance.Run(t, conformance.Command{
		Path: self,
		// Without the second, the race detector would wait a second at every exit.
		Env:  []string{"KEEPOUT_EXAMPLE=1", "GORACE=atexit_sleep_ms=0"},
		Deny: []byte(marker + " of a kind"), Allow: []byte("harmless"),
	})
}

// TestGuideShowsThisProgram holds the guide to the files that are tested here.
func TestGuideShowsThisProgram(t *testing.T) {
	guide, err := os.ReadFile("../../docs/write-a-provider.md")
	if err != nil {
		t.Fatal(err)
	}
	for fence, file := range map[string]string{"go": "main.go", "yaml": "provider.yaml"} {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(guide), "\n```"+fence+"\n")
		if got, _, _ := strings.Cut(rest, "```\n"); got != string(want) {
			t.Errorf("the first %s block of the guide differs from %s", fence, file)
		}
	}
}
