package simulate

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// The plot, in its own units.
const (
	plotWidth  = 960
	plotHeight = 600
	left       = 90
	right      = 40
	upper      = 96
	lower      = 124
)

// line is one curve.
type line struct {
	name, colour string
	curve        []int
}

// Plot writes broken hosts over time as SVG: of the result's first run, and of the references. With page it is an
// HTML page.
func Plot(w io.Writer, res *Result, page bool) error {
	if len(res.Runs) == 0 {
		return nil
	}
	lines := []line{{name: "rings and gates", colour: "#0a7f3f", curve: res.Runs[0].Curve}}
	colours := []string{"#c22", "#d98200"}
	for i, r := range res.References {
		lines = append(lines, line{name: r.Name + ": " + r.About, colour: colours[i%len(colours)], curve: r.Curve})
	}
	var b strings.Builder
	title := fmt.Sprintf("Broken hosts of %s: %s, schedule %s", group(res.Hosts), res.Scenario, res.Schedule)
	if page {
		fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%s</title>\n"+
			"<body style=\"margin:1rem;background:#fff\">\n", html.EscapeString(title))
	}
	draw(&b, title, subtitle(res), lines, res.Hosts)
	if page {
		b.WriteString("</body>\n</html>\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// subtitle says how the first run ended.
func subtitle(res *Result) string {
	r := &res.Runs[0]
	if r.Evidence == nil {
		return fmt.Sprintf("seed %d: not stopped by a gate; %s hosts granted", r.Seed, group(r.Granted))
	}
	return fmt.Sprintf("seed %d: stopped after %.1f minutes in ring %d with %s hosts granted; %s",
		r.Seed, r.Minutes, r.Ring, group(r.Granted), r.Evidence.Gate)
}

// draw writes the picture. The count of hosts is on a logarithmic scale, with a place for none.
func draw(b *strings.Builder, title, under string, lines []line, hosts int) {
	minutes := 60
	for _, l := range lines {
		minutes = max(minutes, len(l.curve))
	}
	decades := math.Ceil(math.Log10(float64(max(hosts, 10))))
	x := func(minute int) float64 { return left + float64(minute)/float64(minutes)*(plotWidth-left-right) }
	y := func(n int) float64 {
		up := 0.0
		if n > 0 {
			up = (math.Log10(float64(n)) + 0.5) / (decades + 0.5)
		}
		return plotHeight - lower - up*(plotHeight-upper-lower)
	}
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" `+
		`style="max-width:100%%" font-family="sans-serif" font-size="13">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, plotHeight)
	text(b, left, 24, "start", "#111", title, `font-size="17" font-weight="bold"`)
	text(b, left, 44, "start", "#555", under, "")
	axes(b, minutes, int(decades), x, y)
	for i, l := range lines {
		curve(b, l, minutes, x, y)
		text(b, left+26, float64(plotHeight-lower+66+i*20), "start", "#111", legend(l), "")
		fmt.Fprintf(b, `<path d="M%d %d h20" stroke="%s" stroke-width="3"/>`+"\n", left, plotHeight-lower+62+i*20, l.colour)
	}
	b.WriteString("</svg>\n")
}

func legend(l line) string {
	last := 0
	if len(l.curve) > 0 {
		last = l.curve[len(l.curve)-1]
	}
	return fmt.Sprintf("%s — %s broken", l.name, group(last))
}

// axes draws the grid: decades of hosts, and hours or parts of them.
func axes(b *strings.Builder, minutes, decades int, x, y func(int) float64) {
	grid := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(b, `<path d="M%.1f %.1fL%.1f %.1f" stroke="#ddd"/>`+"\n", x1, y1, x2, y2)
	}
	tick := func(n int) {
		grid(left, y(n), plotWidth-right, y(n))
		text(b, left-8, y(n)+4, "end", "#555", group(n), "")
	}
	tick(0)
	for d, n := 0, 1; d <= decades; d, n = d+1, n*10 {
		tick(n)
	}
	step := 15
	for minutes/step > 10 {
		step *= 2
	}
	for m := 0; m <= minutes; m += step {
		grid(x(m), upper, x(m), plotHeight-lower)
		text(b, x(m), plotHeight-lower+18, "middle", "#555", fmt.Sprintf("%d:%02d", m/60, m%60), "")
	}
	text(b, (plotWidth+left-right)/2, plotHeight-lower+40, "middle", "#111", "hours since the start", "")
	text(b, left-8, upper-12, "end", "#111", "hosts", "")
}

// curve draws one line; it goes on as it ended.
func curve(b *strings.Builder, l line, minutes int, x, y func(int) float64) {
	fmt.Fprintf(b, `<path fill="none" stroke="%s" stroke-width="3" d="M%.1f %.1f`, l.colour, x(0), y(0))
	last := 0
	for m, n := range l.curve {
		if n != last {
			fmt.Fprintf(b, "H%.1fV%.1f", x(m), y(n))
			last = n
		}
	}
	fmt.Fprintf(b, `H%.1f"/>`+"\n", x(minutes))
}

func text(b *strings.Builder, x, y float64, anchor, colour, s, more string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" %s>%s</text>`+"\n",
		x, y, anchor, colour, more, html.EscapeString(s))
}

// group writes a number with commas.
func group(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
