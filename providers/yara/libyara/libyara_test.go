//go:build cgo && yara

package libyara

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/testenv"
)

func source(name, text string) Source { return Source{Path: name, Text: []byte(text)} }

// compile returns a scanner for the rules.
func compile(t *testing.T, sources ...Source) (*Rules, *Scanner) {
	t.Helper()
	testenv.Need(t, testenv.YARA)
	rules, err := Compile(sources, "filename")
	if err != nil {
		t.Fatal(err)
	}
	scanner, err := rules.NewScanner()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		scanner.Close()
		rules.Close()
	})
	return rules, scanner
}

func TestScan(t *testing.T) {
	rules, scanner := compile(t,
		source("a.yar", `
			rule Informational { meta: keepout = "audit" strings: $a = "bad" condition: $a }
			private rule Private { strings: $a = "secret" condition: $a }
			rule First { strings: $a = "bad" condition: $a }
			rule Deep : tag { condition: Private and filename == "" }`),
		source("b.yar", `
			rule First { strings: $a = "worse" condition: $a }
			rule Small { condition: filesize == 0 }`),
	)
	if rules.Count() != 6 {
		t.Errorf("%d rules, want 6", rules.Count())
	}
	for _, tt := range []struct{ content, want string }{
		{"good", ""},
		{"a bad one", "First"},
		{"worse", "First"},
		{"secret", "Deep"},
		{"", "Small"},
		{"good again", ""},
	} {
		got, err := scanner.Scan([]byte(tt.content), time.Minute)
		if err != nil || got != tt.want {
			t.Errorf("%q: %q, %v, want %q", tt.content, got, err, tt.want)
		}
	}
}

func TestAuditMeta(t *testing.T) {
	_, scanner := compile(t, source("a.yar", `
		rule Audit { meta: keepout = "audit" condition: true }
		rule Enforced { meta: keepout = "enforce" strings: $a = "x" condition: $a }`))
	for content, want := range map[string]string{"": "", "x": "Enforced"} {
		if got, err := scanner.Scan([]byte(content), time.Minute); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", content, got, err, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	testenv.Need(t, testenv.YARA)
	const good = "rule Good { condition: true }\n"
	for _, tt := range []struct{ name, text, want string }{
		{"syntax", good + "\nrule Bad {\n", "bad.yar:3: syntax error: unexpected end of the file"},
		{"word", good + "rule Bad { whatever }", "bad.yar:2: syntax error"},
		{"undefined", good + "rule Bad { condition: nothing }", `bad.yar:2: undefined identifier "nothing"`},
		{"duplicate", good + good, `bad.yar:2: duplicated identifier "Good"`},
		{"include", "\ninclude \"/etc/passwd\"\n", "bad.yar:2: include"},
		{"NUL", "// a\n\x00", "bad.yar:2: NUL byte: not a text file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile([]Source{source("good.yar", good), source("bad.yar", tt.text)})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	_, scanner := compile(t, source("a.yar", `rule Slow { strings: $s = "slow"
		condition: $s and for all i in (0..1000000000) : (uint8(i % 4) != 0) }`))
	start := time.Now()
	if _, err := scanner.Scan([]byte("slow"), 50*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v, want %v", err, ErrTimeout)
	}
	if took := time.Since(start); took < 50*time.Millisecond || took > 30*time.Second {
		t.Errorf("a limit of 50 ms took %v", took)
	}
	if _, err := scanner.Scan(nil, 0); !errors.Is(err, ErrTimeout) {
		t.Errorf("no time at all: error %v, want %v", err, ErrTimeout)
	}
	if got, err := scanner.Scan([]byte("quick"), time.Minute); err != nil || got != "" {
		t.Errorf("after a timeout: %q, %v", got, err)
	}
}

// TestScannersShareRules holds that scans do not disturb each other.
func TestScannersShareRules(t *testing.T) {
	rules, _ := compile(t, source("a.yar", `
		rule A { strings: $a = "aaaa" condition: #a > 10 }
		rule B { strings: $b = /b{8}c/ condition: $b }`))
	var wg sync.WaitGroup
	for _, tt := range []struct{ text, want string }{
		{strings.Repeat("aaaa ", 1000), "A"}, {"x bbbbbbbbc", "B"}, {strings.Repeat("x", 5000), ""}, {"aaaa", ""},
	} {
		scanner, err := rules.NewScanner()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer scanner.Close()
			for range 200 {
				if got, err := scanner.Scan([]byte(tt.text), time.Minute); err != nil || got != tt.want {
					t.Errorf("%.10q: %q, %v, want %q", tt.text, got, err, tt.want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkScan(b *testing.B) {
	testenv.Need(b, testenv.YARA)
	rules, err := Compile([]Source{source("a.yar", `rule A { strings: $a = "a marker" condition: $a }`)})
	if err != nil {
		b.Fatal(err)
	}
	defer rules.Close()
	scanner, err := rules.NewScanner()
	if err != nil {
		b.Fatal(err)
	}
	defer scanner.Close()
	for _, size := range []int{5 << 10, 10 << 20} {
		b.Run(byteSize(size), func(b *testing.B) {
			content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := scanner.Scan(content, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func byteSize(n int) string {
	if n >= 1<<20 {
		return "large"
	}
	return "small"
}
