// Package flame draws a flame graph from what "go tool pprof -traces" prints. It does no I/O: the same text gives the
// same bytes. A line that it does not understand is an error, not a gap in the picture.
package flame

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"html"
	"maps"
	"slices"
	"strings"
	"time"
)

// Graph is a profile as a tree of calls.
type Graph struct {
	root node
}

type node struct {
	time     time.Duration // in this call and all below
	children map[string]*node
}

func (n *node) child(name string) *node {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	if n.children[name] == nil {
		n.children[name] = &node{}
	}
	return n.children[name]
}

// longest is more processor time than any profile here has.
const longest = 1000 * time.Hour

// Parse reads the text. Each sample is a block between lines of dashes: its time and the innermost call on the first
// line, then the callers.
func Parse(text string) (*Graph, error) {
	g := &Graph{}
	var took time.Duration
	var calls []string // from the innermost
	end := func() {
		at := &g.root
		at.time += took
		for _, call := range slices.Backward(calls) {
			at = at.child(call)
			at.time += took
		}
		took, calls = 0, nil
	}
	inside := false
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, "---"):
			end()
			inside = true
		case !inside || line == "":
		case len(calls) == 0:
			var first string
			var ok bool
			if first, line, ok = strings.Cut(line, " "); !ok {
				return nil, fmt.Errorf("sample without a call: %q", first)
			}
			var err error
			if took, err = time.ParseDuration(first); err != nil {
				return nil, fmt.Errorf("time of a sample: %w", err)
			}
			if took <= 0 || took > longest-g.root.time {
				return nil, fmt.Errorf("a sample of %v after %v", took, g.root.time)
			}
			calls = append(calls, strings.TrimSpace(strings.TrimSuffix(line, " (inline)")))
		default:
			calls = append(calls, strings.TrimSuffix(line, " (inline)"))
		}
	}
	end()
	if g.root.time == 0 {
		return nil, fmt.Errorf("no sample in %d bytes", len(text))
	}
	return g, lines.Err()
}

// Total is the time of all samples.
func (g *Graph) Total() time.Duration { return g.root.time }

// Share is how much of the time was spent in calls whose name begins with prefix, or below them: 0 to 1.
func (g *Graph) Share(prefix string) float64 {
	return float64(within(&g.root, prefix)) / float64(g.root.time)
}

func within(n *node, prefix string) (sum time.Duration) {
	for name, child := range n.children {
		if strings.HasPrefix(name, prefix) {
			sum += child.time
		} else {
			sum += within(child, prefix)
		}
	}
	return sum
}

// Geometry of the picture, in pixels.
const (
	width     = 1200
	rowHeight = 17
	head      = 56
	perLetter = 6.4
	narrowest = 0.4 // of a call; what is narrower is left out, with what it calls
	least     = 22  // for a name
)

// SVG draws the graph, callers below what they call, the wider the longer. A pointer over a box shows its full name.
func (g *Graph) SVG(title string) []byte {
	rows := depth(&g.root, float64(width)/float64(g.root.time))
	height := head + rowHeight*(rows+1) + 10
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n"+
		"<style>text{font:11px monospace;fill:#111}.h{font:bold 16px sans-serif}.s{font:12px sans-serif;fill:#555}"+
		"rect{stroke:#fff;stroke-width:.5}</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		width+20, height, width+20, height)
	fmt.Fprintf(&b, "<text class=\"h\" x=\"10\" y=\"22\">%s</text>\n", html.EscapeString(title))
	fmt.Fprintf(&b, "<text class=\"s\" x=\"10\" y=\"42\">%v of processor time</text>\n", g.root.time)
	b.WriteString("<g transform=\"translate(10,0)\">\n")
	g.draw(&b, &g.root, "all", 0, height-rowHeight-8)
	b.WriteString("</g>\n</svg>\n")
	return []byte(b.String())
}

func depth(n *node, scale float64) (rows int) {
	for _, c := range n.children {
		if float64(c.time)*scale >= narrowest {
			rows = max(rows, 1+depth(c, scale))
		}
	}
	return rows
}

func (g *Graph) draw(b *strings.Builder, n *node, name string, x float64, y int) {
	scale := float64(width) / float64(g.root.time)
	w := float64(n.time) * scale
	if w < narrowest {
		return
	}
	short := name[strings.LastIndexByte(name, '/')+1:]
	if room := int((w - 4) / perLetter); len(short) > room {
		short = short[:max(room, 0)]
	}
	fmt.Fprintf(b, "<g><title>%s: %v, %.1f %%</title><rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>",
		html.EscapeString(name), n.time, 100*float64(n.time)/float64(g.root.time), x, y, w, rowHeight-1, colour(name))
	if w >= least {
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\">%s</text>", x+2, y+12, html.EscapeString(short))
	}
	b.WriteString("</g>\n")
	for _, call := range slices.Sorted(maps.Keys(n.children)) {
		c := n.children[call]
		g.draw(b, c, call, x, y-rowHeight)
		x += float64(c.time) * scale
	}
}

// colour tells apart whose code it is: ours blue, system calls red, Go's runtime grey, the rest yellow.
func colour(name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	shade := 62 + h.Sum32()%16
	hue := map[bool]string{true: "208,65%", false: "45,80%"}[strings.Contains(name, "keepout")]
	switch {
	case strings.HasPrefix(name, "syscall."), strings.HasPrefix(name, "golang.org/x/sys/"),
		strings.HasPrefix(name, "internal/runtime/syscall"):
		hue = "8,75%"
	case strings.HasPrefix(name, "runtime."), name == "all":
		hue = "0,0%"
	}
	return fmt.Sprintf("hsl(%s,%d%%)", hue, shade)
}
