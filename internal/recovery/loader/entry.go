package loader

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// EntryName is the file name of an entry of systemd-boot with its counter: "name+3.conf", "name+2-1.efi", "name.conf"
// (Boot Loader Specification, "boot counting").
type EntryName struct {
	Stem    string // without counter and ending
	Ext     string // ".conf" or ".efi"
	Counted bool
	Left    int // tries left
	Done    int // tries done
}

// maxTries bounds a counter in a name.
const maxTries = 1_000_000

// ParseEntryName takes a file name apart. What only looks like a counter belongs to the stem, as it does for the
// loader.
func ParseEntryName(name string) (EntryName, error) {
	ext := filepath.Ext(name)
	if lower := strings.ToLower(ext); lower != ".conf" && lower != ".efi" || name != filepath.Base(name) ||
		strings.HasPrefix(name, ".") {
		return EntryName{}, fmt.Errorf("%q is no entry of systemd-boot", name)
	}
	e := EntryName{Stem: strings.TrimSuffix(name, ext), Ext: ext}
	i := strings.LastIndexByte(e.Stem, '+')
	if i <= 0 {
		return e, nil
	}
	left, done, both := strings.Cut(e.Stem[i+1:], "-")
	l, okLeft := number(left)
	d, okDone := number(done)
	if !okLeft || both && !okDone {
		return e, nil
	}
	e.Stem, e.Counted, e.Left, e.Done = e.Stem[:i], true, l, d
	return e, nil
}

// number reads a plain number of a counter.
func number(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= maxTries && s[0] != '+' && s[0] != '-'
}

// Plain is the name without a counter, which is what the loader calls the entry.
func (e EntryName) Plain() string { return e.Stem + e.Ext }

// With is the name with a counter of that many tries, none of them done.
func (e EntryName) With(tries int) string { return e.Stem + "+" + strconv.Itoa(max(tries, 0)) + e.Ext }
