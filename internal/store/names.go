package store

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits bound one package.
type Limits struct {
	Bytes   int64 // of all files together; and of all that an archive unpacks to, its headers included
	Entries int   // files and folders
	Depth   int   // folders below one another
}

// DefaultLimits are the documented numbers.
func DefaultLimits() Limits { return Limits{Bytes: 2 << 30, Entries: 16384, Depth: 16} }

// Limits of names, in bytes; the first is Linux's for one name.
const (
	maxName = 255
	maxPath = 1024
)

// wrongName says why a path inside a package is not accepted, or "". A path is relative, with slashes, and each of
// its names is printable UTF-8: what is listed is what is there.
func wrongName(path string) string {
	switch {
	case path == "":
		return "is empty"
	case len(path) > maxPath:
		return fmt.Sprintf("is longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		return "is no UTF-8"
	case path[0] == '/':
		return "is absolute"
	}
	for _, c := range path {
		if !unicode.IsPrint(c) || c == '\\' || c == utf8.RuneError {
			return fmt.Sprintf("has the character %U in its name", c)
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "" || name == "." || name == "..":
			return fmt.Sprintf("has %q as a part of its name", name)
		case len(name) > maxName:
			return fmt.Sprintf("has a name longer than %d bytes", maxName)
		}
	}
	return ""
}
