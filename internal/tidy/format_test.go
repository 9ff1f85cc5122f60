package tidy

import (
	"bytes"
	"go/format"
	"testing"
)

func TestSourceIsFormatted(t *testing.T) {
	t.Parallel()
	eachSource(t, unformatted, "x.go", "package x\nfunc  f( ) { }\n")
}

func unformatted(s *source) []string {
	if formatted, err := format.Source(s.text); err != nil || !bytes.Equal(formatted, s.text) {
		return []string{s.name + ": not formatted: gofmt -w " + s.name}
	}
	return nil
}
