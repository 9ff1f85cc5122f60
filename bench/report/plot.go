package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Geometry of the plot, in pixels.
const (
	panelColumns = 2
	panelWidth   = 560
	labelWidth   = 170
	rowHeight    = 18
	panelHead    = 34
	panelFoot    = 26
	pageHead     = 70
	valueWidth   = 44 // for the number right of the axis
)

const style = `text{font:12px sans-serif;fill:#222}.h{font-size:18px;font-weight:bold}
.p{font-size:13px;font-weight:bold}
.s{fill:#666;font-size:11px}.g{stroke:#ddd}.one{stroke:#999}.b{fill:#9aa5b1}.k{fill:#1769aa}.r{stroke:#222}`

// SVG draws a panel for each workload: a bar from 1 to each variant's median ratio on a logarithmic axis, and a line
// from the least to the most.
func (r *Results) SVG() []byte {
	var b strings.Builder
	var panels []string
	for _, w := range compared() {
		if r.Rate(None, w).N > 0 {
			panels = append(panels, w)
		}
	}
	variants := r.with(compared()...)
	height := panelHead + rowHeight*len(variants) + panelFoot
	rows := (len(panels) + panelColumns - 1) / panelColumns
	width, total := panelColumns*panelWidth+20, pageHead+rows*height+20
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+
		"\n<style>%s</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, total, width, total, style)
	fmt.Fprintf(&b, "<text class=\"h\" x=\"20\" y=\"30\">Time with a monitor, times that without one</text>\n")
	fmt.Fprintf(&b, "<text class=\"s\" x=\"20\" y=\"50\">%s</text>\n", html.EscapeString(fmt.Sprintf(
		"median of the rounds, line: least to most; logarithmic; %d rounds, scale %s, Linux %s, %d processors, %s",
		r.Rounds, r.Scale, r.Kernel, r.CPUs, r.When)))
	top := r.most(variants)
	for i, w := range panels {
		left, down := 20+(i%panelColumns)*panelWidth, pageHead+(i/panelColumns)*height
		fmt.Fprintf(&b, "<g transform=\"translate(%d,%d)\">\n", left, down)
		r.panel(&b, w, variants, top)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// least is where the axis begins.
const least = 0.5

// most is the largest ratio, rounded up to where the axis ends.
func (r *Results) most(variants []string) float64 {
	top := 10.0
	for _, v := range variants {
		for _, w := range compared() {
			for r.Ratio(v, w).Max > top {
				top *= 10
			}
		}
	}
	return top
}

func (r *Results) panel(b *strings.Builder, workload string, variants []string, top float64) {
	axis := float64(panelWidth - labelWidth - valueWidth - 20)
	x := func(ratio float64) float64 {
		at := math.Log(max(ratio, least)/least) / math.Log(top/least)
		return labelWidth + axis*min(at, 1)
	}
	bottom := panelHead + rowHeight*len(variants)
	fmt.Fprintf(b, "<text class=\"p\" x=\"0\" y=\"14\">%s</text><text class=\"s\" x=\"%d\" y=\"14\">alone: %s</text>\n",
		html.EscapeString(workload), labelWidth, r.bare(workload))
	for tick := 1.0; tick <= top; tick *= 10 {
		class := "g"
		if tick == 1 {
			class = "one"
		}
		fmt.Fprintf(b, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"+
			"<text class=\"s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">%g×</text>\n",
			class, x(tick), x(tick), panelHead-8, bottom, x(tick), bottom+14, tick)
	}
	for i, v := range variants {
		y := panelHead + i*rowHeight
		s := r.Ratio(v, workload)
		fmt.Fprintf(b, "<text text-anchor=\"end\" x=\"%d\" y=\"%d\">%s</text>\n", labelWidth-8, y+10, html.EscapeString(v))
		if s.N == 0 {
			fmt.Fprintf(b, "<text class=\"s\" x=\"%.1f\" y=\"%d\">not measured</text>\n", x(1)+6, y+10)
			continue
		}
		class := "b"
		if strings.HasPrefix(v, Keepout0) {
			class = "k"
		}
		from, to := min(x(1), x(s.Median)), max(x(1), x(s.Median))
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"11\"/>"+
			"<line class=\"r\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"+
			"<text class=\"s\" x=\"%.1f\" y=\"%d\">%s</text>\n",
			class, from, y, max(to-from, 1), x(s.Min), x(s.Max), float64(y)+5.5, float64(y)+5.5,
			max(x(s.Max), x(s.Median), x(1))+5, y+10, number(s.Median))
	}
}
