package journal

import (
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/keepout-security/keepout/event"
)

// Bounds of one line. With all of them reached and every byte escaped, a line stays below MaxLine
// (TestLongestLine).
const (
	MaxLine    = 1 << 20 // bytes in a line; a longer one is not ours and not decoded
	maxPath    = 4096    // bytes of a path or a name; PATH_MAX of Linux
	maxWord    = event.MaxRule
	maxBallots = 64
	maxDetail  = 4096
)

// clip cuts s to at most limit bytes, not inside a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for i := limit; i > limit-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:limit]
}

// rawNames keeps the bytes that JSON would lose; nil in the usual case that there are none.
func rawNames(ev *event.Event) *Raw {
	valid := utf8.ValidString
	if valid(ev.File.Path) && valid(ev.Name) && valid(ev.NewDir) && valid(ev.NewName) && valid(ev.Actor.Comm) {
		return nil
	}
	return &Raw{
		Path: lossy(ev.File.Path, maxPath), Name: lossy(ev.Name, maxPath), NewDir: lossy(ev.NewDir, maxPath),
		NewName: lossy(ev.NewName, maxPath), Comm: lossy(ev.Actor.Comm, maxWord),
	}
}

// lossy returns the bytes of a name that JSON cannot carry, and nil of any other.
func lossy(name string, limit int) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(clip(name, limit))
}

// appendVisible appends a JSON line and escapes, as JSON allows in strings, what encoding/json leaves as it
// is but a terminal or an eye may fall for: DEL, the C1 controls, direction marks and other invisible
// characters. Outside of strings JSON has ASCII only, so that nothing else is touched.
func appendVisible(dst, line []byte) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(line); {
		if line[i] < 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(line[i:])
		if !unicode.Is(unicode.C, r) {
			i += size
			continue
		}
		dst = append(dst, line[start:i]...)
		var pair [2]uint16
		for _, u := range utf16.AppendRune(pair[:0], r) {
			dst = append(dst, '\\', 'u', hex[u>>12], hex[u>>8&15], hex[u>>4&15], hex[u&15])
		}
		i += size
		start = i
	}
	return append(dst, line[start:]...)
}
