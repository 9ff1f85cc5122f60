package drill

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"strings"
	"time"
)

//go:embed report.html
var pageText string

// The drawing's own units; it is stretched to the width of the page.
const (
	plotWidth  = 1000.0
	plotHeight = 100.0
	fastest    = 0.05    // ms, at the bottom
	slowest    = 20000.0 // ms, at the top
	markWidth  = 1.7     // of a numbered moment, percent
)

// WriteHTML writes the report as one page that needs nothing else: no network, no script.
func WriteHTML(path string, r *Report) error {
	b, err := renderHTML(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func renderHTML(r *Report) ([]byte, error) {
	page, err := template.New("report").Parse(pageText)
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	view := struct {
		*Report
		When  string
		Cards []card
	}{Report: r, When: r.Began.UTC().Format("2006-01-02 15:04 UTC")}
	for i := range r.Drills {
		view.Cards = append(view.Cards, draw(&r.Drills[i]))
	}
	var b bytes.Buffer
	if err := page.Execute(&b, view); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return b.Bytes(), nil
}

// card is one drill as the page shows it. Shares are percent of the drawing's width or height.
type card struct {
	*Result
	Verdict     string // pass, fail or wait
	Length      int64  // ms that the drawing covers
	Fault       float64
	Lifted      float64
	Rule        float64
	RuleMS      float64
	Dots        string // SVG paths
	Medians     string
	Ticks       []label
	Levels      []label
	StateBlocks []block
	Unprotected float64 // s
	Denied      []block
	Missed      []block
	Events      []marked
	Ratio       string
	LongMS      string
}

type label struct {
	At   float64
	Text string
}

type block struct {
	From, Width float64
	Text        string
}

// marked is a moment with its number in the drawing.
type marked struct {
	Moment
	Number  int
	At      float64
	Seconds string
}

func draw(r *Result) card {
	c := card{Result: r, Verdict: "fail", RuleMS: r.Host.RuleMS, Length: r.LiftedMS + 500, LongMS: short(r.Host.LongestMS)}
	c.Unprotected = r.Host.UnprotectedMS / 1000
	if r.Passed {
		c.Verdict = "pass"
	}
	for _, b := range r.Opens {
		c.Length = max(c.Length, b.AtMS+500)
	}
	c.Fault, c.Lifted, c.Rule = c.x(r.FaultMS), c.x(r.LiftedMS), height(r.Host.RuleMS)
	c.plot()
	c.axes()
	for i, s := range r.States {
		end := c.Length
		if i+1 < len(r.States) {
			end = r.States[i+1].AtMS
		}
		c.StateBlocks = append(c.StateBlocks, block{From: c.x(s.AtMS), Width: c.x(end) - c.x(s.AtMS), Text: s.State})
	}
	at := -markWidth
	for i, m := range r.Timeline {
		at = max(c.x(m.AtMS), at+markWidth) // side by side, rather than one above the other
		c.Events = append(c.Events, marked{
			Moment: m, Number: i + 1, At: min(at, 100),
			Seconds: fmt.Sprintf("%+.2f s", float64(m.AtMS-r.FaultMS)/1000),
		})
	}
	var ratios []string
	for _, n := range r.Neighbours {
		if n.Ratio > 0 && n.Votes > 0 {
			ratios = append(ratios, fmt.Sprintf("%.1f×", n.Ratio))
		}
	}
	c.Ratio = strings.Join(ratios, " · ")
	return c
}

// x is a moment's share of the width.
func (c *card) x(ms int64) float64 { return round(100 * float64(ms) / float64(max(c.Length, 1))) }

// height is a latency's share of the height from the top, on a logarithmic scale.
func height(ms float64) float64 {
	ms = min(max(ms, fastest), slowest)
	return round(100 * (1 - math.Log(ms/fastest)/math.Log(slowest/fastest)))
}

func round(f float64) float64 { return math.Round(f*100) / 100 }

// plot makes the paths: a dot for the slowest open of each bucket, a line of the medians, blocks for what went wrong.
func (c *card) plot() {
	var dots, medians strings.Builder
	width := c.x(bucketWidth.Milliseconds())
	last := int64(0)
	for i, b := range c.Opens {
		x := c.x(b.AtMS) * plotWidth / 100
		fmt.Fprintf(&dots, "M%.1f %.1fh.01", x, height(float64(b.LongestUS)/1000)*plotHeight/100)
		move := "L"
		if i == 0 || b.AtMS-last > 4*bucketWidth.Milliseconds() {
			move = "M" // nothing was answered in between
		}
		fmt.Fprintf(&medians, "%s%.1f %.1f", move, x, height(float64(b.MedianUS)/1000)*plotHeight/100)
		last = b.AtMS
		if b.Denied > 0 {
			c.Denied = append(c.Denied, block{From: c.x(b.AtMS), Width: width})
		}
		if b.Missed > 0 {
			c.Missed = append(c.Missed, block{From: c.x(b.AtMS), Width: width})
		}
	}
	c.Dots, c.Medians = dots.String(), medians.String()
}

// axes chooses round numbers of seconds since the fault, at most about eight.
func (c *card) axes() {
	step := int64(time.Second / time.Millisecond)
	for c.Length/step > 8 {
		step *= 2
	}
	for at := c.FaultMS % step; at <= c.Length-step/4; at += step {
		c.Ticks = append(c.Ticks, label{At: c.x(at), Text: fmt.Sprintf("%d s", (at-c.FaultMS)/1000)})
	}
	for _, l := range []struct {
		ms   float64
		text string
	}{{0.1, "0.1 ms"}, {1, "1 ms"}, {10, "10 ms"}, {100, "100 ms"}, {1000, "1 s"}, {10000, "10 s"}} {
		c.Levels = append(c.Levels, label{At: height(l.ms), Text: l.text})
	}
}

// short writes milliseconds in three digits.
func short(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.2f s", ms/1000)
	case ms >= 10:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}
