// Package simdisk is a disk in memory that loses what a power cut may lose.
//
// It guarantees no more than POSIX does, which is less than ext4 in its ordered mode gives: what a file held at
// its last Sync is there after a cut, and what was written since may be there, not there, in part (by blocks, in
// any order, with zeros for a block that never arrived) or with the wrong length; what names a folder held at
// its last SyncDir are there, and of the changes since the first few, in order, for each folder on its own. A
// rename within a folder is atomic. A file's Sync does not make its name durable. What survives is drawn from
// the seed, so that a run can be repeated.
//
// It serves tests and simulations, and is not safe for concurrent use.
package simdisk

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
)

// ErrPowerCut is the error of every act on a disk whose power is gone.
var ErrPowerCut = errors.New("power cut")

// block is what a disk writes at once, in bytes. It is small so that small files tear, too.
const block = 64

// Disk is a durable.Disk. Its root folder exists.
type Disk struct {
	// Before is called before each act that changes the disk or makes something durable, with its name ("write",
	// "rename", …); an error ends the act. It may be nil.
	Before func(act, name string) error

	root  *node
	temps int
	acts  int
	cut   int // the act that finds no power; 0 for never
	dead  bool
}

var _ durable.Disk = (*Disk)(nil)

// node is a file or folder, as programs see it and as the disk has it.
type node struct {
	dir  bool
	mode fs.FileMode
	data []byte
	list map[string]*node

	safeMode fs.FileMode
	safeData []byte
	safeList map[string]*node
	pending  []change // of list, since safeList
}

// change is one atomic change of a folder: gone loses its name, and name, unless it is empty, becomes node.
type change struct {
	gone, name string
	node       *node
}

// New returns an empty disk.
func New() *Disk { return &Disk{root: folder(0o755)} }

func folder(mode fs.FileMode) *node {
	return &node{dir: true, mode: mode, safeMode: mode, list: map[string]*node{}, safeList: map[string]*node{}}
}

// CutAt takes the power away at the nth act from now on, so that this one and all after it fail.
func (d *Disk) CutAt(n int) { d.cut = d.acts + n }

// Acts returns how many acts there have been.
func (d *Disk) Acts() int { return d.acts }

// Dead reports whether the power is gone.
func (d *Disk) Dead() bool { return d.dead }

// act counts one act.
func (d *Disk) act(what, name string) error {
	d.acts++
	if d.cut > 0 && d.acts >= d.cut {
		d.dead = true
	}
	if d.dead {
		return ErrPowerCut
	}
	if d.Before != nil {
		return d.Before(what, name)
	}
	return nil
}

// find returns the node of a name.
func (d *Disk) find(op, name string) (*node, error) {
	if d.dead {
		return nil, ErrPowerCut
	}
	n := d.root
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue
		}
		if !n.dir {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		next := n.list[part]
		if next == nil {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		n = next
	}
	return n, nil
}

// parent returns the folder of a name and the name in it.
func (d *Disk) parent(op, name string) (*node, string, error) {
	p, err := d.find(op, path.Dir(name))
	if err == nil && !p.dir {
		err = &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return p, path.Base(name), err
}

func (n *node) apply(c change) {
	n.pending = append(n.pending, c)
	c.to(n.list)
}

func (c change) to(list map[string]*node) {
	if c.gone != "" {
		delete(list, c.gone)
	}
	if c.name != "" {
		list[c.name] = c.node
	}
}

func (d *Disk) add(op, name string, n *node) error {
	if err := d.act(op, name); err != nil {
		return err
	}
	p, base, err := d.parent(op, name)
	if err != nil {
		return err
	}
	if p.list[base] != nil {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
	}
	p.apply(change{name: base, node: n})
	return nil
}

func (d *Disk) temp(dir string) string {
	d.temps++
	return path.Join(dir, ".keepout-tmp-"+strconv.Itoa(d.temps))
}

// CreateTemp implements durable.Disk.
func (d *Disk) CreateTemp(dir string) (durable.File, error) { return d.Create(d.temp(dir), 0o600) }

// MkdirTemp implements durable.Disk.
func (d *Disk) MkdirTemp(dir string) (string, error) {
	name := d.temp(dir)
	return name, d.Mkdir(name, 0o700)
}

// Create implements durable.Disk.
func (d *Disk) Create(name string, mode fs.FileMode) (durable.File, error) {
	n := &node{mode: mode, safeMode: mode}
	if err := d.add("create", name, n); err != nil {
		return nil, err
	}
	return &file{d: d, n: n, name: name}, nil
}

// Mkdir implements durable.Disk.
func (d *Disk) Mkdir(name string, mode fs.FileMode) error { return d.add("mkdir", name, folder(mode)) }

// Chmod implements durable.Disk.
func (d *Disk) Chmod(name string, mode fs.FileMode) error {
	if err := d.act("chmod", name); err != nil {
		return err
	}
	n, err := d.find("chmod", name)
	if err == nil {
		n.mode = mode
	}
	return err
}

// Rename implements durable.Disk; it knows names of one folder only.
func (d *Disk) Rename(from, to string) error {
	if err := d.act("rename", to); err != nil {
		return err
	}
	if path.Dir(from) != path.Dir(to) {
		return &fs.PathError{Op: "rename", Path: to, Err: syscall.EXDEV}
	}
	p, base, err := d.parent("rename", from)
	if err != nil {
		return err
	}
	n, old := p.list[base], p.list[path.Base(to)]
	switch {
	case n == nil:
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	case old != nil && (old.dir != n.dir || len(old.list) > 0):
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	p.apply(change{gone: base, name: path.Base(to), node: n})
	return nil
}

// Remove implements durable.Disk.
func (d *Disk) Remove(name string) error {
	if err := d.act("remove", name); err != nil {
		return err
	}
	p, base, err := d.parent("remove", name)
	if err != nil {
		return err
	}
	n := p.list[base]
	switch {
	case n == nil:
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	case len(n.list) > 0:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	p.apply(change{gone: base})
	return nil
}

// SyncDir implements durable.Disk.
func (d *Disk) SyncDir(name string) error {
	if err := d.act("syncdir", name); err != nil {
		return err
	}
	n, err := d.find("sync", name)
	if err != nil {
		return err
	}
	n.safeMode, n.safeList, n.pending = n.mode, maps.Clone(n.list), nil
	return nil
}

// Open implements durable.Disk.
func (d *Disk) Open(name string) (io.ReadCloser, error) {
	n, err := d.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return io.NopCloser(bytes.NewReader(n.data)), nil
}

// ReadDir implements durable.Disk.
func (d *Disk) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := d.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var out []fs.DirEntry
	for base, child := range n.list {
		out = append(out, fs.FileInfoToDirEntry(info{child, base}))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Lstat implements durable.Disk.
func (d *Disk) Lstat(name string) (fs.FileInfo, error) {
	n, err := d.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return info{n, path.Base(name)}, nil
}

// Damage flips one bit of a file, as if the disk had, and reports whether there was one to flip.
func (d *Disk) Damage(rng *rand.Rand, name string) bool {
	n, err := d.find("damage", name)
	if err != nil || n.dir || len(n.data) == 0 {
		return false
	}
	at, bit := rng.IntN(len(n.data)), byte(1)<<rng.IntN(8)
	n.data = slices.Clone(n.data)
	n.data[at] ^= bit
	n.safeData = slices.Clone(n.data)
	return true
}

type info struct {
	n    *node
	name string
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.n.data)) }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.n.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.n.dir {
		return i.n.mode | fs.ModeDir
	}
	return i.n.mode
}

type file struct {
	d    *Disk
	n    *node
	name string
}

func (f *file) Name() string { return f.name }
func (f *file) Close() error { return nil }

func (f *file) Write(b []byte) (int, error) {
	if err := f.d.act("write", f.name); err != nil {
		return 0, err
	}
	f.n.data = append(f.n.data, b...)
	return len(b), nil
}

func (f *file) Chmod(mode fs.FileMode) error {
	if err := f.d.act("chmod", f.name); err != nil {
		return err
	}
	f.n.mode = mode
	return nil
}

func (f *file) Sync() error {
	if err := f.d.act("sync", f.name); err != nil {
		return err
	}
	f.n.safeData, f.n.safeMode = slices.Clone(f.n.data), f.n.mode
	return nil
}
