package flame

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const traces = `File: keepout-core
Type: cpu
Duration: 1s, Total samples = 40ms
-----------+-------------------------------------------------------
      30ms   syscall.RawSyscall (inline)
             sensor.read
             sensor.run
-----------+-------------------------------------------------------
      10ms   runtime.mallocgc
             docket.<ask>
             sensor.run
-----------+-------------------------------------------------------
`

func TestParse(t *testing.T) {
	t.Parallel()
	g, err := Parse(traces)
	if err != nil {
		t.Fatal(err)
	}
	if g.Total() != 40*time.Millisecond {
		t.Errorf("total %v", g.Total())
	}
	for prefix, want := range map[string]float64{"sensor.run": 1, "syscall.": 0.75, "docket.": 0.25, "nothing": 0} {
		if got := g.Share(prefix); got != want {
			t.Errorf("share of %s: %v, want %v", prefix, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing": "", "no sample": "File: x\n", "no call": "---\n 10ms\n---\n", "no time": "---\n x y\n---\n",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSVG(t *testing.T) {
	t.Parallel()
	g, err := Parse(traces)
	if err != nil {
		t.Fatal(err)
	}
	svg := string(g.SVG("a & b"))
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{"a &amp; b", "docket.&lt;ask&gt;: 10ms, 25.0 %", "40ms of processor time"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
}

// FuzzParse: whatever it is given, it says what is wrong or draws it, and no time is lost.
func FuzzParse(f *testing.F) {
	f.Add(traces)
	f.Add("---\n 10ms\n---\n")
	f.Add("---\n -1h x\n y\n---\n 2000h x\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := Parse(text)
		if err != nil {
			return
		}
		if g.Total() <= 0 || g.Share("") != 1 {
			t.Errorf("total %v, share of everything %v", g.Total(), g.Share(""))
		}
		g.SVG("x")
	})
}
