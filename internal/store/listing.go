package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/rollback"
)

// entry is one file or folder of a package.
type entry struct {
	path  string
	class byte // folder, plain or program
	size  int64
	sum   [sha256.Size]byte // zero for a folder
}

// The classes: all that is kept of a mode.
const (
	folder  = 'd'
	plain   = 'f'
	program = 'x'
)

// listing is what a package consists of. Its text is canonical: the digest of the text is the package's.
type listing struct {
	part    rollback.Part
	single  bool    // it is one file, not a folder
	entries []entry // sorted by path
}

const listingVersion = "keepout-package 1"

// text writes the listing: a line that says what it is, then one for each entry.
func (l *listing) text() []byte {
	slices.SortFunc(l.entries, func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\n", listingVersion, l.part, shape(l.single))
	for _, e := range l.entries {
		fmt.Fprintf(&b, "%c %d %x %s\n", e.class, e.size, e.sum, e.path)
	}
	return b.Bytes()
}

func shape(single bool) string {
	if single {
		return "file"
	}
	return "folder"
}

func digestOf(text []byte) rollback.Digest {
	sum := sha256.Sum256(text)
	return rollback.Digest(hex.EncodeToString(sum[:]))
}

// parseListing reads a listing. Every text that it accepts is canonical: written again, it is the same.
func parseListing(text []byte) (*listing, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) < 2 || lines[len(lines)-1] != "" {
		return nil, errors.New("listing is cut off")
	}
	l := &listing{}
	head, ok := strings.CutPrefix(lines[0], listingVersion+" ")
	part, form, _ := strings.Cut(head, " ")
	l.part, l.single = rollback.Part(part), form == shape(true)
	if !ok || l.part != rollback.Engine && l.part != rollback.Content || form != shape(l.single) {
		return nil, fmt.Errorf("listing begins with %.40q", lines[0])
	}
	for i, line := range lines[1 : len(lines)-1] {
		e, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("listing line %d: %w", i+2, err)
		}
		l.entries = append(l.entries, e)
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(l.text(), text) {
		return nil, errors.New("listing is not in its canonical form")
	}
	return l, nil
}

func parseEntry(line string) (e entry, err error) {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) != 4 || len(fields[0]) != 1 || len(fields[2]) != 2*sha256.Size {
		return e, fmt.Errorf("%.40q is no entry", line)
	}
	e.class, e.path = fields[0][0], fields[3]
	if e.class != folder && e.class != plain && e.class != program {
		return e, fmt.Errorf("class %q is not known", e.class)
	}
	if e.size, err = strconv.ParseInt(fields[1], 10, 64); err != nil || e.size < 0 {
		return e, fmt.Errorf("size %.40q", fields[1])
	}
	if _, err := hex.Decode(e.sum[:], []byte(fields[2])); err != nil {
		return e, fmt.Errorf("digest %.80q", fields[2])
	}
	if why := wrongName(e.path); why != "" {
		return e, fmt.Errorf("path %.40q %s", e.path, why)
	}
	return e, nil
}

// check holds the entries together: each folder that is named is there, and nothing is there twice.
func (l *listing) check() error {
	class := map[string]byte{".": folder}
	for _, e := range l.entries {
		if class[e.path] != 0 {
			return fmt.Errorf("listing has %.40q twice", e.path)
		}
		class[e.path] = e.class
	}
	for _, e := range l.entries {
		if class[path.Dir(e.path)] != folder {
			return fmt.Errorf("listing has %.40q in no folder", e.path)
		}
	}
	if l.single && (len(l.entries) != 1 || l.entries[0].class == folder) {
		return errors.New("listing of a file has something else")
	}
	return nil
}
