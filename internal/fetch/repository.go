package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"github.com/keepout-security/keepout/internal/durable"
)

// A repository's timestamp leads to all of its other files but the roots.
const (
	stampFile = "timestamp.json"
	nextStamp = stampFile + ".next" // until all that it leads to is here
)

// repository fetches one party's current metadata and returns its targets files. The timestamp gets its name last: what
// is staged belongs together, and what is whole stays in use while what follows it is not.
func (m mirror) repository(ctx context.Context, dir string) (targets []metadata, err error) {
	for v := int64(1); v <= maxRoots; v++ {
		err := m.once(ctx, path.Join(dir, fmt.Sprintf("%d.root.json", v)))
		if errors.Is(err, fs.ErrNotExist) && v > 1 {
			break
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	next, stamp := path.Join(dir, nextStamp), path.Join(dir, stampFile)
	if err := download(ctx, m.from, stamp, filepath.Join(m.to, next), maxMeta); err != nil {
		return nil, err
	}
	targets, err = m.follow(next, func(name string) error { return m.once(ctx, name) })
	if err != nil {
		return nil, err
	}
	if err := durable.MoveOn(durable.OS(), filepath.Join(m.to, next), filepath.Join(m.to, stamp)); err != nil {
		return nil, fmt.Errorf("stage %s: %w", stamp, err)
	}
	return targets, nil
}

// follow visits each file that a staged timestamp leads to, before it reads any that the same file names, and returns
// the targets files.
func (m mirror) follow(stamp string, visit func(name string) error) (targets []metadata, err error) {
	top, err := m.read(stamp)
	if err != nil {
		return nil, err
	}
	dir := path.Dir(stamp)
	list := path.Join(dir, fmt.Sprintf("%d.snapshot.json", top.Signed.Meta["snapshot.json"].Version))
	if err := visit(list); err != nil {
		return nil, err
	}
	snapshot, err := m.read(list)
	if err != nil {
		return nil, err
	}
	if len(snapshot.Signed.Meta) > maxTargets {
		return nil, fmt.Errorf("%s names more than %d files", list, maxTargets)
	}
	var files []string
	for _, name := range slices.Sorted(maps.Keys(snapshot.Signed.Meta)) {
		if !folderName(name) {
			return nil, fmt.Errorf("%q is no metadata file", name)
		}
		files = append(files, path.Join(dir, fmt.Sprintf("%d.%s", snapshot.Signed.Meta[name].Version, name)))
	}
	for _, name := range files {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	for _, name := range files {
		t, err := m.read(name)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}
