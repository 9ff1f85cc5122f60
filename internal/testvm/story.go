package testvm

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Story tells what a machine goes through, with the time of each scene and a picture where there is one. When the test
// ends, story.txt and index.html among the artefacts tell it again, the pictures side by side.
type Story struct {
	t     testing.TB
	m     *Machine
	title string
	told  []scene
}

// scene is one line of a story.
type scene struct {
	At      time.Duration // since the machine was switched on
	Text    string
	Picture string // its file name, or ""
	Number  bool   // it is a measured number
}

// Tell begins a story about a machine.
func Tell(m *Machine, title string) *Story {
	m.t.Helper()
	s := &Story{t: m.t, m: m, title: title}
	s.t.Cleanup(s.write)
	s.Say("%s", title)
	return s
}

func (s *Story) add(c scene) {
	s.t.Helper()
	c.At = time.Since(s.m.Started)
	s.told = append(s.told, c)
	for _, line := range c.lines(Artefacts(s.t)) {
		s.t.Logf("story: %s", line) // "make drill-boot" finds them by this word
	}
}

func (c *scene) lines(folder string) []string {
	out := []string{fmt.Sprintf("%6.1f s  %s", c.At.Seconds(), c.Text)}
	if c.Picture != "" {
		out = append(out, "          picture: "+filepath.Join(folder, c.Picture))
	}
	return out
}

// T is the test that the story is told in.
func (s *Story) T() testing.TB { return s.t }

// Say tells what has just happened.
func (s *Story) Say(format string, args ...any) {
	s.t.Helper()
	s.add(scene{Text: fmt.Sprintf(format, args...)})
}

// Wait waits for a line on the serial port (Machine.ExpectWithin), tells it, and returns the line.
func (s *Story) Wait(pattern string, within time.Duration, format string, args ...any) string {
	s.t.Helper()
	line := s.m.ExpectWithin(pattern, within)
	s.Say(format, args...)
	return line
}

// Show tells what can be seen now and keeps a picture of it, whose file it returns ("" where none could be taken).
func (s *Story) Show(name, format string, args ...any) string {
	s.t.Helper()
	file := s.m.Screenshot(name)
	c := scene{Text: fmt.Sprintf(format, args...)}
	if file != "" {
		c.Picture = filepath.Base(file)
	}
	s.add(c)
	return file
}

// Measure tells a number beside its limit. It fails nothing: how fast this host is says nothing about the program.
func (s *Story) Measure(what string, got, limit float64, unit string) {
	s.t.Helper()
	verdict := "within"
	if got > limit {
		verdict = "OVER"
	}
	text := fmt.Sprintf("measured: %s %.4g %s, %s the limit of %.4g %s", what, got, unit, verdict, limit, unit)
	s.add(scene{Text: text, Number: true})
}

var secondsAfter = regexp.MustCompile(`: (\d+\.\d+) s after the kernel's start`)

// SecondsAfter reads the time out of a line of the recovery environment: "…: 2.50 s after the kernel's start".
func SecondsAfter(t testing.TB, line string) float64 {
	t.Helper()
	m := secondsAfter.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%q tells no time", line)
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}

func (s *Story) write() {
	if err := keepStory(Artefacts(s.t), s.title, s.t.Failed(), s.told); err != nil {
		s.t.Errorf("keep the story: %v", err)
	}
}

// keepStory writes story.txt and index.html into a folder that has the pictures.
func keepStory(folder, title string, failed bool, told []scene) error {
	result := "Everything happened as it should"
	if failed {
		result = "This run FAILED"
	}
	var text, html bytes.Buffer
	for i := range told {
		text.WriteString(strings.Join(told[i].lines(folder), "\n") + "\n")
	}
	text.WriteString("          " + result + "\n")
	err := page.Execute(&html, map[string]any{"Title": title, "Scenes": told, "Result": result, "Failed": failed})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "story.txt"), text.Bytes(), 0o644),
		os.WriteFile(filepath.Join(folder, "index.html"), html.Bytes(), 0o644))
}

var page = template.Must(template.New("story").Funcs(template.FuncMap{
	"seconds": func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) },
}).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body { font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em; color: #222; background: #fff }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(26em, 1fr)); gap: 1.2em }
figure { margin: 0 } img { width: 100%; border: 1px solid #999; background: #000 }
figcaption { font-size: 90% } td { padding: .15em 1em .15em 0; vertical-align: top }
td:first-child, time { color: #555; white-space: nowrap; font-variant-numeric: tabular-nums }
.failed { color: #b00020; font-weight: bold }
</style></head><body>
<h1>{{.Title}}</h1>
<p{{if .Failed}} class="failed"{{end}}>{{.Result}}. Times are seconds since the machine was switched on, in software
emulation.</p>
<h2>What could be seen</h2>
<div class="pictures">
{{range .Scenes}}{{if .Picture}}<figure><a href="{{.Picture}}"><img src="{{.Picture}}" alt="{{.Text}}"></a>
<figcaption><time>{{seconds .At}}</time> {{.Text}}</figcaption></figure>
{{end}}{{end}}</div>
<h2>What happened</h2>
<table>
{{range .Scenes}}{{if not .Number}}<tr><td>{{seconds .At}}</td><td>{{.Text}}</td></tr>
{{end}}{{end}}</table>
<h2>What was measured</h2>
<ul>
{{range .Scenes}}{{if .Number}}<li>{{.Text}}</li>
{{end}}{{end}}</ul>
</body></html>
`))
