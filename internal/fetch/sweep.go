package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/update"
)

// maxSwept is how many files one sweep removes: the core does not look meanwhile. What is left goes with the next.
const maxSwept = 256

// sweep removes from the staging folder what neither the metadata that is in force there leads to, nor that which is on
// its way, nor a package that is wanted. It does so while the core does not look. Precondition: update.WriteOrders has
// written what is wanted, so that no earlier list of orders comes back: nobody looks for what goes, whatever the power
// does. It reports whether all of it went; while the core looks, nothing does.
func (m mirror) sweep(wanted []string) (done bool, err error) {
	dir, err := folder.Open(m.to)
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }() // only read
	hold, err := dir.Tidying()
	if errors.Is(err, folder.ErrHeld) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, hold.Close()) }()
	old, err := m.unneeded(wanted)
	if err != nil || len(old) == 0 {
		return err == nil, err
	}
	now := old[:min(len(old), maxSwept)]
	for i, name := range now {
		now[i] = filepath.Join(m.to, name)
	}
	return len(now) == len(old), forget(now)
}

// unneeded lists what nobody needs in the folders of metadata and blobs, and a folder that is empty then after the
// files in it.
func (m mirror) unneeded(wanted []string) (out []string, err error) {
	needed := map[string]bool{}
	operator, known := m.need(needed, update.OperatorDir)
	vendors := admitted(operator)
	for _, digest := range wanted {
		if name, err := blob(digest); err == nil {
			needed[name] = true
			parts, _ := m.parts(name) // of a manifest that is not there, nothing is
			for _, part := range parts {
				needed[part] = true
			}
		}
	}
	folders := []string{update.OperatorDir, sha256Dir}
	list, err := m.list(update.VendorsDir)
	for _, e := range list {
		if e.IsDir() {
			dir := path.Join(update.VendorsDir, e.Name())
			folders = append(folders, dir)
			if _, named := vendors[e.Name()]; named || known != nil {
				_, _ = m.need(needed, dir) // what cannot be read leads nowhere
			}
		}
	}
	for _, dir := range folders {
		files, listed := m.list(dir)
		err = errors.Join(err, listed)
		for _, e := range files {
			name := path.Join(dir, e.Name())
			keep := needed[strings.TrimSuffix(name, partSuffix)] || needed[dir] && isRoot(e.Name())
			if !keep && !e.IsDir() {
				out = append(out, name)
			}
		}
		if path.Dir(dir) == update.VendorsDir && !needed[dir] {
			out = append(out, dir)
		}
	}
	return out, err
}

// need adds the files of a repository: those in force and those on their way. Its folder stands for its roots, which
// all stay: a core that lost its memory walks from the first to the newest. It returns the targets files in force.
func (m mirror) need(needed map[string]bool, dir string) (targets []metadata, err error) {
	note := func(name string) error {
		needed[name] = true
		return nil
	}
	stamp, next := path.Join(dir, stampFile), path.Join(dir, nextStamp)
	needed[dir], needed[stamp], needed[next] = true, true, true
	_, _ = m.follow(next, note) // it may not be there
	return m.follow(stamp, note)
}

// isRoot reports whether this is the name of a root file that may be fetched.
func isRoot(name string) bool {
	version, ok := strings.CutSuffix(name, ".root.json")
	v, err := strconv.Atoi(version)
	return ok && err == nil && v >= 1 && v <= maxRoots
}

// list lists a folder of the staging folder; one that is not there is empty.
func (m mirror) list(dir string) ([]fs.DirEntry, error) {
	list, err := os.ReadDir(filepath.Join(m.to, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// forget removes files, and folders that are empty then.
func forget(names []string) error {
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what is no longer needed: %w", err)
		}
	}
	return nil
}

// tidy sweeps the staging folder once for each change of what is needed there. While the core looks, and while more is
// to go, the next check-in goes on. What cannot be removed keeps nobody from anything else.
func (f *fetcher) tidy(list []*fleetpb.Order) {
	wanted := make([]string, 0, len(list)+len(f.grants))
	for _, o := range list {
		wanted = append(wanted, o.GetRelease().GetDigest())
	}
	for _, h := range f.grants {
		wanted = append(wanted, h.digest)
	}
	slices.Sort(wanted)
	now := fmt.Sprint(f.looks, slices.Compact(wanted))
	if now == f.tidied {
		return
	}
	done, err := f.mirror.sweep(wanted)
	if err != nil {
		f.o.Log.Warn("what is no longer needed was not removed", slog.Any("error", err))
	}
	if done || err != nil {
		f.tidied = now
	}
}
