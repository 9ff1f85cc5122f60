//go:build linux

package arming

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
)

// Change is one file or link that changes.
type Change struct {
	Path   string // below the root, beginning with a slash
	To     string // its new name in the same folder; "" keeps it
	Before *State // nil: it is not there
	After  *State // nil: it is removed
	Why    string
}

// State is what a file or link is.
type State struct {
	Data []byte      `json:"data,omitempty"`
	Link string      `json:"link,omitempty"` // it is a symbolic link to this
	Mode fs.FileMode `json:"mode,omitempty"`
}

func (s *State) equal(o *State) bool {
	if s == nil || o == nil {
		return s == o
	}
	return bytes.Equal(s.Data, o.Data) && s.Link == o.Link
}

// Plan is what would be done, in order.
type Plan struct {
	Loader   string
	Changes  []Change
	Commands [][]string // to be run afterwards, on the system itself
	Notes    []string   // what cannot be done, and why
	record   record
	root     string
	disarms  bool          // it takes back
	left     []recordEntry // what stays armed then
}

// Empty reports whether nothing would change.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// maxFile bounds a file that is changed, in bytes.
const maxFile = 1 << 20

// look reads a file or link below root; nil when it is not there.
func look(root, path string) (*State, error) {
	full := filepath.Join(root, path)
	info, err := os.Lstat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(full)
		return &State{Link: to}, err
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("%s is not a file that can be changed", full)
	}
	data, err := os.ReadFile(full)
	return &State{Data: data, Mode: info.Mode().Perm()}, err
}

// put makes a file or link what the state says.
func put(root, path string, s *State) error {
	full := filepath.Join(root, path)
	if s == nil {
		if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.SyncDir(filepath.Dir(full))
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if s.Link != "" {
		if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return errors.Join(os.Symlink(s.Link, full), durable.SyncDir(filepath.Dir(full)))
	}
	return durable.WriteFileOn(esp.Disk(), full, s.Data, s.Mode)
}

// Apply makes the changes and remembers them. On an error, what was changed so far is remembered, so that disarming
// takes it back; after a power cut in between it does, too.
func (p *Plan) Apply() error {
	if err := p.foretell(); err != nil {
		return err
	}
	var failed error
	for _, c := range p.Changes {
		if failed = p.apply(&c); failed != nil {
			failed = fmt.Errorf("change %s: %w", c.Path, failed)
			break
		}
	}
	if p.disarms && failed == nil {
		p.record.Files = p.left
		p.record.removeFolders(p.root)
	}
	return errors.Join(failed, p.record.keep(p.root))
}

// foretell remembers all changes before the first one is made. One that then was not made is nothing to take back.
func (p *Plan) foretell() error {
	if p.disarms || p.Empty() {
		return nil
	}
	all := p.record
	all.Files, all.Folders = slices.Clone(all.Files), slices.Clone(all.Folders)
	for i := range p.Changes {
		all.note(p.root, &p.Changes[i])
	}
	if err := all.keep(p.root); err != nil {
		return fmt.Errorf("remember what is changed: %w", err)
	}
	return nil
}

// onlyRenames reports whether the change is of a file that is too large to look at.
func (c *Change) onlyRenames() bool { return c.Before != nil && c.Before.Link == imageMark }

func (p *Plan) apply(c *Change) error {
	// Nobody is overwritten whom the plan did not see.
	now, err := look(p.root, c.Path)
	if c.onlyRenames() {
		now, err = c.Before, nil
	}
	if err != nil {
		return err
	}
	if !now.equal(c.Before) {
		return errors.New("it has changed meanwhile: plan again")
	}
	if !p.disarms {
		p.record.note(p.root, c)
	}
	if c.To != "" && c.To != filepath.Base(c.Path) {
		to := filepath.Join(filepath.Dir(c.Path), c.To)
		if err := os.Rename(filepath.Join(p.root, c.Path), filepath.Join(p.root, to)); err != nil {
			return err
		}
		if c.Before.equal(c.After) {
			return durable.SyncDir(filepath.Dir(filepath.Join(p.root, to)))
		}
		return put(p.root, to, c.After)
	}
	return put(p.root, c.Path, c.After)
}

// Text shows the plan as a diff, with the reason of each change.
func (p *Plan) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "boot loader: %s\n", p.Loader)
	for _, c := range p.Changes {
		b.WriteString("\n" + c.text())
	}
	for i, cmd := range p.Commands {
		if i == 0 {
			b.WriteString("\nthen run:\n")
		}
		b.WriteString("  " + strings.Join(cmd, " ") + "\n")
	}
	for i, note := range p.Notes {
		if i == 0 {
			b.WriteString("\nnote:\n")
		}
		b.WriteString("  " + note + "\n")
	}
	return b.String()
}

func (c *Change) text() string {
	from, to := c.Path, c.Path
	if c.Before == nil {
		from = "/dev/null"
	}
	if c.After == nil {
		to = "/dev/null"
	}
	if c.To != "" {
		to = filepath.Join(filepath.Dir(c.Path), c.To)
	}
	return fmt.Sprintf("# %s\n--- %s\n+++ %s\n", c.Why, from, to) + diff(c.Before.lines(), c.After.lines())
}

// lines is a state as text: a link is told as one line, what is no text as its size.
func (s *State) lines() []string {
	switch {
	case s == nil:
		return nil
	case s.Link != "":
		return []string{"link to " + s.Link}
	case bytes.IndexByte(s.Data, 0) >= 0:
		return []string{fmt.Sprintf("%d bytes", len(s.Data))}
	}
	text := strings.TrimRight(string(s.Data), " \n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if slices.ContainsFunc(lines, func(l string) bool { return len(l) > maxShown }) {
		return []string{fmt.Sprintf("%d bytes", len(s.Data))} // padding, as in what the loader writes to
	}
	return lines
}

// diff shows what leaves and what comes, with the lines that stay around it left out. It is for short files: what is
// equal at the beginning and at the end stays, and the middle is exchanged.
func diff(before, after []string) string {
	first := 0
	for first < len(before) && first < len(after) && before[first] == after[first] {
		first++
	}
	last := 0
	for last < len(before)-first && last < len(after)-first && before[len(before)-1-last] == after[len(after)-1-last] {
		last++
	}
	var b strings.Builder
	for _, line := range before[first : len(before)-last] {
		b.WriteString("-" + line + "\n")
	}
	for _, line := range after[first : len(after)-last] {
		b.WriteString("+" + line + "\n")
	}
	return b.String()
}

// maxShown bounds a line of the diff, in bytes.
const maxShown = 500
