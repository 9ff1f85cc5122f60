package diagnostics

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Known are values of this machine that no bundle may hold. Values of fewer than two characters are ignored, and so are
// "localhost" and "(none)", which are nobody's.
type Known struct {
	Hosts    []string // host name, with and without domain
	Users    []string // login and real names of people
	Machines []string // machine id, boot ids, serial numbers
	Others   []string // what the administrator wants gone
}

// marks of the known values; the patterns' are in rules.
const (
	markHost    = "[host]"
	markUser    = "[user]"
	markMachine = "[machine-id]"
	markOther   = "[removed]"
)

// MinKnown is the fewest bytes of a known value that is found inside of words. A shorter one is found as a whole
// word: a person called Ann must not be found in every scanner.
const MinKnown = 6

// Rules lists all rules in the order in which they are applied; the first four need the values of the machine.
func Rules() []Rule { return newRedactor(Known{}).rules }

// patternRules are compiled once; nothing changes them.
var patternRules = patterns()

// knownRules is how many rules come before them.
const knownRules = 4

// allMarks finds what redaction has written.
var allMarks = regexp.MustCompile(marksPattern())

func marksPattern() string {
	marks := append(make([]string, 0, knownRules+len(patternRules)), markHost, markUser, markMachine, markOther)
	for i := range patternRules {
		marks = append(marks, patternRules[i].Mark)
	}
	for i := range marks {
		marks[i] = regexp.QuoteMeta(marks[i])
	}
	return strings.Join(marks, "|")
}

// redactor applies the rules and counts. It is not safe for concurrent use.
type redactor struct {
	rules  []Rule
	counts map[string]int
}

func newRedactor(known Known) *redactor {
	r := &redactor{counts: map[string]int{}}
	for _, k := range []struct {
		name, mark, what string
		values           []string
	}{
		{"known-machine", markMachine, "the machine id, boot ids and serial numbers of this machine", known.Machines},
		{"known-host", markHost, "the host's name", known.Hosts},
		{"known-user", markUser, "login and real names of this machine's people", known.Users},
		{"known-other", markOther, "what the administrator named (--redact)", known.Others},
	} {
		pattern, may := anyOf(k.values)
		r.rules = append(r.rules, Rule{
			Name: k.name, What: k.what, Mark: k.mark, Names: true, pattern: pattern, may: may,
		})
	}
	r.rules = append(r.rules, patternRules...)
	return r
}

// anyOf matches any of the values, whatever their case, and has a cheap look for them; nil where there is none.
func anyOf(values []string) (pattern *regexp.Regexp, may func(lower string) bool) {
	// The longest first: a pattern takes the first of its alternatives that fits.
	sorted := slices.Clone(values)
	parts, lowered := make([]string, 0, len(sorted)), make([]string, 0, len(sorted))
	slices.SortFunc(sorted, func(a, b string) int { return len(b) - len(a) })
	for _, v := range sorted {
		v = strings.TrimSpace(clean(v))
		lower, plain := folded(v)
		if !plain {
			lower = "" // to be found everywhere
		}
		lowered = append(lowered, lower)
		switch {
		case len(v) < 2 || strings.EqualFold(v, "localhost") || v == "(none)":
		case len(v) < MinKnown:
			parts = append(parts, boundary(v[0])+regexp.QuoteMeta(v)+boundary(v[len(v)-1]))
		default:
			parts = append(parts, regexp.QuoteMeta(v))
		}
	}
	if len(parts) == 0 {
		return nil, nil
	}
	return regexp.MustCompile(`(?i)(?:` + strings.Join(parts, "|") + `)`), func(lower string) bool {
		return slices.ContainsFunc(lowered, func(v string) bool { return strings.Contains(lower, v) })
	}
}

// boundary is what must stand beside a short value's first or last byte for it to be a word of its own.
func boundary(c byte) string {
	if c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
		return `\b`
	}
	return ""
}

// clean makes a text one line of valid UTF-8 without control characters. It comes before the rules, so that nothing can
// hide from them behind a byte that goes away later.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "?")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e ||
			r >= 0x2060 && r <= 0x206f || r == 0xfeff || r == 0xad:
			return '?'
		}
		return r
	}, text)
}

// text applies the rules to a text; names spares what the rules for free text would take from an identifier. The
// known values come first, so that a pattern cannot take a part of one, and once more at the end: what a pattern took
// may have been what made a short value part of a longer word.
func (r *redactor) text(text string, names bool) string {
	text = r.withoutKnown(clean(text))
	lower, plain := folded(text)
	for i := knownRules; i < len(r.rules); i++ {
		rule := &r.rules[i]
		if names && !rule.Names || rule.cannot(lower, plain) {
			continue
		}
		text = rule.pattern.ReplaceAllStringFunc(text, func(match string) string {
			if rule.only != nil && !rule.only(match) {
				return match
			}
			r.counts[rule.Name]++
			return rule.Mark
		})
		lower, plain = folded(text)
	}
	return r.withoutKnown(text)
}

// withoutKnown takes the known values out until none is left. It looks between the marks only, because a host may be
// called "host".
func (r *redactor) withoutKnown(text string) string {
	lower, plain := folded(text)
	if !slices.ContainsFunc(r.rules[:knownRules], func(rule Rule) bool { return !rule.cannot(lower, plain) }) {
		return text
	}
	const rounds = 16
	for round := range rounds + 1 {
		var b strings.Builder
		found := false
		last := 0
		piece := func(part string) {
			for i := range knownRules {
				part, found = r.piece(&r.rules[i], part, found)
				if round == rounds && found {
					part = markOther // somebody made a text of nothing else
				}
			}
			b.WriteString(part)
		}
		for _, at := range allMarks.FindAllStringIndex(text, -1) {
			piece(text[last:at[0]])
			b.WriteString(text[at[0]:at[1]])
			last = at[1]
		}
		piece(text[last:])
		if !found {
			return text
		}
		text = b.String()
	}
	return text
}

// piece applies one rule for known values to a part of a text, unless an earlier rule has already put a mark there: the
// next round sees that.
func (r *redactor) piece(rule *Rule, part string, found bool) (string, bool) {
	if rule.pattern == nil || allMarks.MatchString(part) {
		return part, found
	}
	out := rule.pattern.ReplaceAllStringFunc(part, func(string) string {
		r.counts[rule.Name]++
		found = true
		return rule.Mark
	})
	return out, found
}

// bundle redacts every text of a bundle, by its tag.
func (r *redactor) bundle(b *Bundle) { r.value(reflect.ValueOf(b).Elem(), "") }

func (r *redactor) value(v reflect.Value, tag string) {
	switch v.Kind() {
	case reflect.String:
		switch tag {
		case "own":
		case "digest":
			if !isHex(v.String(), 64) {
				v.SetString("")
			}
		default:
			v.SetString(r.text(v.String(), tag == "name"))
		}
	case reflect.Slice:
		for i := range v.Len() {
			r.value(v.Index(i), tag)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			r.value(v.Field(i), v.Type().Field(i).Tag.Get("redact"))
		}
	case reflect.Bool, reflect.Int, reflect.Int64:
	default:
		panic("diagnostics: a bundle has a field of a kind that is not redacted: " + v.Type().String())
	}
}

// tally lists what was taken away, in the order of the rules.
func (r *redactor) tally() []Redacted {
	var out []Redacted
	for i := range r.rules {
		if n := r.counts[r.rules[i].Name]; n > 0 {
			out = append(out, Redacted{Rule: r.rules[i].Name, Count: n})
		}
	}
	return out
}
