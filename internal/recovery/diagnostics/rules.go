package diagnostics

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
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
	// may says by a cheap look, at a text in lower case, whether the pattern can match; it errs on the side of yes.
	// Without it, redaction of a long log takes seconds on a slow machine.
	may func(lower string) bool
}

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
	rules := []Rule{
		rule("command-line", "[command-line]", "the kernel's command line",
			`(?i)\b(?:kernel )?command line: .*`, false),
		rule("audit", "[audit record]", "records of the audit subsystem",
			`(?i)\baudit(?:\([0-9.:]+\))?: .*|\btype=[0-9]{4,5} .*`, false),
		rule("secret", "[secret]", "what follows password, token, key and the like, to the end of the line",
			`(?i)(?:\b|_)(?:pass(?:word|wd|phrase)|secret|token|api[-_]?key|private[-_ ]key|psk|authorization|bearer|`+
				`cookie)\b["']?\s*[:= ].*`, false),
		rule("key-material", "[key]", "PEM blocks and long runs of hexadecimal or base64",
			`-----BEGIN .*|\b[0-9A-Fa-f]{32,}\b|[A-Za-z0-9+/_-]{48,}={0,2}|AGE-SECRET-KEY-1[0-9A-Z]*`, false),
		rule("file-of-a-person", "[file]", "paths below the folders of people, to the end of the quotation or line",
			`(?i)/(?:var/)?(?:home|users|export/home)/[^"'`+"`"+`\n]*|\bhome-[^\s]*\.(?:mount|automount|swap)\b`, true),
		rule("credentials-in-address", "[credentials]@", "user and password in an address", `//[^/\s@]*@`, true),
		rule("mail", "[mail]", "mail addresses", `[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+`, true),
		rule("hardware-address", "[hardware-address]", "MAC and InfiniBand addresses",
			`(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,}\b`, true),
		address(rule("network-address", "[address]", "IPv6 addresses",
			`(?i)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,8}(?:\.[0-9]{1,3}){0,3}`, true)),
		address(rule("network-address-4", "[address]",
			"IPv4 addresses; a version of four numbers in a text looks like one and goes, too",
			`\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b`, false)),
		rule("uuid", "[uuid]", "identifiers of disks and file systems",
			`(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`, true),
		rule("serial", "[serial]", "serial numbers and asset tags, to the end of the line",
			`(?i)\b(?:serial ?(?:number|no)?|s/n|asset ?tag|service ?tag)\b\s*[:=#].*`, false),
		rule("wireless", "[network-name]", "names of wireless networks, to the end of the line", `(?i)\b(?:e?ssid)\b.*`,
			false),
	}
	for i := range rules {
		rules[i].may = looks()[rules[i].Name]
	}
	return rules
}

// looks are the cheap looks of the patterns.
func looks() map[string]func(lower string) bool {
	any1 := func(words ...string) func(string) bool {
		return func(lower string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(lower, w) })
		}
	}
	many := func(chars string, least int) func(string) bool {
		return func(lower string) bool {
			n := 0
			for i := range len(chars) {
				n += strings.Count(lower, chars[i:i+1])
			}
			return n >= least
		}
	}
	return map[string]func(string) bool{
		"command-line": any1("command line: "), "audit": any1("audit", "type="),
		"secret": any1("pass", "secret", "token", "key", "psk", "authorization", "bearer", "cookie"),
		"key-material": func(lower string) bool {
			return longRun(lower, 32) || any1("-----begin", "age-secret-key")(lower)
		},
		"file-of-a-person": any1("home", "users"), "credentials-in-address": any1("@"), "mail": any1("@"),
		"hardware-address": many(":-", 5), "network-address": many(":", 2), "network-address-4": many(".", 3),
		"uuid": many("-", 4), "serial": any1("serial", "s/n", "tag"), "wireless": any1("ssid"),
	}
}

// longRun reports whether a text has so many characters of base64 or hexadecimal in a row.
func longRun(text string, least int) bool {
	run := 0
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+/_-", c) >= 0 {
			if run++; run >= least {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}

// folded is a text in lower case, and whether that is all that a pattern without regard to case can mean: beyond ASCII
// there are letters that fold to ASCII ones.
func folded(text string) (lower string, plain bool) {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return text, false
		}
	}
	return strings.ToLower(text), true
}

// cannot reports whether a rule surely leaves a text alone.
func (r *Rule) cannot(lower string, plain bool) bool {
	return r.pattern == nil || plain && r.may != nil && !r.may(lower)
}
