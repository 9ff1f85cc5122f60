//go:build linux

package arming

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/loader"
)

// recordPath is where what was changed is remembered, below the root.
const recordPath = "/var/lib/keepout/recovery/armed.json"

// maxRecord bounds the record, in bytes.
const maxRecord = 8 << 20

// record is what arming changed: for each file, what it was before the first time and what it is since.
type record struct {
	Version int           `json:"version"`
	Loader  string        `json:"loader"`
	Files   []recordEntry `json:"files"`
	Folders []string      `json:"folders,omitempty"` // that were made
}

type recordEntry struct {
	Path   string `json:"path"`
	To     string `json:"to,omitempty"`
	Before *State `json:"before,omitempty"`
	After  *State `json:"after,omitempty"`
}

// readRecord reads the record; the zero record when nothing is armed.
func readRecord(root string) (record, error) {
	data, err := os.ReadFile(filepath.Join(root, recordPath))
	if errors.Is(err, fs.ErrNotExist) {
		return record{Version: 1}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("what was armed: %w", err)
	}
	return parseRecord(data)
}

// parseRecord reads a record of what was armed.
func parseRecord(data []byte) (record, error) {
	var r record
	if len(data) > maxRecord {
		return r, errors.New("the record of what was armed is too large")
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("the record of what was armed: %w", err)
	}
	if r.Version != 1 {
		return record{}, fmt.Errorf("the record of what was armed has version %d", r.Version)
	}
	for _, e := range r.Files {
		if !filepath.IsAbs(e.Path) || e.Path != filepath.Clean(e.Path) || e.To != "" && e.To != filepath.Base(e.To) {
			return record{}, fmt.Errorf("the record of what was armed names %q", e.Path)
		}
	}
	return r, nil
}

// note remembers a change. What a file was before the first change stays.
func (r *record) note(root string, c *Change) {
	for dir := filepath.Dir(c.Path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(root, dir)); err == nil {
			break
		}
		if !slices.Contains(r.Folders, dir) {
			r.Folders = append(r.Folders, dir)
		}
	}
	for i := range r.Files {
		if r.Files[i].Path == c.Path || r.Files[i].name() == c.Path {
			r.Files[i].After = c.After
			if c.To != "" {
				r.Files[i].To = c.To
			}
			return
		}
	}
	r.Files = append(r.Files, recordEntry{Path: c.Path, To: c.To, Before: c.Before, After: c.After})
}

// removeFolders removes what was made and is empty again, the innermost first.
func (r *record) removeFolders(root string) {
	slices.SortFunc(r.Folders, func(a, b string) int { return len(b) - len(a) })
	r.Folders = slices.DeleteFunc(r.Folders, func(dir string) bool {
		err := os.Remove(filepath.Join(root, dir))
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
}

// name is where the file is since.
func (e *recordEntry) name() string {
	if e.To == "" {
		return e.Path
	}
	return filepath.Join(filepath.Dir(e.Path), e.To)
}

// find is where the file is now: the loader changes the counter in an entry's name.
func (e *recordEntry) find(root string) string {
	name := e.name()
	entry, err := loader.ParseEntryName(filepath.Base(name))
	folder := filepath.Base(filepath.Dir(name))
	if err != nil || folder != "entries" && folder != "Linux" {
		return name
	}
	names, err := loader.NamesOf(filepath.Join(root, filepath.Dir(name)), entry)
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(name), names[0])
}

// keep writes the record, or removes it when it is empty.
func (r *record) keep(root string) error {
	path := filepath.Join(root, recordPath)
	if len(r.Files) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// Armed reports whether something is armed below root.
func Armed(root string) (bool, error) {
	r, err := readRecord(root)
	return len(r.Files) > 0, err
}
