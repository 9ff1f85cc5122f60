package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// stream writes events the way "go test -json" does: "action package test output".
func stream(t *testing.T, lines ...string) string {
	t.Helper()
	var b strings.Builder
	for _, line := range lines {
		f := append(strings.SplitN(line, " ", 4), "", "", "")
		text, err := json.Marshal(event{Action: f[0], Package: f[1], Test: strings.Trim(f[2], "-"), Output: f[3]})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String()
}

func TestCount(t *testing.T) {
	t.Parallel()
	none := map[string]Need{}
	for _, c := range []struct {
		name   string
		stream string
		want   Result
	}{
		{
			"subtests count, their parent does not",
			stream(t, "run p A", "run p A/x", "run p A/y", "pass p A/x", "pass p A/y", "pass p A",
				"run p B", "pass p B", "pass p"),
			Result{Passed: 3, Needs: none},
		},
		{
			"a failing subtest is one failure",
			stream(t, "run p A", "run p A/x", "run p A/y", "fail p A/x", "pass p A/y", "fail p A", "fail p"),
			Result{Passed: 1, Failures: []string{"p A/x"}, Needs: none},
		},
		{
			"a benchmark passes by its result; what fails or never ends does not",
			stream(t, "run p BenchmarkA", "output p BenchmarkA BenchmarkA", "output p BenchmarkA BenchmarkA-2 1 180 ns/op",
				"run p BenchmarkB", "output p BenchmarkB BenchmarkB", "run p BenchmarkB/x",
				"output p BenchmarkB/x BenchmarkB/x-2 ",
				"output p BenchmarkB/x 1", "run p BenchmarkC", "fail p BenchmarkC", "run p BenchmarkD", "fail p"),
			Result{Passed: 2, Failures: []string{"p BenchmarkC", "p BenchmarkD: never ended"}, Needs: none},
		},
		{
			"a parent that fails by itself",
			stream(t, "run p A", "run p A/x", "pass p A/x", "fail p A", "fail p"),
			Result{Passed: 1, Failures: []string{"p A"}, Needs: none},
		},
		{
			"a subtest's name may hold a slash",
			stream(t, "run p A", "run p A/x/y", "pass p A/x/y", "pass p A", "pass p"),
			Result{Passed: 1, Needs: none},
		},
		{
			"needs are counted by name",
			stream(t, "run p A", "output p A     a.go:1: NEEDS fuse: no device\n", "skip p A",
				"run p B", "output p B     a.go:2: NEEDS fuse: other\n", "skip p B",
				"run p C", "output p C     a.go:3: NEEDS root: user 7\n", "skip p C", "pass p"),
			Result{Skipped: 3, Needs: map[string]Need{"fuse": {2, "other"}, "root": {1, "user 7"}}},
		},
		{
			"a skip without a need is a failure",
			stream(t, "run p A", "output p A     a.go:1: not today\n", "skip p A", "pass p"),
			Result{Failures: []string{"p A: skipped without saying what it NEEDS"}, Needs: none},
		},
		{
			"a package that does not build",
			stream(t, "fail p"),
			Result{
				Failures: []string{"p: the package does not build, or ended without saying why"}, Needs: none,
			},
		},
		{
			"a test that never ended",
			stream(t, "run p A", "run p B", "pass p B", "fail p"),
			Result{Passed: 1, Failures: []string{"p A: never ended"}, Needs: none},
		},
		{
			"a package that never ended",
			stream(t, "start p", "run p A", "pass p A"),
			Result{Passed: 1, Failures: []string{"p: never ended"}, Needs: none},
		},
		{"a package without tests", stream(t, "output p - ?  p  [no test files]\n", "skip p"), Result{Needs: none}},
		{"words that are no event", "hello\n{\"a\":1}\n", Result{Needs: none}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			count := newCount(&bytes.Buffer{})
			if err := count.read(bufio.NewReader(strings.NewReader(c.stream))); err != nil {
				t.Fatal(err)
			}
			if got := count.result(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestFailureShowsItsOutput(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	count := newCount(&out)
	text := stream(t, "run p A", "output p A the reason\n", "fail p A",
		"run p B", "output p B noise\n", "pass p B", "fail p")
	if err := count.read(bufio.NewReader(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "the reason") || strings.Contains(out.String(), "noise") {
		t.Errorf("printed %q: want the failing test's output and no other", out.String())
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	count := newCount(&bytes.Buffer{})
	for range 3 {
		count.event(event{Action: "output", Package: "p", Test: "A", Output: strings.Repeat("x", outputLimit)})
	}
	count.event(event{Action: "output", Package: "p", Test: "A", Output: "end"})
	got := count.test("p", "A").output
	if len(got) != outputLimit || !bytes.HasSuffix(got, []byte("end")) {
		t.Errorf("%d bytes kept, limit %d; the end must be among them", len(got), outputLimit)
	}
}

// TestRun runs the real "go test -json" over a module with every outcome.
func TestRun(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module m\n\ngo 1.26\n",
		"a/a_test.go":  "package a\n\nimport \"testing\"\n\nfunc TestOK(t *testing.T) {}\n",
		"b/b_test.go":  "package b\n\nfunc broken( {\n",
		"c/c_test.go":  "package c\n\nimport \"os\"\n\nfunc init() { os.Exit(3) }\n",
		"d/d.go":       "package d\n",
		"e/e_test.go":  "package e\n\nimport \"testing\"\n\nfunc TestPanics(t *testing.T) { panic(1) }\n",
		"f/f_test.go":  "package f\n\nimport . \"testing\"\n\nfunc TestSkip(t *T) { t.Skip(\"NEEDS loop: x\") }\n",
		"g/g_test.go":  "package g\n\nimport \"testing\"\n\nfunc TestWrong(t *testing.T) { undefined() }\n",
		"cmd/x/x.go":   "package main\n\nfunc main() {}\n",
		"cmd/x/xx.txt": "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	var out bytes.Buffer
	r, err := run(&out, []string{"go", "test", "-json", "./..."})
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed != 1 || r.Skipped != 1 || r.Needs["loop"].Tests != 1 {
		t.Errorf("%d passed, %d skipped, needs %v; want 1, 1 and loop", r.Passed, r.Skipped, r.Needs)
	}
	got := strings.Join(r.Failures, "\n")
	for _, want := range []string{"m/b", "m/c", "m/e TestPanics", "m/g"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("failure of %q is not listed exactly once:\n%s\n%s", want, got, out.String())
		}
	}
	if len(r.Failures) != 4 {
		t.Errorf("%d failures, want 4:\n%s", len(r.Failures), got)
	}
	if !strings.Contains(out.String(), "undefined: undefined") {
		t.Errorf("the compiler's words are lost:\n%s", out.String())
	}
}

func TestRunOfNothingFails(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"true"}, {"false"}} {
		r, err := run(&bytes.Buffer{}, args)
		if err != nil || len(r.Failures) != 1 {
			t.Errorf("%v: %+v, %v; want one failure", args, r, err)
		}
	}
	if _, err := run(&bytes.Buffer{}, []string{"/nonexistent/go"}); err == nil {
		t.Error("a command that cannot start ran")
	}
}

func TestTotal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	results := map[string]Result{
		"unit": {Passed: 300, Skipped: 2, Needs: map[string]Need{"fuse": {2, "no device"}}},
		"root": {
			Passed: 12, Skipped: 2, Failures: []string{"p A"}, Needs: map[string]Need{"fuse": {2, "other"}},
		},
	}
	for lane, r := range results {
		if ok, err := record(dir, lane, r, nil); err != nil || ok != (len(r.Failures) == 0) {
			t.Fatalf("record %s: %v, %v", lane, ok, err)
		}
	}
	for _, c := range []struct {
		lanes []string
		ok    bool
		lines []string
		last  string
	}{
		{[]string{"unit"}, true, []string{"2 need fuse: no device"}, "300 passed, 0 failed, 2 skipped"},
		{
			[]string{"unit", "root"},
			false,
			[]string{"FAIL  p A", "4 need fuse: no device"},
			"312 passed, 1 failed, 4 skipped",
		},
		{[]string{"unit", "tidy"}, false, []string{"FAIL  tidy: no result"}, "300 passed, 1 failed, 2 skipped"},
	} {
		var out bytes.Buffer
		ok, err := total(&out, dir, c.lanes)
		if err != nil || ok != c.ok {
			t.Errorf("%v: all passed: %v, %v; want %v", c.lanes, ok, err, c.ok)
		}
		for _, line := range c.lines {
			if !strings.Contains(out.String(), line) {
				t.Errorf("%v: no %q in\n%s", c.lanes, line, out.String())
			}
		}
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		if last := lines[len(lines)-1]; last != c.last {
			t.Errorf("%v: last line %q, want %q", c.lanes, last, c.last)
		}
	}
}

func TestCheckAddsOnlyFailures(t *testing.T) {
	t.Parallel()
	good := check(&bytes.Buffer{}, "vet", []string{"true"})
	bad := check(&bytes.Buffer{}, "vet", []string{"false"})
	if good.Passed != 0 || len(good.Failures) != 0 || len(bad.Failures) != 1 {
		t.Errorf("true gives %+v, false gives %+v", good, bad)
	}
}

func TestDispatchRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verb, dir, lane string
		args            []string
	}{
		{"run", "", "unit", []string{"true"}},
		{"run", "d", "", []string{"true"}},
		{"run", "d", "../unit", []string{"true"}},
		{"run", "d", "unit", nil},
		{"walk", "d", "unit", []string{"true"}},
	} {
		if _, err := dispatch(c.verb, c.dir, c.lane, c.args); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
