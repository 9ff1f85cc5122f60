package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
)

var (
	hashA = strings.Repeat("a1", 32)
	hashB = strings.Repeat("b2", 32)
)

func parseText(text string, limit int) (*list, error) {
	return build(context.Background(), strings.NewReader(text), "deny.txt", limit, io.Discard)
}

func sumOf(t *testing.T, digits string) *[sha256.Size]byte {
	t.Helper()
	var sum [sha256.Size]byte
	if n, err := hex.Decode(sum[:], []byte(digits)); err != nil || n != sha256.Size {
		t.Fatalf("bad hash in the test: %q", digits)
	}
	return &sum
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		entries    int
		want       string // name of hashA
	}{
		{"empty", "", 0, ""},
		{"bare", hashA + "\n", 1, ""},
		{"no newline at the end", hashB + "\n" + hashA, 2, ""},
		{"name", hashA + " Win.Test 7\n", 1, "Win.Test 7"},
		{"tab and trailing blanks", hashA + "\t  Trojan \t\n", 1, "Trojan"},
		{"carriage returns", "# list\r\n\r\n" + hashA + " Trojan\r\n" + hashB + "\r\n", 2, "Trojan"},
		{"comments and blank lines", "# a\n\n  \t\n\t# b\n" + hashA + " # why\n", 1, ""},
		{"upper case", strings.ToUpper(hashA) + " Trojan\n", 1, "Trojan"},
		{"UTF-8", hashA + " Böse Datei\n", 1, "Böse Datei"},
		{"duplicate", hashA + "\n" + hashA + " Trojan\n" + hashA + "\n", 1, "Trojan"},
		{"longest name", hashA + " " + strings.Repeat("n", maxName), 1, strings.Repeat("n", maxName)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := parseText(tt.text, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if l.len() != tt.entries {
				t.Errorf("%d entries, want %d", l.len(), tt.entries)
			}
			name, found := l.find(sumOf(t, hashA))
			if found != (tt.entries > 0) || name != tt.want {
				t.Errorf("find = %q, %v, want %q", name, found, tt.want)
			}
			if _, found := l.find(sumOf(t, strings.Repeat("a1", 31)+"a2")); found {
				t.Error("found a hash that is not listed")
			}
		})
	}
}

func TestParseSaysWhere(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"short", hashA + "\n" + hashB[:60] + "\n", "deny.txt:2:61: found 60 hex digits: " + wantLine},
		{"long", hashA + "00\n", "deny.txt:1:65: found 66 hex digits: " + wantLine},
		{"not hex", "a1g" + hashA[3:], "deny.txt:1:3: found 'g': " + wantLine},
		{"short with a name", "\n" + hashA[:40] + " Trojan", "deny.txt:2:41: found ' ': " + wantLine},
		{"leading space", " " + hashA, "deny.txt:1:1: found ' ': " + wantLine},
		{"byte order mark", "\uFEFF" + hashA, "deny.txt:1:1: found a byte order mark: " + wantLine},
		{"no space", hashA + ",Trojan", "deny.txt:1:65: found ',' after the hash: " + wantLine},
		{"binary", "\x00\x01", `deny.txt:1:1: found '\x00': ` + wantLine},
		{"not UTF-8", hashA + " Tro\xffjan", "deny.txt:1:69: found byte 0xff in the name: use printable UTF-8"},
		{"escape", hashA + " \x1b[31m", `deny.txt:1:66: found '\x1b' in the name: use printable UTF-8`},
		{
			"long name", hashA + " " + strings.Repeat("n", maxName+1),
			"deny.txt:1:66: name of 201 bytes: use at most 200 bytes",
		},
		{
			"long line", "# " + strings.Repeat("x", 2*readSize),
			"deny.txt:1:1025: line longer than 1024 bytes: shorten the name or the comment",
		},
		{
			"too many", strings.Repeat(hashA+"\n", 11),
			"deny.txt:11:1: the lists take more than 72 MiB: shorten them",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseText(tt.text, 10*entrySize); err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

// FuzzParse holds that a list is either refused, or yields exactly the hashes of its lines.
func FuzzParse(f *testing.F) {
	f.Add([]byte(hashA + " name\r\n# c\n\n" + hashB))
	f.Add([]byte(hashA + "\n" + hashA + " again\n"))
	f.Add([]byte("\uFEFF" + hashA))
	f.Add([]byte(hashA[:63]))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parseText(string(text), 1<<20)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "deny.txt:") {
				t.Errorf("error without a place: %v", err)
			}
			return
		}
		defer l.close()
		want := map[string]bool{}
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) >= 64 && line[0] != '#' {
				want[strings.ToLower(string(line[:64]))] = true
			}
		}
		if l.len() != len(want) {
			t.Fatalf("%d entries, want %d", l.len(), len(want))
		}
		for digits := range want {
			if name, found := l.find(sumOf(t, digits)); !found || len(name) > maxName {
				t.Errorf("find(%s) = %q, %v", digits, name, found)
			}
		}
	})
}

// TestOrder holds that every entry is found with its own name, whatever the hashes look like.
func TestOrder(t *testing.T) {
	const entries = 5000
	for name, digits := range map[string]func(i int) string{
		"spread":     func(i int) string { return fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)})) },
		"one prefix": func(i int) string { return fmt.Sprintf("ffff%060x", i*7919%entries) },
		"last bytes": func(i int) string { return fmt.Sprintf("%064x", entries-i) },
	} {
		var text strings.Builder
		for i := range entries {
			fmt.Fprintf(&text, "%s n%d\n", digits(i), i/2)
		}
		l, err := parseText(text.String(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			got, found := l.find(sumOf(t, digits(i)))
			if want := fmt.Sprintf("n%d", i/2); !found || got != want {
				t.Fatalf("%s: entry %d: %q, %v, want %q", name, i, got, found, want)
			}
		}
		for _, absent := range []string{strings.Repeat("0", 64), strings.Repeat("f", 64), hashA} {
			if _, found := l.find(sumOf(t, absent)); found {
				t.Errorf("%s: found %s", name, absent)
			}
		}
		l.close()
	}
}

// TestChangeBetweenReads holds that a list that grows while it is read is refused.
func TestChangeBetweenReads(t *testing.T) {
	f := &growing{now: strings.NewReader(hashA), later: hashA + "\n" + hashB}
	if _, err := build(context.Background(), f, "deny.txt", 1<<20, io.Discard); err == nil ||
		err.Error() != "deny.txt:2:1: the file changed while it was read: reload" {
		t.Errorf("error %v", err)
	}
}

// growing is a file that has more in it at the second reading.
type growing struct {
	now   *strings.Reader
	later string
}

func (g *growing) Read(p []byte) (int, error) { return g.now.Read(p) }

func (g *growing) Seek(int64, int) (int64, error) {
	g.now = strings.NewReader(g.later)
	return 0, nil
}
