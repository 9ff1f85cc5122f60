package journal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/durable"
)

const (
	filePrefix = "keepout-"
	fileSuffix = ".jsonl"
	seqDigits  = 20 // of the largest uint64, so that names sort as numbers

	// maxSeq bounds the numbers that are believed, so that a forged one cannot make the count overflow.
	maxSeq = math.MaxInt64
)

// noHash is the prev of the first line ever.
var noHash = strings.Repeat("0", 2*sha256.Size)

// fileName is the name of the file that begins with line seq.
func fileName(seq uint64) string {
	return fmt.Sprintf("%s%0*d%s", filePrefix, seqDigits, seq, fileSuffix)
}

// segment is one file of the journal.
type segment struct {
	path  string
	first uint64 // number of its first line
}

// segments lists the journal's files from the oldest to the newest. Other files are not ours.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, entry := range entries {
		digits, ok := strings.CutPrefix(entry.Name(), filePrefix)
		digits, ok2 := strings.CutSuffix(digits, fileSuffix)
		seq, err := strconv.ParseUint(digits, 10, 64)
		if !ok || !ok2 || err != nil || len(digits) != seqDigits || seq > maxSeq || !entry.Type().IsRegular() {
			continue
		}
		out = append(out, segment{path: filepath.Join(dir, entry.Name()), first: seq})
	}
	slices.SortFunc(out, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

// prune removes the oldest files until keep are left.
func prune(dir string, keep int) error {
	files, err := segments(dir)
	if err != nil {
		return err
	}
	var errs []error
	for len(files) > keep {
		errs = append(errs, os.Remove(files[0].path))
		files = files[1:]
	}
	return errors.Join(errs...)
}

// lineReader splits a file into lines and hashes them, in bounded memory.
type lineReader struct {
	r    *bufio.Reader
	hash hash.Hash
	text []byte
}

// rawLine is one line of a file.
type rawLine struct {
	text     []byte // without the newline, at most MaxLine+1 bytes; valid until the next line
	sum      string // hex SHA-256 of the whole line without the newline
	bytes    int64  // of the whole line with its newline
	complete bool   // it ends with a newline
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, batchBytes), hash: sha256.New()}
}

// next returns io.EOF after the last line.
func (l *lineReader) next() (rawLine, error) {
	var line rawLine
	l.text = l.text[:0]
	l.hash.Reset()
	for {
		part, err := l.r.ReadSlice('\n')
		line.bytes += int64(len(part))
		line.complete = err == nil
		part = bytes.TrimSuffix(part, []byte{'\n'})
		l.hash.Write(part)
		l.text = append(l.text, part[:min(len(part), MaxLine+1-len(l.text))]...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && line.bytes == 0:
			return line, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return line, err
		}
		line.text, line.sum = l.text, hex.EncodeToString(l.hash.Sum(nil))
		return line, nil
	}
}

// ending is where a journal continues.
type ending struct {
	head Head
	path string // the file to append to; empty: begin a new one
	size int64  // of that file
	torn int64  // bytes of incomplete lines that were cut off
}

// resume finds the end of the chain in dir and cuts off a torn last line, durably. Damage before that is
// not its matter: it never makes the journal unusable.
func resume(dir string) (ending, error) {
	end := ending{head: Head{Hash: noHash}}
	files, err := segments(dir)
	if err != nil {
		return end, err
	}
	for _, f := range slices.Backward(files) {
		lines, err := end.scan(f)
		if err != nil {
			return end, fmt.Errorf("%s: %w", f.path, err)
		}
		if lines > 0 {
			end.path = f.path
			return end, nil
		}
		// A power cut just after the file was begun.
		if err := os.Remove(f.path); err != nil {
			return end, err
		}
		if err := durable.SyncDir(dir); err != nil {
			return end, err
		}
		end.head.Seq = max(end.head.Seq, f.first-min(f.first, 1))
	}
	return end, nil
}

// scan reads one file, cuts its torn end and returns its number of complete lines.
func (e *ending) scan(s segment) (lines uint64, err error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e.size = 0
	reader := newLineReader(f)
	var last []byte
	for {
		line, err := reader.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if !line.complete {
			if err := errors.Join(f.Truncate(e.size), f.Sync()); err != nil {
				return 0, fmt.Errorf("cut the torn end: %w", err)
			}
			e.torn += line.bytes
			break
		}
		lines++
		e.size += line.bytes
		e.head.Hash = line.sum
		last = append(last[:0], line.text...)
	}
	if lines == 0 {
		return 0, nil
	}
	seq := s.first + lines - 1
	// Where lines were removed from the file by hand, the last line knows better than the count.
	if entry, err := Decode(last); err == nil && entry.Seq <= maxSeq {
		seq = max(seq, entry.Seq)
	}
	e.head.Seq = max(e.head.Seq, seq)
	return lines, nil
}

// openSegment opens a file for reading; nil without an error when rotation has just removed it.
func openSegment(s segment) (*os.File, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}
