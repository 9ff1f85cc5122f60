package diagnostics

import (
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Rule is one rule of redaction, as it is shown to who looks at a preview.
type Rule struct {
	Name string `json:"name"`
	What string `json:"what"` // what it takes away, for people
	Mark string `json:"mark"` // what is there instead
	// Names says that the rule is also applied to identifiers and versions, not to free text only.
	Names bool `json:"names"`

	pattern *regexp.Regexp
	only    func(match string) bool // when set, what else a match must fulfil
}

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

// MinKnown is the fewest bytes of a known value that is found inside of words. A shorter one is found as a whole word.
const MinKnown = 3

// Rules lists all rules in the order in which they are applied; the first four need the values of the machine.
func Rules() []Rule { return newRedactor(Known{}).rules }

// patterns are the rules that need no knowledge of the machine.
func patterns() []Rule {
	rule := func(name, mark, what, pattern string, names bool) Rule {
		return Rule{Name: name, What: what, Mark: mark, Names: names, pattern: regexp.MustCompile(pattern)}
	}
	address := func(r Rule) Rule {
		r.only = func(match string) bool {
			a, err := netip.ParseAddr(match)
			if err != nil {
				a, err = netip.ParseAddr(strings.TrimRight(match, ".:"))
			}
			return err == nil && !a.IsUnspecified()
		}
		return r
	}
	return []Rule{
		rule("command-line", "[command-line]", "the kernel's command line",
			`(?i)\b(?:kernel )?command line: .*`, false),
		rule("audit", "[audit record]", "records of the audit subsystem",
			`(?i)\baudit(?:\([0-9.:]+\))?: .*|\btype=[0-9]{4,5} .*`, false),
		rule("secret", "[secret]", "what follows password, token, key and the like, to the end of the line",
			`(?i)\b(?:pass(?:word|wd|phrase)|secret|token|api[-_]?key|private[-_ ]key|psk|authorization|bearer|cookie)\b["']?\s*[:= ].*`, false),
		rule("key-material", "[key]", "PEM blocks and long runs of hexadecimal or base64",
			`-----BEGIN .*|\b[0-9A-Fa-f]{32,}\b|[A-Za-z0-9+/_-]{48,}={0,2}|AGE-SECRET-KEY-1[0-9A-Z]*`, false),
		rule("file-of-a-person", "[file]", "paths below the folders of people, to the end of the quotation or line",
			`(?i)/(?:var/)?(?:home|users|export/home)/[^"'`+"`"+`\n]*|\bhome-[^\s]*\.(?:mount|automount|swap)\b`, true),
		rule("credentials-in-address", "[credentials]@", "user and password in an address", `//[^/\s@]*@`, true),
		rule("mail", "[mail]", "mail addresses", `[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+`, true),
		rule("hardware-address", "[hardware-address]", "MAC and InfiniBand addresses",
			`(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,}\b`, true),
		address(rule("network-address", "[address]", "IPv6 addresses", `(?i)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,8}(?:\.[0-9]{1,3}){0,3}`, true)),
		address(rule("network-address-4", "[address]", "IPv4 addresses; a version of four numbers in a text looks like one and goes, too",
			`\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b`, false)),
		rule("uuid", "[uuid]", "identifiers of disks and file systems",
			`(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, true),
		rule("serial", "[serial]", "serial numbers and asset tags, to the end of the line",
			`(?i)\b(?:serial ?(?:number|no)?|s/n|asset ?tag|service ?tag)\b\s*[:=#].*`, false),
		rule("wireless", "[network-name]", "names of wireless networks, to the end of the line", `(?i)\b(?:e?ssid)\b.*`, false),
	}
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
		{"known-other", markOther, "what the administrator named (diagnostics.redact)", known.Others},
	} {
		r.rules = append(r.rules, Rule{Name: k.name, What: k.what, Mark: k.mark, Names: true, pattern: anyOf(k.values)})
	}
	r.rules = append(r.rules, patterns()...)
	return r
}

// anyOf matches any of the values, whatever their case; nil where there is none.
func anyOf(values []string) *regexp.Regexp {
	var parts []string
	// The longest first: a pattern takes the first of its alternatives that fits.
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, func(a, b string) int { return len(b) - len(a) })
	for _, v := range sorted {
		v = strings.TrimSpace(clean(v))
		switch {
		case len(v) < 2 || strings.EqualFold(v, "localhost") || v == "(none)":
		case len(v) < MinKnown:
			parts = append(parts, `\b`+regexp.QuoteMeta(v)+`\b`)
		default:
			parts = append(parts, regexp.QuoteMeta(v))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return regexp.MustCompile(`(?i)(?:` + strings.Join(parts, "|") + `)`)
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

// text applies the rules to a text; names spares what the rules for free text would take from an identifier.
func (r *redactor) text(text string, names bool) string {
	text = clean(text)
	for i := range r.rules {
		rule := &r.rules[i]
		if rule.pattern == nil || names && !rule.Names {
			continue
		}
		text = rule.pattern.ReplaceAllStringFunc(text, func(match string) string {
			if rule.only != nil && !rule.only(match) {
				return match
			}
			r.counts[rule.Name]++
			return rule.Mark
		})
	}
	return text
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
