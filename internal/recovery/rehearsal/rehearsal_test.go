//go:build linux

package rehearsal

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
)

// asked is a loader that takes a wish, or not.
type asked struct {
	loader.Loader

	dir    *esp.Dir
	full   bool
	marked bool // when it was asked
}

var errFull = errors.New("no space left on device")

func (a *asked) ToRecovery() error {
	_, err := os.Stat(a.dir.Join(esp.Rehearsal))
	a.marked = err == nil
	if a.full {
		return errFull
	}
	return nil
}

// TestTheMarkComesFirst: a visit that the loader starts without the mark would count.
func TestTheMarkComesFirst(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		dir := esp.Open(t.TempDir())
		l := &asked{dir: dir, full: full}
		if err := Keep(dir, &Report{Fix: "of the last one"}); err != nil {
			t.Fatal(err)
		}
		err := Ask(dir, l)
		if !l.marked || errors.Is(err, errFull) != full || err != nil && !full {
			t.Errorf("full %v: marked before %v, %v", full, l.marked, err)
		}
		if _, err := os.Stat(dir.Join(esp.Rehearsal)); errors.Is(err, fs.ErrNotExist) != full {
			t.Errorf("full %v: the mark: %v", full, err)
		}
		if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an old report is taken for the new one: %v", err)
		}
		for range 2 {
			if err := Cancel(dir); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	dir := esp.Open(t.TempDir())
	r := Report{Passed: true, Fix: "noop", Trouble: strings.Repeat("x", 9000), Steps: make([]Step, 99), Whole: 7}
	r.Steps[0] = Step{Done: true, Text: "Network: wired", Detail: "10.0.2.15"}
	if err := Keep(dir, &r); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || !got.Passed || got.Fix != "noop" || got.Steps[0] != r.Steps[0] || got.Whole != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	if len(got.Trouble) != maxText || len(got.Steps) != maxSteps {
		t.Errorf("not bounded: %d bytes, %d steps", len(got.Trouble), len(got.Steps))
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"version":1,"passed":true,"steps":[{"done":true,"text":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := parse(text); err == nil && (r.Version != 1 || len(r.Steps) > maxSteps) {
			t.Errorf("%+v", r)
		}
	})
}
