package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Kept is how many records stay in a folder; NotKept names the others.
const Kept = 16

// Names of record files: prefix, time and code, suffix. They fit FAT.
const (
	filePrefix = "crash-"
	fileSuffix = ".json"
)

// Encode cleans a record and returns it as JSON of at most MaxEncoded bytes. Details are dropped from their beginning
// where it would be longer: the end of a panic says more.
func Encode(r *Record) ([]byte, error) {
	c := r.Cleaned()
	for {
		data, err := json.MarshalIndent(&c, "", " ")
		if err != nil {
			return nil, fmt.Errorf("encode crash record: %w", err)
		}
		if len(data) < MaxEncoded {
			return append(data, '\n'), nil
		}
		if len(c.Details) == 0 {
			return nil, fmt.Errorf("encode crash record: %d bytes without details", len(data))
		}
		c.Details = c.Details[(len(c.Details)+3)/4:]
	}
}

// Decode reads a record that may have been torn or written by somebody else, and cleans it. Fields that it does not
// know are ignored: a newer recovery image may have written them.
func Decode(data []byte) (Record, error) {
	if len(data) > MaxEncoded {
		return Record{}, fmt.Errorf("decode crash record: %d bytes, at most %d are read", len(data), MaxEncoded)
	}
	var r Record
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("decode crash record: %w", err)
	}
	if r.Format != Format {
		return Record{}, fmt.Errorf("decode crash record: format %d, want %d", r.Format, Format)
	}
	if y := r.Time.Year(); y < 1 || y > 9999 {
		r.Time = time.Time{}
	}
	return r.Cleaned(), nil
}

// FileName is the name under which a record is kept. Names sort by time as far as the clock was right.
func (r *Record) FileName() string {
	code := strings.Map(func(c rune) rune {
		if c == '-' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' {
			return c
		}
		return -1
	}, r.Code)
	if code == "" {
		code = "0000-0000"
	}
	return filePrefix + r.Time.UTC().Format("20060102-150405") + "-" + code[:min(len(code), 32)] + fileSuffix
}

// List reads the records in a folder, the newest first. A folder that does not exist has none. What cannot be read is
// left out, and the error says how much that was; the records beside it are still returned.
func List(dir fs.FS) ([]Record, error) {
	names, err := recordNames(dir)
	if err != nil {
		return nil, err
	}
	var out []Record
	var broken []error
	for _, name := range names {
		r, err := readRecord(dir, name)
		if err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", name, err))
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(broken...)
}

// NotKept are the files of a folder that are too many, the oldest; whoever adds a record removes them.
func NotKept(dir fs.FS) ([]string, error) {
	names, err := recordNames(dir)
	if err != nil || len(names) <= Kept {
		return nil, err
	}
	return names[Kept:], nil
}

// recordNames lists the newest first. It reads no more than so many entries: a folder on the ESP belongs to whoever has
// the disk.
func recordNames(dir fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(dir, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list crash records: %w", err)
	}
	var names []string
	for _, e := range entries {
		if ok, _ := path.Match(filePrefix+"*"+fileSuffix, e.Name()); ok && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names[:min(len(names), 4*Kept)], nil
}

func readRecord(dir fs.FS, name string) (Record, error) {
	f, err := dir.Open(name)
	if err != nil {
		return Record{}, fmt.Errorf("open crash record: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxEncoded+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return Record{}, fmt.Errorf("read crash record: %w", err)
	}
	return Decode(data)
}
