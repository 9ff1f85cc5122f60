package tidy

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rows returns the body rows of a document's Markdown tables, each as its trimmed cells.
func rows(text string) (all [][]string) {
	inTable := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if len(line) < 2 || line[0] != '|' {
			inTable = false
			continue
		}
		if strings.Trim(line, "|-: ") == "" { // the line under the header
			inTable = true
			continue
		}
		if !inTable {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
		}
		all = append(all, cells)
	}
	return all
}

func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return string(text)
}

func TestRows(t *testing.T) {
	t.Parallel()
	got := rows("x\n| a | b |\n|---|:-:|\n| 1 \\| 2 | `T` |\n\n| no | table |\n")
	if len(got) != 1 || len(got[0]) != 2 || got[0][0] != "1 | 2" || got[0][1] != "`T`" {
		t.Errorf("rows = %q", got)
	}
}

var (
	fence = regexp.MustCompile("(?s)```.*?```")
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// deadLinks lists the links of one document that lead nowhere in the tree.
func deadLinks(name, text string) (findings []string) {
	for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		target, _, _ := strings.Cut(m[1], "#")
		if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		}
		file := path.Join(path.Dir(name), target)
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
			findings = append(findings, fmt.Sprintf("%s: link to %s, which is not in the tree: mend or remove it",
				name, target))
		}
	}
	return findings
}

func TestLinksResolve(t *testing.T) {
	t.Parallel()
	dead, alive := deadLinks("docs/x.md", "[a](nowhere.md)"), deadLinks("docs/x.md", "[a](../LICENSE#x)")
	if len(dead) == 0 || len(alive) != 0 {
		t.Fatal("the rule is blind, or sees what is not there")
	}
	err := walk(func(name string) error {
		if strings.HasSuffix(name, ".md") {
			for _, finding := range deadLinks(name, document(t, name)) {
				t.Error(finding)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// elsewhere matches a path of somebody's machine and the host of a package registry. They are put together
// here so that this file does not match itself.
var elsewhere = regexp.MustCompile("(?m)(^|[\\s\"'(=:`])/(" + strings.Join([]string{
	"ro" + "ot", "wo" + "rk", "wo" + "rkspace", "Us" + "ers",
}, "|") + `)/[\w.]|\b(` + strings.Join([]string{
	`pr` + `oxy\.golang`, `su` + `m\.golang`, `py` + `pi`, `registry\.np` + `mjs`, `deb\.de` + `bian`,
}, "|") + `)\.org\b`)

func TestNothingNamesOneMachine(t *testing.T) {
	t.Parallel()
	if !elsewhere.MatchString("see /ro"+"ot/x") || elsewhere.MatchString("go test ./test/ro"+"ot/...") {
		t.Fatal("the rule is blind, or sees what is not there")
	}
	err := walk(func(name string) error {
		switch path.Ext(name) {
		case ".go", ".md", ".yaml", ".yml", ".txt", ".mod", ".proto", ".sh", ".py", ".service", "":
		default:
			return nil
		}
		text := document(t, name)
		for _, at := range elsewhere.FindAllStringIndex(text, -1) {
			t.Errorf("%s:%d: %q is a path of one machine or a registry's host: say it without",
				name, 1+strings.Count(text[:at[0]], "\n"), strings.TrimSpace(text[at[0]:at[1]]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
