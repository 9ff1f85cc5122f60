//go:build linux

// Package copies keeps what Keepout's own files were when a boot was good, and gives a file back what it was: that is
// where the bytes come from that a fix names by their digest (remediation.RestoreFile).
//
// It guarantees: a file gets exactly the bytes with the digest, or stays as it was; nothing outside of Keepout's own
// trees is written, whatever links lie in them; what is kept is bounded in number and size and never takes the last
// room of the disk; a power cut at any time leaves the file whole, old or new, and restoring may be done again.
package copies

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/durable"
)

// Trees are the folders of Keepout's own files, by the word that begins a path in a fix.
type Trees map[string]string

// Bounds of what is kept.
const (
	maxFile     = 96 << 20 // bytes of one file
	maxFiles    = 128      // of one good boot
	maxDepth    = 4        // folders below a tree
	generations = 3        // good boots with different files
	spare       = 4        // this many times its size must be free for a copy to be made
)

const (
	listName = "list.json"
	maxList  = 1 << 20
)

var digestName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// kept is one file as it was at a good boot.
type kept struct {
	Path   string      `json:"path"` // tree, slash, path below it
	SHA256 string      `json:"sha256"`
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"`
	Stamp  int64       `json:"stamp"` // of its last change, in nanoseconds: an unchanged file is not read again
	Inode  uint64      `json:"inode"`
}

// list is what is kept, a row of files for each good boot, the newest last.
type list struct {
	Good [][]kept `json:"good"`
}

func readList(dir string) list {
	var l list
	info, err := os.Lstat(filepath.Join(dir, listName))
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxList {
		return list{}
	}
	text, err := os.ReadFile(filepath.Join(dir, listName))
	if err != nil || json.Unmarshal(text, &l) != nil {
		return list{} // begun anew: copies are found by their digests all the same
	}
	return l
}

// Keep copies the files of the trees into dir, those of the last few good boots stay. It goes on after an error and
// returns all of them: a file that is not kept cannot be given back, and that is all.
func Keep(dir string, trees Trees) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep copies: %w", err)
	}
	l := readList(dir)
	var last []kept
	if len(l.Good) > 0 {
		last = l.Good[len(l.Good)-1]
	}
	now, err := files(trees)
	errs := []error{err}
	whole := now[:0]
	for _, k := range now {
		if i := slices.IndexFunc(last, k.unchanged); i >= 0 && exists(filepath.Join(dir, last[i].SHA256)) {
			k.SHA256 = last[i].SHA256
		} else if k.SHA256, err = copyIn(dir, k.real(trees), k.Size); err != nil {
			errs = append(errs, fmt.Errorf("keep a copy of %s: %w", k.Path, err))
			continue
		}
		whole = append(whole, k)
	}
	if len(l.Good) == 0 || !slices.EqualFunc(last, whole, kept.same) {
		l.Good = append(l.Good, whole)
	} else {
		l.Good[len(l.Good)-1] = whole
	}
	l.Good = l.Good[max(0, len(l.Good)-generations):]
	text, err := json.Marshal(l)
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, listName), text, 0o600)
	}
	if err == nil {
		err = prune(dir, &l)
	}
	return errors.Join(append(errs, err)...)
}

func (k kept) unchanged(o kept) bool {
	return k.Path == o.Path && k.Size == o.Size && k.Stamp == o.Stamp && k.Inode == o.Inode && k.Mode == o.Mode
}

func (k kept) same(o kept) bool { return k.Path == o.Path && k.SHA256 == o.SHA256 && k.Mode == o.Mode }

func (k *kept) real(trees Trees) string {
	tree, rest, _ := strings.Cut(k.Path, "/")
	return filepath.Join(trees[tree], filepath.FromSlash(rest))
}

func exists(name string) bool {
	info, err := os.Lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// files lists the regular files of the trees. Links are not followed. Of the state only what lies on top is kept: what
// is below it remembers what must not be believed twice.
func files(trees Trees) (out []kept, err error) {
	errs := make([]error, 0, len(trees))
	for tree, folder := range trees {
		depth := maxDepth
		if tree == "state" {
			depth = 1
		}
		errs = append(errs, filepath.WalkDir(folder, func(name string, e fs.DirEntry, err error) error {
			rest := strings.TrimPrefix(strings.TrimPrefix(name, folder), "/")
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case e.IsDir() && rest != "" && strings.Count(rest, "/")+1 >= depth:
				return fs.SkipDir
			case !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "."):
				return nil
			}
			info, err := e.Info()
			if err != nil || info.Size() > maxFile {
				return err
			}
			if len(out) == maxFiles {
				return fmt.Errorf("more than %d files", maxFiles)
			}
			k := kept{
				Path: tree + "/" + filepath.ToSlash(rest), Mode: info.Mode().Perm(), Size: info.Size(),
				Stamp: info.ModTime().UnixNano(),
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				k.Inode = stat.Ino
			}
			out = append(out, k)
			return nil
		}))
	}
	slices.SortFunc(out, func(a, b kept) int { return strings.Compare(a.Path, b.Path) })
	return out, errors.Join(errs...)
}

var errRoom = errors.New("the disk has too little room")

// copyIn copies a file under the name of its digest, unless it is there.
func copyIn(dir, name string, size int64) (digest string, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, maxFile+1)); err != nil {
		return "", err
	}
	digest = hex.EncodeToString(sum.Sum(nil))
	target := filepath.Join(dir, digest)
	if info, err := os.Lstat(target); err == nil && info.Mode().IsRegular() && info.Size() == size {
		return digest, nil
	}
	var room unix.Statfs_t
	if err := unix.Statfs(dir, &room); err != nil {
		return "", err
	}
	if room.Bavail*uint64(room.Bsize) < uint64(spare*size) {
		return "", errRoom
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	again := sha256.New()
	err = durable.CreateFileOn(durable.OS(), target, io.TeeReader(io.LimitReader(f, maxFile+1), again), 0o600)
	if err == nil && hex.EncodeToString(again.Sum(nil)) != digest {
		err = errors.Join(errors.New("it changed while it was read"), os.Remove(target))
	}
	return digest, err
}

// prune removes the copies that no kept boot has.
func prune(dir string, l *list) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if !digestName.MatchString(e.Name()) || l.find(func(k *kept) bool { return k.SHA256 == e.Name() }) != nil {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	_, err = durable.CleanTemps(dir)
	return errors.Join(append(errs, err)...)
}

// find returns the newest kept file that fits, or nil.
func (l *list) find(fits func(*kept) bool) *kept {
	for _, files := range slices.Backward(l.Good) {
		for i := range files {
			if fits(&files[i]) {
				return &files[i]
			}
		}
	}
	return nil
}

// Restore gives a file of the trees the content with a digest, from the copies in dir.
func Restore(dir string, trees Trees, r boot.Restore) error {
	tree, rest, _ := strings.Cut(r.Path, "/")
	folder, known := trees[tree]
	if !known || rest == "" || path.Clean(rest) != rest || !filepath.IsLocal(rest) || !digestName.MatchString(r.SHA256) {
		return fmt.Errorf("%.80q is no file of Keepout's own", r.Path)
	}
	data, err := readCopy(dir, r.SHA256)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore %s: this machine has no copy with SHA-256 %s", r.Path, r.SHA256)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", r.Path, err)
	}
	mode := fs.FileMode(0o600)
	l := readList(dir)
	k := l.find(func(k *kept) bool { return k.Path == r.Path && k.SHA256 == r.SHA256 })
	if k == nil {
		k = l.find(func(k *kept) bool { return k.Path == r.Path })
	}
	if k != nil {
		mode = k.Mode.Perm()
	}
	if err := replace(folder, rest, data, mode); err != nil {
		return fmt.Errorf("restore %s: %w", r.Path, err)
	}
	return nil
}

// readCopy reads a copy and holds it against its digest: a disk that damaged the file may have damaged this one.
func readCopy(dir, digest string) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(dir, digest), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		return nil, errors.New("the copy is damaged")
	}
	return data, nil
}

// restored is the name of what is being written. A rest of it is written over.
const restored = ".keepout-restore"

// replace writes a file below a folder and renames it into place. No link leads out of the folder (os.Root).
func replace(folder, name string, data []byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only names were looked up through it
	parent := path.Dir(name)
	if err := root.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temp := path.Join(parent, restored)
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	d, err := root.Open(parent)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that cannot sync a folder; there is nothing more to do
	}
	return errors.Join(err, d.Close())
}
