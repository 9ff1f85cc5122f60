package content

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keepout-security/keepout/internal/unit"
)

// Bounds of a walk through a content's folder.
const (
	maxEntries = 20_000 // files and folders
	maxDepth   = 8      // folders within folders
)

// Check compares the content at a path, a folder or one file, with its schema. It returns nil when there is nothing
// to say against it, a *Refused otherwise, or the context's error. Preconditions: the schema is valid.
//
// What is loaded later must be what was checked: hand the engine a copy that nobody can change, or accept that whoever
// may write the content can also slip something past the check.
func Check(ctx context.Context, at string, s *Schema) error {
	if !s.Declared() {
		return nil
	}
	c := &check{ctx: ctx, schema: s, at: at}
	info, err := os.Stat(at)
	folder, only := at, ""
	if err == nil && !info.IsDir() {
		folder, only = filepath.Split(at)
		c.at = filepath.Clean(folder)
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(filepath.Clean(folder))
	}
	if err != nil {
		c.whole("", "the content cannot be read", pathless(err), "create it, or correct content: in the configuration")
		return c.result()
	}
	defer func() { _ = root.Close() }() // only read
	c.run(rooted{root}, only)
	return c.result()
}

// CheckFS is Check on a file system whose root is the content's folder; name is used in messages. Its Open must not
// wait for the other end of a named pipe.
func CheckFS(ctx context.Context, fsys fs.FS, name string, s *Schema) error {
	if !s.Declared() {
		return nil
	}
	c := &check{ctx: ctx, schema: s, at: name}
	c.run(fsys, "")
	return c.result()
}

// rooted is a folder that no link leads out of.
type rooted struct{ *os.Root }

// Open implements fs.FS. A named pipe does not hold it up.
func (r rooted) Open(name string) (fs.File, error) {
	return r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// check is one check of one content.
type check struct {
	ctx      context.Context //nolint:containedctx // it lives as long as the call
	schema   *Schema
	at       string
	fsys     fs.FS
	mistakes []Mistake
	over     bool // the bound on mistakes was reached
	counts   []int64
	total    uint64
	entries  int
}

// path is how messages name a file.
func (c *check) path(name string) string { return filepath.Join(c.at, filepath.FromSlash(name)) }

func (c *check) result() error {
	if err := c.ctx.Err(); err != nil {
		return fmt.Errorf("check content: %w", err)
	}
	if len(c.mistakes) == 0 {
		return nil
	}
	return &Refused{Mistakes: c.mistakes, More: c.over}
}

// done reports whether to go no further.
func (c *check) done() bool { return c.over || c.ctx.Err() != nil }

func (c *check) add(m Mistake) {
	if len(c.mistakes) >= maxMistakes {
		c.over = true
		return
	}
	m.What, m.Why, m.Next = Printable(m.What), Printable(m.Why), Printable(m.Next)
	c.mistakes = append(c.mistakes, m)
}

// whole notes a mistake of a file as a whole; name "" is the content itself.
func (c *check) whole(name, what, why, next string) {
	c.add(Mistake{File: c.path(name), What: what, Why: why, Next: next})
}

// run checks one file, or with only == "" the whole folder.
func (c *check) run(fsys fs.FS, only string) {
	c.fsys, c.counts = fsys, make([]int64, len(c.schema.Files))
	if only != "" {
		c.entry(only)
	} else {
		c.folder(".", 0)
	}
	if c.done() || c.entries > maxEntries {
		return // not everything was counted
	}
	for i := range c.schema.Files {
		f := &c.schema.Files[i]
		if n := c.counts[i]; !f.Count.holds(n, 0) || n > DefaultFiles && !f.Count.set {
			c.whole("", fmt.Sprintf("%d files named %s", n, clip(strings.Join(f.Names, ", "))),
				"the schema wants "+cmp.Or(f.Count.String(), fmt.Sprintf("at most %d", DefaultFiles)),
				"add or remove files")
		}
	}
	if most := cmp.Or(c.schema.Total, DefaultTotal); c.total > uint64(most) {
		c.whole("", fmt.Sprintf("%d bytes in all files", c.total), "the schema allows "+text(most), "remove some")
	}
}

// folder walks one folder in the order of names.
func (c *check) folder(name string, depth int) {
	if depth > maxDepth {
		c.whole(name, "too many folders within folders", fmt.Sprintf("at most %d", maxDepth), "move the files up")
		return
	}
	list, err := fs.ReadDir(c.fsys, name)
	if err != nil {
		c.whole(name, "the folder cannot be read", pathless(err), "give the platform the right to read it")
		return
	}
	for _, e := range list {
		if c.entries++; c.entries > maxEntries {
			c.whole("", "too many files", fmt.Sprintf("at most %d files and folders", maxEntries), "remove some")
			return
		}
		if c.done() {
			return
		}
		at := path.Join(name, e.Name())
		if !e.IsDir() {
			c.entry(at)
		} else if c.schema.Others != "ignore" || c.reaches(at) {
			c.folder(at, depth+1)
		}
		if c.entries > maxEntries {
			return
		}
	}
}

// reaches reports whether a rule has names deep enough for files in this folder.
func (c *check) reaches(folder string) bool {
	deep := func(name string) bool { return strings.Count(name, "/") > strings.Count(folder, "/") }
	return slices.ContainsFunc(c.schema.Files, func(f File) bool { return slices.ContainsFunc(f.Names, deep) })
}

// rule returns the index of the first rule for a name, or -1.
func (c *check) rule(name string) int {
	return slices.IndexFunc(c.schema.Files, func(f File) bool {
		return slices.ContainsFunc(f.Names, func(pattern string) bool {
			ok, err := path.Match(pattern, name)
			return ok && err == nil
		})
	})
}

// entry checks one thing that is not a folder.
func (c *check) entry(name string) {
	i := c.rule(name)
	if i < 0 {
		if c.schema.Others != "ignore" {
			c.whole(name, "the file has no place in the content", "the schema names "+c.known(), "move it elsewhere")
		}
		return
	}
	c.counts[i]++
	f := &c.schema.Files[i]
	// Looked at before it is opened: opening a device can act.
	info, err := fs.Stat(c.fsys, name)
	if err == nil && !info.Mode().IsRegular() {
		c.whole(name, "it is not a regular file", "an engine reads files", "replace it by one")
		return
	}
	var file fs.File
	if err == nil {
		file, err = c.fsys.Open(name)
	}
	if err == nil {
		info, err = file.Stat()
		defer func() { _ = file.Close() }() // only read
	}
	switch {
	case err != nil:
		c.whole(name, "the file cannot be read", pathless(err), "put a readable file there, not a link out of the folder")
	case !info.Mode().IsRegular():
		c.whole(name, "it is not a regular file", "an engine reads files", "replace it by one")
	case uint64(info.Size()) > uint64(f.Size):
		c.tooLarge(name, f)
	case f.Format == "opaque":
		c.total += uint64(info.Size())
	default:
		c.read(name, f, file)
	}
}

func (c *check) tooLarge(name string, f *File) {
	c.whole(name, "the file is too large", "the schema allows "+text(f.Size), "split or shorten it")
}

// text is the written form of a size.
func text(s unit.Size) string {
	b, err := s.MarshalText()
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// known lists the names of the rules.
func (c *check) known() string {
	var names []string
	for _, f := range c.schema.Files {
		names = append(names, f.Names...)
	}
	return clip(strings.Join(names, ", "))
}

// read checks the bytes of a file.
func (c *check) read(name string, f *File, file io.Reader) {
	in := &io.LimitedReader{R: file, N: int64(f.Size) + 1} // it may have grown since it was measured
	err := c.lines(name, f, in)
	c.total += uint64(f.Size) + 1 - uint64(in.N)
	if err != nil {
		c.whole(name, "the file cannot be read", pathless(err), "see what is wrong with the disk")
	} else if in.N == 0 {
		c.tooLarge(name, f)
	}
}

// pathless is an error without the path, which the message has already.
func pathless(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
