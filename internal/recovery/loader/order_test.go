//go:build linux

package loader

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// listed is an entry as systemd-boot compares it.
type listed struct {
	id, sortKey string
	spent       bool // it counts, and no try is left
}

// before is the documented order (UAPI.1, "Sorting", and systemd-boot(7)) for entries of one machine without versions:
// what has no tries left comes last; what has a sort-key comes first, by that; then the newest name.
func before(a, b listed) int {
	flag := func(x bool) int {
		if x {
			return 1
		}
		return 0
	}
	if c := cmp.Compare(flag(a.spent), flag(b.spent)); c != 0 {
		return c
	}
	if c := cmp.Compare(flag(a.sortKey == ""), flag(b.sortKey == "")); c != 0 {
		return c
	}
	if c := strings.Compare(a.sortKey, b.sortKey); c != 0 {
		return c
	}
	return -compareVersions(a.id, b.id)
}

// compareVersions compares two versions as the Version Format Specification does (UAPI.10): segments of digits or
// letters, where a separator before a segment makes it older, "~" the oldest, then the end, "-", "^" and ".".
func compareVersions(a, b string) int {
	for {
		a, b = skipOthers(a), skipOthers(b)
		for _, mark := range []string{"~", "", "-", "^", "."} {
			if mark == "" {
				if a == "" || b == "" {
					return cmp.Compare(len(a), len(b))
				}
				continue
			}
			inA, inB := strings.HasPrefix(a, mark), strings.HasPrefix(b, mark)
			switch {
			case inA && !inB:
				return -1
			case inB && !inA:
				return 1
			case inA:
				a, b = a[1:], b[1:]
			}
		}
		headA, headB, digits := segments(&a, &b)
		if c := compareSegments(headA, headB, digits); c != 0 {
			return c
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func skipOthers(s string) string {
	for s != "" && !isDigit(s[0]) && !isLetter(s[0]) && !strings.ContainsRune("~-^.", rune(s[0])) {
		s = s[1:]
	}
	return s
}

// segments cuts the next segment off both: digits where one begins with a digit, else letters.
func segments(a, b *string) (headA, headB string, digits bool) {
	digits = *a != "" && isDigit((*a)[0]) || *b != "" && isDigit((*b)[0])
	fits := isLetter
	if digits {
		fits = isDigit
	}
	take := func(s *string) string {
		n := 0
		for n < len(*s) && fits((*s)[n]) {
			n++
		}
		head := (*s)[:n]
		*s = (*s)[n:]
		return head
	}
	return take(a), take(b), digits
}

func compareSegments(a, b string, digits bool) int {
	if !digits {
		return strings.Compare(a, b)
	}
	if (a == "") != (b == "") {
		return cmp.Compare(len(a), len(b))
	}
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// TestVersionOrder holds the test's own comparison against the examples of the specification.
func TestVersionOrder(t *testing.T) {
	t.Parallel()
	sorted := []string{
		"122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1", "123.a-1", "123.1-1", "123a-1",
		"124-1",
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareVersions(a, b); got != cmp.Compare(i, j) {
				t.Errorf("%s against %s: %d", a, b, got)
			}
		}
	}
}

// TestRecoveryEntriesComeLast: whatever the system's entries are called, with a sort-key or without, they come before
// those of the recovery environment while they have tries, and after them when they have none.
func TestRecoveryEntriesComeLast(t *testing.T) {
	t.Parallel()
	first, second := listed{id: RecoveryEntry}, listed{id: RecoveryEntry2}
	names := rapid.OneOf(
		rapid.StringMatching(`[0-9a-z+_@][0-9a-z+_.@-]{0,20}\.(conf|efi)`),
		rapid.StringMatching(`[0-9a-f]{32}-[0-9][0-9.-]{0,9}\.conf`),
		rapid.SampledFrom([]string{"0.conf", "0-x.conf", "a.conf", "debian.conf", "keepout.efi", "00000-0.conf", "arch.efi"}),
	).Filter(func(id string) bool { return skipOthers(id)[0] != '-' }) // whoever begins like this wants to be last, too
	rapid.Check(t, func(t *rapid.T) {
		id := names.Draw(t, "name")
		system := listed{
			id: id, sortKey: rapid.SampledFrom([]string{"", "debian", "~", "-"}).Draw(t, "sort-key"),
			spent: rapid.Bool().Draw(t, "spent"),
		}
		all := []listed{second, system, first}
		slices.SortFunc(all, before)
		want := []listed{system, first, second}
		if system.spent {
			want = []listed{first, second, system}
		}
		if !slices.Equal(all, want) {
			t.Fatalf("the order is %+v", all)
		}
	})
	first.spent = true
	if before(second, first) >= 0 {
		t.Error("when the first copy has used its try the second is not next")
	}
	// The names as they were could be a default, which is what this guards against.
	if before(listed{id: "0-keepout-recovery-2.conf"}, listed{id: "debian.conf"}) >= 0 {
		t.Error("the test's order would not notice a name that comes first")
	}
}

func TestSorts(t *testing.T) {
	t.Parallel()
	for info, want := range map[string]bool{
		"systemd-boot 247.3-7+deb11u4": false, "systemd-boot 249.11-0ubuntu3": false, "systemd-boot 250": true,
		"systemd-boot 252.39-1~deb12u1": true, "systemd-boot": true, "": true, "systemd-boot 999999999999": true,
	} {
		if got := Sorts(info); got != want {
			t.Errorf("%q: %v", info, got)
		}
	}
}
