//go:build cgo && yara

package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/keepout-security/keepout/providers/yara/libyara"
)

const (
	maxFiles = 4096     // rule files in a folder
	maxText  = 64 << 20 // bytes in all of them
)

// selftestObject is denied whatever the rules of the folder say, so that "keepout doctor" can see that votes arrive.
//
//go:embed selftest.txt
var selftestObject string

// selftestRule is event.SelftestRule as an identifier.
const selftestRule = "keepout_selftest"

// selftest is the rule for it. It comes first, because the first rule that matches is the answer.
func selftest() libyara.Source {
	return libyara.Source{Path: "self-test", Text: fmt.Appendf(nil,
		"rule %s { strings: $object = %q condition: $object at 0 and filesize == %d }\n",
		selftestRule, selftestObject, len(selftestObject))}
}

func noRules(folder string) error {
	return fmt.Errorf("no YARA rules in %s: put .yar files there, or set content: to a folder with some", folder)
}

// readRules reads the rule files of a folder in the order of their names, and returns a short digest of them.
func readRules(folder string) (sources []libyara.Source, digest string, err error) {
	if folder == "" {
		return nil, "", errors.New("no folder of YARA rules: set content: to one")
	}
	entries, err := os.ReadDir(folder) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", noRules(folder)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read folder of YARA rules: %w", err)
	}
	h, left := sha256.New(), int64(maxText)
	for _, e := range entries {
		if !slices.Contains([]string{".yar", ".yara"}, filepath.Ext(e.Name())) {
			continue
		}
		path := filepath.Join(folder, e.Name())
		text, err := readFile(path, left)
		if err != nil {
			return nil, "", err
		}
		left -= int64(len(text))
		sources = append(sources, libyara.Source{Path: path, Text: text})
		if len(sources) > maxFiles {
			return nil, "", fmt.Errorf("more than %d rule files in %s: join some", maxFiles, folder)
		}
		fmt.Fprintf(h, "%s\x00%d\x00%s", e.Name(), len(text), text)
	}
	if len(sources) == 0 {
		return nil, "", noRules(folder)
	}
	return sources, hex.EncodeToString(h.Sum(nil)[:4]), nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not block
	if err != nil {
		return nil, fmt.Errorf("open rules: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open rules: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: remove it", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d MiB of rules: use fewer", path, maxText>>20)
	}
	return text, nil
}

// plural is a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
