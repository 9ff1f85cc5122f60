package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// systemDatabase is where freshclam keeps the official signatures on Debian and most other systems.
const systemDatabase = "/var/lib/clamav"

// headerSize is what says everything about an official container, in bytes: its version, time and checksum
// (clamav.net, "ClamAV Virus Database format").
const headerSize = 512

// detecting and tuning are the endings of files that clamd loads from its folder; those of tuning detect
// nothing alone.
func detecting() []string {
	return []string{
		".cvd", ".cld", ".cud", ".db", ".hdb", ".hdu", ".hsb", ".hsu", ".mdb", ".mdu", ".msb", ".msu",
		".ndb", ".ndu", ".ldb", ".ldu", ".sdb", ".idb", ".cdb", ".cbc", ".pdb", ".gdb", ".zmd", ".rmd",
		".imp", ".yar", ".yara", ".ioc",
	}
}

func tuning() []string {
	return []string{".fp", ".sfp", ".ign", ".ign2", ".ftm", ".cfg", ".wdb", ".crb", ".cat", ".info", ".pwdb"}
}

// database describes a folder of signatures.
type database struct {
	folder string
	files  int
	size   int64  // bytes of all files
	digest string // short, of all files
}

// readDatabase looks at the folder that clamd is going to load.
func readDatabase(folder string) (database, error) {
	db := database{folder: folder}
	missing := func(why string) error {
		return fmt.Errorf(
			"no ClamAV signature database in %s%s: run freshclam, or set content: to a folder with signatures",
			folder, why)
	}
	entries, err := os.ReadDir(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return db, missing("")
	case err != nil:
		return db, missing(" (" + errors.Unwrap(err).Error() + ")")
	}
	h, detects := sha256.New(), false
	for _, e := range entries { // ReadDir sorts them
		ending := strings.ToLower(filepath.Ext(e.Name()))
		if !slices.Contains(detecting(), ending) && !slices.Contains(tuning(), ending) {
			continue
		}
		size, err := addFile(h, filepath.Join(folder, e.Name()), ending)
		if err != nil {
			return db, fmt.Errorf("read ClamAV signature database: %w", err)
		}
		detects = detects || slices.Contains(detecting(), ending)
		db.files++
		db.size += size
	}
	if !detects {
		return db, missing("")
	}
	db.digest = hex.EncodeToString(h.Sum(nil)[:4])
	return db, nil
}

func addFile(h io.Writer, path, ending string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not block
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file: remove it", path)
	}
	var content io.Reader = f
	if ending == ".cvd" || ending == ".cld" || ending == ".cud" {
		content = io.LimitReader(f, headerSize)
	}
	fmt.Fprintf(h, "%s\x00%d\x00", info.Name(), info.Size())
	if _, err := io.Copy(h, content); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	return info.Size(), nil
}
