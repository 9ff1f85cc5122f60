package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// disorder is how much later than a younger line an older one may say it happened: an event carries the
// time when it was read, and its verdict may take up to the hard limit of ten seconds.
const disorder = time.Minute

// DamagedError says that Read has passed over lines that it could not decode.
type DamagedError struct {
	Lines int    // how many
	File  string // name of the file of the first, without its folder
	Line  int    // its number there, from 1
	Err   error  // what was wrong with it
}

// Error names the first damaged line.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("%d damaged journal lines, the first is %s:%d: %v", e.Lines, e.File, e.Line, e.Err)
}

// Unwrap returns what was wrong with the first damaged line.
func (e *DamagedError) Unwrap() error { return e.Err }

// Read calls fn for every line of the journal in dir that happened at since or later, from the oldest to
// the newest, until fn returns false. It checks no links, and passes over damaged lines: they come back as
// a *DamagedError at the end, after all others were read. The journal may be open meanwhile; a last line
// that is still being written is left out.
func Read(dir string, since time.Time, fn func(e *Entry) bool) error {
	files, err := segments(dir)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	r := lines{since: since, fn: fn}
	for _, s := range files[firstRelevant(files, since):] {
		more, err := r.file(s)
		if err != nil {
			return fmt.Errorf("read journal: %s: %w", s.path, err)
		}
		if !more {
			break
		}
	}
	if r.damaged.Lines > 0 {
		return fmt.Errorf("read journal: %w", &r.damaged)
	}
	return nil
}

// firstRelevant skips the files whose successor begins before since already.
func firstRelevant(files []segment, since time.Time) int {
	for i := len(files) - 1; i > 0; i-- {
		if t, ok := begins(files[i]); ok && t.Before(since.Add(-disorder)) {
			return i
		}
	}
	return 0
}

// begins is the time of a file's first line.
func begins(s segment) (time.Time, bool) {
	f, err := os.Open(s.path)
	if err != nil {
		return time.Time{}, false
	}
	defer func() { _ = f.Close() }()
	line, err := newLineReader(f).next()
	if err != nil {
		return time.Time{}, false
	}
	entry, err := Decode(line.text)
	return entry.Time(), err == nil
}

type lines struct {
	since   time.Time
	fn      func(e *Entry) bool
	damaged DamagedError
}

// file returns false when fn wants no more.
func (l *lines) file(s segment) (bool, error) {
	f, err := openSegment(s)
	if f == nil || err != nil {
		return true, err
	}
	defer func() { _ = f.Close() }()
	reader := newLineReader(f)
	for number := 1; ; number++ {
		line, err := reader.next()
		if errors.Is(err, io.EOF) || err == nil && !line.complete {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		entry, err := Decode(line.text)
		if err != nil {
			if l.damaged.Lines++; l.damaged.Lines == 1 {
				l.damaged.File, l.damaged.Line, l.damaged.Err = filepath.Base(s.path), number, err
			}
			continue
		}
		if !entry.Time().Before(l.since) && !l.fn(&entry) {
			return false, nil
		}
	}
}
