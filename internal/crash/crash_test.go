package crash

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/keepout-security/keepout/internal/health"
)

var night = time.Date(2026, 7, 19, 4, 9, 0, 0, time.UTC)

func record() Record {
	acme := Product{ID: "acme-av", Name: "ACME AV", Engine: "7.2", Content: "291"}
	return Record{
		Format: Format, Code: "2FB4-12B9", Time: night, Attempts: 3, Starting: &acme, Cause: "Kernel panic - not syncing: x",
		Suspect: &Suspect{Product: acme, Reason: "it changed 4 minutes before"},
		Steps:   []Step{{Progress: Done, Text: "Diagnostics saved"}},
		Details: []string{"one", "two"},
		Outcome: &Outcome{
			Recovered: true, Time: night, Action: "acme-av was rolled back to content 290",
			By: "the local rule",
		},
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"  two \t words\n", 20, "two words"},
		{"\x1b[2Jx", 20, "?[2Jx"},
		{"\u202eabc\u202c", 20, "?abc?"},
		{"a\u0301\u0302\u0303b", 20, "a?b"},
		{"\xff\xfe\x80x", 20, "?x"},
		{"zero\u200bwidth\u200d\u2060", 20, "zero?width?"},
		{"שומר", 20, "שומר"},
		{"private \ue000", 20, "private ?"},
		{"abcdef", 4, "abc…"},
		{"abcd", 4, "abcd"},
		{"abc def", 5, "abc…"},
		{"", 4, ""},
	} {
		if got := Clean(c.in, c.limit); got != c.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

// TestNoBlameWithoutEvidence: a suspect needs a reason and a name.
func TestNoBlameWithoutEvidence(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*Suspect{
		"nobody": nil, "no reason": {Product: Product{ID: "a"}}, "no name": {Reason: "because"},
		"a reason of nothing": {Product: Product{ID: "a"}, Reason: " \n.."},
	} {
		r := record()
		r.Suspect = s
		if story := Tell(&r); story.Suspect != "There is no evidence against any program." || story.Reason != "" {
			t.Errorf("%s: %q, %q", name, story.Suspect, story.Reason)
		}
	}
	r := record()
	if story := Tell(&r); story.Suspect != "Suspected: ACME AV 7.2, content 291" ||
		story.Reason != "Reason: it changed 4 minutes before" {
		t.Errorf("%q, %q", story.Suspect, story.Reason)
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		p    Product
		want string
	}{
		{Product{}, ""},
		{Product{ID: "a"}, "a (version not known)"},
		{Product{ID: "a", Name: "A", Content: "2"}, "A (version not known), content 2"},
		{Product{ID: "a", Name: "A", Engine: "1"}, "A 1"},
		{Product{ID: "a", Name: strings.Repeat("x", 90), Engine: "1"}, strings.Repeat("x", 39) + "… 1"},
	} {
		if got := c.p.Label(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
	mutilated := Record{Starting: &Product{ID: "shomer", Name: "\u202eשומר"}}
	if got := Tell(&mutilated).Facts[0]; got != "Stopped while starting: shomer (version not known)" {
		t.Errorf("a mutilated name: %q", got)
	}
}

func TestTitles(t *testing.T) {
	t.Parallel()
	r := record()
	if got := Tell(&r).Title; got != "This machine could not start, and has recovered (3 attempts)" {
		t.Error(got)
	}
	r.Outcome, r.Attempts = nil, 1
	if got := Tell(&r).Title; got != "This machine could not start (1 attempt)" {
		t.Error(got)
	}
	r.Choices, r.Attempts = []Key{{"1", "x"}}, 0
	if s := Tell(&r); s.Title != "This machine cannot start" || !strings.HasPrefix(s.Heading, "Nothing more happens") {
		t.Error(s.Title, s.Heading)
	}
	r.FilesChanged = true
	if got := Tell(&r).Files; strings.Contains(got, "not been changed") {
		t.Error(got)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	t.Parallel()
	r := record()
	data, err := Encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	huge := record()
	for range 1000 {
		huge.Details = append(huge.Details, strings.Repeat("\"<", 1000))
		huge.Steps = append(huge.Steps, Step{Text: strings.Repeat("ä", 9000)})
		huge.Choices = append(huge.Choices, Key{"1", strings.Repeat("x", 500)})
	}
	if data, err = Encode(&huge); err != nil || len(data) > MaxEncoded {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if got, err = Decode(data); err != nil || len(got.Steps) != MaxSteps || len(got.Details) == 0 {
		t.Errorf("%d steps, %d details, %v", len(got.Steps), len(got.Details), err)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "torn": data[:100], "another format": []byte(`{"format":9}`), "endless": make([]byte, MaxEncoded+1),
	} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	dir := fstest.MapFS{
		"crash-20260101-000000-torn.json": {Data: []byte("{")}, "bundle-x": {}, "crash-folder.json/x": {},
	}
	for i := range Kept + 3 {
		r := record()
		r.Time, r.Code = night.Add(time.Duration(i)*time.Hour), fmt.Sprintf("0000-%04d", i)
		data, err := Encode(&r)
		if err != nil {
			t.Fatal(err)
		}
		dir[r.FileName()] = &fstest.MapFile{Data: data}
	}
	list, err := List(dir)
	if len(list) != Kept+3 || err == nil || list[0].Code != fmt.Sprintf("0000-%04d", Kept+2) {
		t.Errorf("%d records, the first is %q, error %v", len(list), list[0].Code, err)
	}
	old, err := NotKept(dir)
	if err != nil || len(old) != 4 || !slices.Contains(old, "crash-20260101-000000-torn.json") {
		t.Errorf("not kept: %q, %v", old, err)
	}
	if list, err := List(fstest.MapFS{}); len(list) != 0 || err != nil {
		t.Errorf("an empty folder: %v, %v", list, err)
	}
	odd := Record{Code: "../../etc/passwd\x00"}
	if name := odd.FileName(); strings.ContainsAny(name, "/\x00") {
		t.Errorf("file name %q", name)
	}
}

func TestNoticeAndProblem(t *testing.T) {
	t.Parallel()
	rehearsal := record()
	rehearsal.Test = true
	records := []Record{rehearsal, record()}
	now := night.Add(24 * time.Hour)
	want := `Keepout: This machine could not start, and has recovered (3 attempts), on 19 July 2026 at 04:09 UTC.
  Stopped while starting: ACME AV 7.2, content 291
  Kernel panic - not syncing: x
  Suspected: ACME AV 7.2, content 291
    Reason: it changed 4 minutes before
  acme-av was rolled back to content 290. It has started well since. Decided by the local rule.
  Your files have not been changed. The whole story: keepout crash show 2FB4-12B9
`
	if got := Notice(records, now); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	p, found := Problem(records, now)
	if !found || p.Code != "KO-2502" || p.Provider != "acme-av" || p.Severity != health.Warning {
		t.Errorf("problem %+v", p)
	}
	records[1].Outcome = nil
	if p, _ := Problem(records, now); p.Code != "KO-2501" {
		t.Errorf("problem %+v", p)
	}
	if _, found := Problem(records, now.Add(NoticeFor)); found || Notice(records[:1], now) != "" {
		t.Error("an old failure or a rehearsal is told")
	}
	records[1].Time = time.Unix(100, 0)
	if got := Notice(records, now); !strings.Contains(got, "the clock was not set") {
		t.Errorf("without a clock: %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	r := record()
	data, err := Encode(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1,"code":"\u202e","suspect":{"id":"\u0000"},"time":"9999-12-31T23:59:59Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(&r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := Encode(&back); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("a cleaned record changes: %v\n%s\n%s", err, again, third)
		}
		notice := Notice([]Record{r}, r.Time)
		if !utf8.ValidString(notice) || strings.ContainsAny(notice, "\x1b\x00\r\u202e\u200b") {
			t.Fatalf("a notice moves the cursor: %q", notice)
		}
	})
}
