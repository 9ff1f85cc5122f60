package roster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
)

// take brings what is configured into the store, as it is now: later changes of the files are another version.
func (r *Roster) take(in config.Installed) (v rollback.Versions, err error) {
	v.Engine, err = r.version(rollback.Engine, in.Manifest.Dir())
	if err == nil && in.Content != "" {
		v.Content, err = r.version(rollback.Content, in.Content)
	}
	if err != nil {
		r.release(v)
		return rollback.Versions{}, err
	}
	return v, nil
}

func (r *Roster) version(p rollback.Part, path string) (rollback.Version, error) {
	pkg, err := r.c.Store.Import(p, path)
	if err != nil {
		return rollback.Version{}, err
	}
	kept, err := r.c.Store.Path(pkg.Digest) // what was taken, whatever is there by now
	if err != nil {
		return rollback.Version{}, err
	}
	return rollback.Version{Digest: pkg.Digest, Label: labelOf(kept), Origin: path}, nil
}

// first looks at the versions of a provider that has never run: they are not tried beside anything, but no engine loads
// content that is not what its manifest declares.
func (r *Roster) first(in config.Installed, v rollback.Versions) error {
	if !r.updates().Schema || v.Content.None() {
		return nil
	}
	var err error
	if in.Content, err = r.c.Store.Path(v.Content.Digest); err == nil {
		err = in.CheckContent(context.Background())
	}
	return err
}

// release lets go of packages that no slot has taken.
func (r *Roster) release(v rollback.Versions) {
	for _, d := range []rollback.Digest{v.Engine.Digest, v.Content.Digest} {
		if d != "" {
			r.c.Store.Release(d)
		}
	}
	r.collect()
}

// collect removes the packages that nothing needs any more, on a goroutine of its own.
func (r *Roster) collect() {
	if r.wanted.Add(1) > 1 {
		return // one is at it, and will look again
	}
	r.trials.Go(func() {
		for n := r.wanted.Load(); ; n = r.wanted.Load() {
			if _, err := r.c.Store.Collect(); err != nil {
				r.c.Log.Warn("packages that nobody needs are kept", slog.Any("error", err))
			}
			if r.wanted.CompareAndSwap(n, 0) {
				return
			}
		}
	})
}

// versionFile is where a folder says what it is called; a line of at most maxLabel bytes.
const (
	versionFile = "VERSION"
	maxLabel    = 32
)

// labelOf is what the maker calls a version, or "".
func labelOf(dir string) string {
	f, err := os.Open(filepath.Join(dir, versionFile))
	if err != nil {
		return "" // most have none, and single files cannot
	}
	defer func() { _ = f.Close() }() // only read
	b := make([]byte, maxLabel+1)
	n, _ := f.Read(b) // what there is
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	line = strings.TrimSpace(line)
	for _, c := range line {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return line[:min(len(line), maxLabel)]
}

func (r *Roster) updates() config.Updates { return r.settings.Load().updates }

// budget is what a vote on a sample may take.
func (r *Roster) budget() time.Duration { return time.Duration(r.settings.Load().budgets.Content) }

// noteRefusal says that what is configured was not taken.
func (r *Roster) noteRefusal(id string, err error) {
	r.c.Log.Warn("not taken", slog.String("provider", id), slog.Any("error", err))
	r.c.Notes.Note(journal.Note{
		Provider: id, Code: "version.not-taken", Title: "what is configured was not taken", Severity: journal.Medium,
		Detail: fmt.Sprintf("%s: %s", id, oneLine(err)),
	})
}

// storeFailed says that a decision could not be kept. It is carried out all the same.
func (r *Roster) storeFailed(id string, err error) {
	r.c.Log.LogAttrs(context.Background(), slog.LevelError, "versions not kept", slog.String("provider", id),
		slog.Any("error", err))
	r.c.Notes.Note(journal.Note{
		Provider: id, Code: "version.not-kept", Title: "what runs could not be written to the disk",
		Severity: journal.High, Detail: fmt.Sprintf("%s: %v", id, err),
	})
}
