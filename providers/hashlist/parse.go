package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine  = 1024 // bytes in one line of a list
	maxName  = 200  // bytes in a name; a rule on the wire has at most event.MaxRule
	readSize = 256 << 10

	// maxMemory bounds both lists, in bytes: 2 million bare hashes, or 1.2 million with names of 25 letters. A
	// reload holds the old lists and the new, and the Go runtime maps about 80 MB for itself, which together
	// must stay below the grant in the manifest: beyond it the process would end, rather than get an error.
	maxMemory = 72 << 20
)

// readLists reads deny.txt and allow.txt in the folder, and returns a short digest of both. A missing file is
// an empty list; an empty folder path means no lists at all.
func readLists(ctx context.Context, folder string) (deny, allow *list, digest string, err error) {
	if folder == "" {
		deny, allow = &list{}, &list{}
		return deny, allow, hex.EncodeToString(sha256.New().Sum(nil)[:4]), nil
	}
	if info, err := os.Stat(folder); err != nil {
		return nil, nil, "", fmt.Errorf(
			"content folder: %w: create it, or correct content: in the configuration", err)
	} else if !info.IsDir() {
		return nil, nil, "", fmt.Errorf(
			"content %s is not a folder: want a folder with deny.txt and allow.txt", folder)
	}
	h := sha256.New()
	deny, err = readFile(ctx, filepath.Join(folder, "deny.txt"), maxMemory, h)
	if err != nil {
		return nil, nil, "", err
	}
	h.Write([]byte{0}) // no list contains it
	allow, err = readFile(ctx, filepath.Join(folder, "allow.txt"), maxMemory-len(deny.memory), h)
	if err != nil {
		deny.close()
		return nil, nil, "", err
	}
	return deny, allow, hex.EncodeToString(h.Sum(nil)[:4]), nil
}

func readFile(ctx context.Context, path string, limit int, h io.Writer) (*list, error) {
	// Without O_NONBLOCK, a named pipe of that name would hold the provider forever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return &list{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open list: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open list: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: replace it by one", path)
	}
	return build(ctx, f, path, limit, h)
}

// build reads a list twice: to check and measure it, so that it takes no more memory than it needs, and to
// fill it. The list takes at most limit bytes. What was read the second time goes to h as well.
func build(ctx context.Context, f io.ReadSeeker, path string, limit int, h io.Writer) (*list, error) {
	n := &needs{}
	err := parse(ctx, f, path, func(_ *[sha256.Size]byte, name []byte) *mistake {
		if n.count(name); n.memory() > limit {
			return &mistake{1, fmt.Sprintf("the lists take more than %d MiB", maxMemory>>20), "shorten them"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	l, err := newList(n)
	if err != nil {
		return nil, err
	}
	err = parse(ctx, io.TeeReader(f, h), path, func(sum *[sha256.Size]byte, name []byte) *mistake {
		if !l.add(sum, name) {
			return &mistake{1, "the file changed while it was read", "reload"}
		}
		return nil
	})
	if err != nil {
		l.close()
		return nil, err
	}
	l.seal()
	return l, nil
}

// parse calls use for each entry of a list. An error says where it is, what was found there, and what to do.
func parse(
	ctx context.Context, r io.Reader, path string, use func(sum *[sha256.Size]byte, name []byte) *mistake,
) error {
	lines := bufio.NewReaderSize(r, readSize)
	var sum [sha256.Size]byte
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("read list: %w", err)
		}
		end := errors.Is(err, io.EOF)
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'})
		name, used, bad := parseLine(line, &sum)
		if bad == nil && used {
			bad = use(&sum, name)
		}
		if bad != nil {
			return fmt.Errorf("%s:%d:%d: %s: %s", path, number, bad.column, bad.found, bad.fix)
		}
		if end {
			return nil
		}
		if number%65536 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read list: %w", ctx.Err())
		}
	}
}

// mistake is what is wrong with a line; column counts bytes from 1.
type mistake struct {
	column     int
	found, fix string
}

const wantLine = "want 64 hex digits of a SHA-256, then optionally a space and a name"

// parseLine reads one line without its end. used is false for blank lines and comments.
func parseLine(line []byte, sum *[sha256.Size]byte) (name []byte, used bool, bad *mistake) {
	if len(line) > maxLine {
		return nil, false, &mistake{
			maxLine + 1, fmt.Sprintf("line longer than %d bytes", maxLine), "shorten the name or the comment",
		}
	}
	if rest := bytes.TrimLeft(line, " \t"); len(rest) == 0 || rest[0] == '#' {
		return nil, false, nil
	}
	digits := 0
	for digits < len(line) && isHex(line[digits]) {
		digits++
	}
	switch {
	case digits < 2*sha256.Size && digits < len(line):
		return nil, false, &mistake{digits + 1, "found " + describe(line[digits:]), wantLine}
	case digits != 2*sha256.Size:
		return nil, false, &mistake{
			min(digits, 2*sha256.Size) + 1, fmt.Sprintf("found %d hex digits", digits), wantLine,
		}
	}
	if _, err := hex.Decode(sum[:], line[:digits]); err != nil {
		return nil, false, &mistake{1, err.Error(), wantLine}
	}
	rest := line[digits:]
	name = bytes.TrimLeft(rest, " \t")
	if len(rest) > 0 && len(name) == len(rest) {
		return nil, false, &mistake{digits + 1, "found " + describe(rest) + " after the hash", wantLine}
	}
	if len(name) == 0 || name[0] == '#' {
		return nil, true, nil
	}
	column := len(line) - len(name) + 1
	name = bytes.TrimRight(name, " \t")
	return name, true, checkName(name, column)
}

// checkName holds that a name can be shown: it ends up in votes, in the journal and on terminals.
func checkName(name []byte, column int) *mistake {
	if len(name) > maxName {
		return &mistake{
			column, fmt.Sprintf("name of %d bytes", len(name)), fmt.Sprintf("use at most %d bytes", maxName),
		}
	}
	for at := 0; at < len(name); {
		r, size := utf8.DecodeRune(name[at:])
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			return &mistake{
				column + at, "found " + describe(name[at:]) + " in the name", "use printable UTF-8",
			}
		}
		at += size
	}
	return nil
}

func isHex(c byte) bool { return c-'0' < 10 || (c|0x20)-'a' < 6 }

// describe names the first character of what was found, safely for a terminal.
func describe(at []byte) string {
	r, size := utf8.DecodeRune(at)
	switch {
	case r == utf8.RuneError && size <= 1:
		return fmt.Sprintf("byte 0x%02x", at[0])
	case r == '\uFEFF':
		return "a byte order mark"
	}
	return fmt.Sprintf("%q", r)
}
