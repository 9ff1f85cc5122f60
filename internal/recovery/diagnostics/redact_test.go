package diagnostics

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRules shows what each rule takes and what it leaves.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"link is 52:54:00:12:34:56 up", "link is [hardware-address] up"},
		{"ib0: 80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1", "ib0: [hardware-address]"},
		{"from 192.168.1.77 port 22", "from [address] port 22"},
		{"from fe80::5054:ff:fe12:3456 and fe80::", "from [address] and [address]"},
		{"at 12:34:56, pci 0000:00:1f.2, RIP: 0010:panic+0x1", "at 12:34:56, pci 0000:00:1f.2, RIP: 0010:panic+0x1"},
		{"999.1.1.1 is none", "999.1.1.1 is none"},
		{"mail bob.smith@example.co.uk now", "mail [mail] now"},
		{"GET https://bob:hunter2@example.org/x", "GET https:[credentials]@example.org/x"},
		{`exe="/home/bob/My Plans/secret.odt" pid=3`, `exe="[file]" pid=3`},
		{"open /var/home/bob/x y z", "open [file]"},
		{"home-bob-Music.mount failed", "[file] failed"},
		{"PASSWORD=hunter2 and more", "[secret]"},
		{"DB_PASSWORD=hunter2", "DB[secret]"},
		{"Authorization: Bearer abc.def", "[secret]"},
		{"the password was wrong", "the [secret]"},
		{"tokenizer and passwords stay", "tokenizer and passwords stay"},
		{"id 0123456789abcdef0123456789abcdef.", "id [key]."},
		{"R13: ffff888003b4c000", "R13: ffff888003b4c000"},
		{"Kernel command line: root=/dev/sda1 luks=abc", "[command-line]"},
		{"audit(123.4:5): acct=bob", "[audit record]"},
		{"UUID 123e4567-e89b-12d3-a456-426614174000 found", "UUID [uuid] found"},
		{"usb 1-1: SerialNumber: 4C530001", "usb 1-1: [serial]"},
		{"wlan0: SSID Bobs House", "wlan0: [network-name]"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----", "[key]"},
		{"nothing to see", "nothing to see"},
	} {
		if got := newRedactor(Known{}).text(c.in, false); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	if got := newRedactor(Known{}).text("6.1.0.56", true); got != "6.1.0.56" {
		t.Errorf("a version became %q", got)
	}
}

func TestKnownValues(t *testing.T) {
	t.Parallel()
	r := newRedactor(Known{
		Hosts: []string{"büro-rechner.example.org", "büro-rechner", "localhost"}, Users: []string{"ann", "José", "x", ""},
		Machines: []string{"4c4c4544"}, Others: []string{"Project (Alpha)"},
	})
	for _, c := range []struct{ in, want string }{
		{"BÜRO-RECHNER.example.ORG systemd", "[host] systemd"},
		{"onbüro-rechnerx", "on[host]x"},
		{"ann started the scanner of Ann", "[user] started the scanner of [user]"},
		{"Josés x", "[user]s x"},
		{"serial 4C4C4544-x", "serial [machine-id]-x"},
		{"project (alpha)!", "[removed]!"},
		{"localhost", "localhost"},
		{"an\x00n and a\u200bnn", "an?n and a?nn"},
	} {
		if got := r.text(c.in, true); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

// fillTexts puts a text into every string of a value, and one entry into every list.
func fillTexts(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fillTexts(v.Index(0), text)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fillTexts(v.Field(i), text)
		}
	default:
	}
}

// marks is what redaction writes; the check below looks between them.
var marks = regexp.MustCompile(`\[(host|user|machine-id|removed|command-line|audit record|secret|key|file|` +
	`credentials|mail|hardware-address|address|uuid|serial|network-name)\]`)

// leaks reports whether an encoded bundle holds a known value outside of the marks: anywhere, or as a word if it is
// short.
func leaks(t testing.TB, encoded []byte, value string) bool {
	t.Helper()
	value = strings.TrimSpace(clean(value))
	if len(value) < 2 || strings.EqualFold(value, "localhost") || value == "(none)" {
		return false
	}
	pattern := `(?i)` + regexp.QuoteMeta(value)
	if len(value) < MinKnown {
		pattern = `(?i)` + boundary(value[0]) + regexp.QuoteMeta(value) + boundary(value[len(value)-1])
	}
	held := regexp.MustCompile(pattern)
	var texts []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				// What this package made by itself is nobody's secret: names of levels, rules and cuts, and hashes.
				own := slices.Contains([]string{"level", "cuts", "redacted", "nonce", "machine", "made"}, key)
				if !own && (key != "id" || !isHexAny(e)) {
					walk(e)
				}
			}
		}
	}
	var tree any
	if err := json.Unmarshal(encoded, &tree); err != nil {
		t.Fatal(err)
	}
	walk(tree)
	for _, text := range texts {
		for _, piece := range marks.Split(text, -1) {
			if held.MatchString(piece) && !strings.HasPrefix(text, "--- ") && !strings.HasPrefix(text, "stopped without") &&
				text != "no failure is known" {
				return true
			}
		}
	}
	return false
}

func isHexAny(v any) bool {
	s, isText := v.(string)
	return isText && isHex(s, 16)
}

// TestNothingKnownComesOut: whatever the values and whatever the texts around them, in every field there is.
func TestNothingKnownComesOut(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(
		rapid.StringMatching(`[a-z][a-z0-9-]{1,14}`), rapid.StringN(2, 20, 40), rapid.StringMatching(`[A-Za-zäöüé]{2,9}`),
		rapid.SampledFrom([]string{"host", "user", "[host]", "a.b", `\d+`, "(?i)", "key", "::1", "10.0.0.1"}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		known := Known{
			Hosts: rapid.SliceOfN(value, 0, 3).Draw(rt, "hosts"), Users: rapid.SliceOfN(value, 0, 3).Draw(rt, "users"),
			Others: rapid.SliceOfN(value, 0, 2).Draw(rt, "others"),
		}
		id := rapid.StringMatching(`[0-9a-f]{32}`).Draw(rt, "machine id")
		all := append(append(append([]string{id}, known.Hosts...), known.Users...), known.Others...)
		var b strings.Builder
		for range rapid.IntRange(1, 6).Draw(rt, "parts") {
			part := rapid.SampledFrom(all).Draw(rt, "value")
			if rapid.Bool().Draw(rt, "upper") {
				part = strings.ToUpper(part)
			}
			between := []string{"", " ", "/", "\"", "x", "@", ":", "\x00", "\xff", "\u200d"}
			b.WriteString(rapid.SampledFrom(between).Draw(rt, "between") + part)
		}
		text := b.String()
		var in Input
		fillTexts(reflect.ValueOf(&in).Elem(), text)
		in.Known, in.MachineID, in.Nonce, in.Cuts = known, id, make([]byte, 16), nil
		in.PanicLog = []byte(text + "\nKernel panic - not syncing: " + text + "\nCall Trace:\n " + text + "+0x1/0x2\n")
		level := rapid.SampledFrom([]Level{Minimal, Full}).Draw(rt, "level")
		_, encoded, err := Make(&in, level)
		if err != nil {
			rt.Fatal(err)
		}
		for _, v := range all {
			if leaks(t, encoded, v) {
				rt.Fatalf("%q came out of %q at level %s", v, text, level)
			}
		}
	})
}

// TestEveryFieldIsRedacted: a field that somebody adds later is free text until a tag says otherwise.
func TestEveryFieldIsRedacted(t *testing.T) {
	t.Parallel()
	var b Bundle
	fillTexts(reflect.ValueOf(&b).Elem(), "call bob@example.org on 10.1.2.3")
	newRedactor(Known{}).bundle(&b)
	var check func(v reflect.Value, name, tag string)
	check = func(v reflect.Value, name, tag string) {
		switch v.Kind() {
		case reflect.String:
			if tag != "own" && strings.Contains(v.String(), "bob") {
				t.Errorf("%s is not redacted: %q", name, v.String())
			}
			if tag == "" && strings.Contains(v.String(), "10.1.2.3") {
				t.Errorf("%s is free text and keeps an address: %q", name, v.String())
			}
		case reflect.Slice:
			if v.Len() == 0 {
				t.Errorf("%s was not filled", name)
				return
			}
			check(v.Index(0), name, tag)
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			for i := range v.NumField() {
				f := v.Type().Field(i)
				check(v.Field(i), name+"."+f.Name, f.Tag.Get("redact"))
			}
		default:
		}
	}
	check(reflect.ValueOf(b), "Bundle", "")
}

// TestCheapLooks: a look that says no is right.
func TestCheapLooks(t *testing.T) {
	t.Parallel()
	part := rapid.OneOf(rapid.SampledFrom([]string{
		"Kernel command line: ", "audit(1.2:3): ", "type=1400 ", "PassWord", "=", ": ", "api_key", "s/N", "Asset Tag",
		"SSID ",
		"ESSID", "//a:b@", "a@b.c", "/HOME/", "/var/users/x", "home-x.mount", "52:54:00:12:34:56", "aa-bb-cc-dd-ee-ff", "::1",
		"fe80::1", "1.2.3.4", "123e4567-e89b-12d3-a456-426614174000", "-----BEGIN X", "AGE-SECRET-KEY-1ABC", " ",
		"\u212aey", "ſsid",
	}), rapid.StringMatching(`[0-9a-f]{30,50}`), rapid.StringN(0, 10, 30))
	rapid.Check(t, func(t *rapid.T) {
		text := clean(strings.Join(rapid.SliceOfN(part, 1, 6).Draw(t, "parts"), ""))
		value := rapid.StringN(2, 12, 30).Draw(t, "value")
		pattern, may := anyOf([]string{value})
		rules := append(slices.Clone(patternRules), Rule{Name: "known", pattern: pattern, may: may})
		for _, text := range []string{text, text + value, text + strings.ToUpper(value)} {
			lower, plain := folded(text)
			for i := range rules {
				if r := &rules[i]; r.pattern != nil && r.cannot(lower, plain) && r.pattern.MatchString(text) {
					t.Fatalf("rule %s matches %q, and its look says no", r.Name, text)
				}
			}
		}
	})
}

func FuzzRedact(f *testing.F) {
	f.Add("büro-rechner", "on büro-rechner.example.org: password=x 10.0.0.1")
	f.Add("abcdef", "ABCDEF\x00abc\xffdef")
	f.Fuzz(func(t *testing.T, value, text string) {
		if len(value) > 200 || len(text) > 4000 {
			return
		}
		in := Input{Nonce: make([]byte, 16), Known: Known{Others: []string{value}}, PanicLog: []byte(text)}
		in.Changes = []Change{{What: text}}
		in.Providers = []Provider{{ID: text}}
		_, encoded, err := Make(&in, Full)
		if err != nil {
			t.Fatal(err)
		}
		if leaks(t, encoded, value) {
			t.Errorf("%q came out of %q", value, text)
		}
	})
}
