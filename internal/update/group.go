package update

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"sync"

	"github.com/keepout-security/keepout/internal/rollback"
)

// The kinds of a bucket, as the control plane knows them.
const (
	Crash    = "crash"
	Watchdog = "watchdog"
	Deny     = "deny"
	Boot     = "boot"     // the machine, or the core, did not come up or did not stay
	Recovery = "recovery" // and it came up in its recovery environment
)

// Bucket counts what looked the same, since the core started.
type Bucket struct {
	Signature string        `json:"signature"`
	Kind      string        `json:"kind"`
	Provider  string        `json:"provider"`
	Part      rollback.Part `json:"part,omitempty"` // what changed last, and is suspected
	Digest    string        `json:"digest,omitempty"`
	Count     uint64        `json:"count"`
	Sample    string        `json:"sample"` // redacted
}

// maxSample bounds a sample, in bytes.
const maxSample = 512

// What may be personal or differs between hosts with the same defect. Order matters: paths before numbers.
var redactions = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?:/[^\s:,;"'()]+)+/?`), "PATH"},
	{regexp.MustCompile(`\b[\w.+-]+@[\w.-]+\b`), "NAME"},
	{regexp.MustCompile(`0x[0-9a-fA-F]+|\b[0-9a-fA-F]{12,}\b`), "HEX"},
	{regexp.MustCompile(`\b\d+(?:\.\d+)?(?:ms|µs|ns|s|m|h)?\b`), "N"},
}

// signals are kept as they are: the number says what happened, and nothing about anybody.
var exits = regexp.MustCompile(`(?i)\b(exit (?:status|code)|signal|field) (\d{1,3})\b`)

// Redact makes a cause the same on all hosts with the same defect, with no path, name, address or number of one host.
func Redact(cause string) string {
	cause, _, _ = strings.Cut(cause, "\n")
	cause = exits.ReplaceAllStringFunc(strings.ToValidUTF8(cause, "?"), func(s string) string {
		head, digits, _ := cutLast(s)
		return head + " #" + spell(digits)
	})
	for _, r := range redactions {
		cause = r.what.ReplaceAllString(cause, r.with)
	}
	cause = strings.Join(strings.Fields(cause), " ")
	return cause[:min(len(cause), maxSample)]
}

func cutLast(s string) (head, tail string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	return s[:i], s[i+1:], true
}

// spell writes digits as letters, which no redaction takes away.
func spell(digits string) string {
	return strings.Map(func(r rune) rune { return 'a' + (r - '0') }, digits)
}

// KindOf tells a process that crashed from one that was ended because it said nothing any more.
func KindOf(cause string) string {
	if strings.Contains(cause, "heartbeat") || strings.Contains(cause, "too long") {
		return Watchdog
	}
	return Crash
}

// Group counts incidents in buckets. It is safe for concurrent use; the zero value is empty.
type Group struct {
	mu   sync.Mutex
	list []counted
	turn uint64
}

// counted is a bucket that knows when it was counted last.
type counted struct {
	Bucket

	turn uint64
}

// Add counts one incident; b has kind, provider, part and digest.
func (g *Group) Add(b Bucket, cause string) { g.AddMany(b, cause, 1) }

// AddMany counts incidents that look the same. Of MaxBuckets, the one that was not counted for longest makes room.
func (g *Group) AddMany(b Bucket, cause string, n uint64) {
	b.Sample = Redact(cause)
	sum := sha256.Sum256([]byte(strings.Join([]string{b.Kind, b.Provider, string(b.Part), b.Sample}, "\x00")))
	b.Signature, b.Count = b.Kind+"-"+hex.EncodeToString(sum[:8]), n
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn++
	oldest := 0
	for i := range g.list {
		had := &g.list[i]
		if had.Signature == b.Signature && had.Digest == b.Digest {
			had.Count += n
			had.turn = g.turn
			return
		}
		if had.turn < g.list[oldest].turn {
			oldest = i
		}
	}
	if len(g.list) >= MaxBuckets {
		g.list = append(g.list[:oldest:oldest], g.list[oldest+1:]...)
	}
	g.list = append(g.list, counted{b, g.turn})
}

// List returns the buckets.
func (g *Group) List() []Bucket {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Bucket, 0, len(g.list))
	for i := range g.list {
		out = append(out, g.list[i].Bucket)
	}
	return out
}
