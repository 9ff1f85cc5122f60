package diagnostics

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// Limits of the parts of a bundle.
const (
	maxPanicHead = 24 << 10 // bytes of the panic's text, from its beginning
	maxPanicTail = 96 << 10 // and from its end, which says more
	maxPanicLine = 4 << 10  // of one line; a longer one is left out, for redaction could not see all of it
	maxProviders = 64
	maxCrashes   = 64
	maxStarts    = 32
	maxModules   = 128
	maxChanges   = 200
	maxUnits     = 64
	maxTimings   = 64
	maxTaint     = 24
	maxWord      = 512 // bytes of any other text
)

// Input is what is known before redaction. Everything may be missing.
type Input struct {
	MachineID string // /etc/machine-id; only its pseudonym goes into the bundle
	Machine   string // the pseudonym itself, where the machine id cannot be read; MachineID wins
	Test      bool
	Now       time.Time
	Nonce     []byte // 16 random bytes
	Failure   Failure
	Versions  Versions
	Providers []Provider
	Crashes   []Crash
	Starts    []Start
	Taint     []string
	Modules   []Module
	Changes   []Change
	PanicLog  []byte // of any size
	Units     []Unit
	Timings   []Timing
	Known     Known
	// Cuts are what had to be left out before it came here.
	Cuts []Cut
}

// ErrOff is returned at level off.
var ErrOff = errors.New("diagnostics are off")

// Pseudonym is the name under which a machine sends diagnostics: 32 hexadecimal digits, always the same for one machine
// id, from which the id cannot be found. The id itself must not leave the machine (machine-id(5)).
func Pseudonym(machineID string) string {
	return protocol.Pseudonym(machineID)
}

// Make builds a bundle and its encoding, which has at most MaxBundle bytes. At level off it returns ErrOff.
func Make(in *Input, level Level) (Bundle, []byte, error) {
	if level == Off {
		return Bundle{}, nil, ErrOff
	}
	if level != Minimal && level != Full {
		return Bundle{}, nil, fmt.Errorf("level %.20q is not known", level)
	}
	if len(in.Nonce) != 16 {
		return Bundle{}, nil, fmt.Errorf("make bundle: a nonce of %d bytes, want 16", len(in.Nonce))
	}
	b := Bundle{
		Format: Format, Level: level, Nonce: hex.EncodeToString(in.Nonce), Machine: in.pseudonym(), Test: in.Test,
		Made: in.Now.UTC().Truncate(time.Second), Failure: in.Failure, Versions: in.Versions, Cuts: in.Cuts,
	}
	b.Providers = limit(&b, "providers", in.Providers, maxProviders)
	b.Crashes = limit(&b, "crashes", in.Crashes, maxCrashes)
	b.Starts = limit(&b, "starts", in.Starts, maxStarts)
	b.Taint = limit(&b, "taint", in.Taint, maxTaint)
	b.Modules = limit(&b, "modules", in.Modules, maxModules)
	b.Changes = limit(&b, "changes", in.Changes, maxChanges)
	b.Units = limit(&b, "units", in.Units, maxUnits)
	b.Timings = limit(&b, "timings", in.Timings, maxTimings)
	b.Panic = panicLines(&b, in.PanicLog)
	copyLists(&b)

	red := newRedactor(in.known())
	red.bundle(&b)
	parsed := ParsePanic(b.Panic)
	b.Failure.Cause = firstOf(b.Failure.Cause, parsed.Cause, parsed.Bug)
	b.Signature = Sign(&parsed, &b.Failure)
	if level == Minimal {
		b.minimal()
	}
	b.Redacted = red.tally()
	shorten(&b, maxWord)
	encoded, err := b.fit()
	return b, encoded, err
}

func (in *Input) pseudonym() string {
	if in.MachineID != "" {
		return Pseudonym(in.MachineID)
	}
	if isHex(in.Machine, 32) {
		return in.Machine
	}
	return strings.Repeat("0", 32)
}

func (in *Input) known() Known {
	k := in.Known
	k.Machines = append([]string{in.MachineID}, k.Machines...)
	return k
}

// minimal takes away every text that a person or a program wrote.
func (b *Bundle) minimal() {
	b.Changes, b.Panic, b.Units, b.Timings = nil, nil, nil, nil
	b.Failure.Reason, b.Failure.Cause = "", ""
	b.Signature.Title = ""
	for i := range b.Crashes {
		b.Crashes[i].Signature = ""
	}
	for i := range b.Starts {
		b.Starts[i].Why = ""
	}
}

// limit keeps the last entries of a list, which are the newest, and notes what it left out.
func limit[T any](b *Bundle, what string, list []T, most int) []T {
	if len(list) <= most {
		return list
	}
	b.Cuts = append(b.Cuts, Cut{What: what, Kept: int64(most), Of: int64(len(list)), Unit: "entries"})
	return list[len(list)-most:]
}

// copyLists makes the lists the bundle's own: redaction must not write into the caller's.
func copyLists(b *Bundle) {
	b.Providers, b.Crashes, b.Starts = copied(b.Providers), copied(b.Crashes), copied(b.Starts)
	b.Taint, b.Modules, b.Changes = copied(b.Taint), copied(b.Modules), copied(b.Changes)
	b.Units, b.Timings, b.Cuts = copied(b.Units), copied(b.Timings), copied(b.Cuts)
}

func copied[T any](list []T) []T { return append([]T(nil), list...) }

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// panicLines takes whole lines from both ends of a log of any size, and notes what is missing between them.
func panicLines(b *Bundle, log []byte) []string {
	head, tail := log, []byte(nil)
	if len(log) > maxPanicHead+maxPanicTail {
		head = wholeLines(log[:maxPanicHead], false)
		tail = wholeLines(log[len(log)-maxPanicTail:], true)
		b.Cuts = append(b.Cuts, Cut{
			What: "panic text (its beginning and its end are kept)", Kept: int64(len(head) + len(tail)), Of: int64(len(log)),
			Unit: "bytes",
		})
	}
	lines := split(head)
	if len(tail) > 0 {
		lines = append(append(lines, fmt.Sprintf("--- %d bytes left out here ---", len(log)-len(head)-len(tail))),
			split(tail)...)
	}
	long := 0
	for i := range lines {
		if len(lines[i]) > maxPanicLine {
			lines[i] = fmt.Sprintf("--- a line of %d bytes left out ---", len(lines[i]))
			long++
		}
	}
	if long > 0 {
		b.Cuts = append(b.Cuts, Cut{
			What: "panic text (lines too long)", Kept: int64(len(lines) - long),
			Of: int64(len(lines)), Unit: "lines",
		})
	}
	return lines
}

// wholeLines drops the line at the cut, of which a part is missing.
func wholeLines(part []byte, end bool) []byte {
	if end {
		if i := bytes.IndexByte(part, '\n'); i >= 0 {
			return part[i+1:]
		}
		return nil
	}
	return part[:bytes.LastIndexByte(part, '\n')+1]
}

func split(text []byte) []string {
	text = bytes.TrimRight(text, "\n\x00")
	if len(text) == 0 {
		return nil
	}
	return strings.Split(string(text), "\n")
}

// shorten bounds every text but the panic's lines. It comes after redaction: half of a secret is no longer recognised.
func shorten(b *Bundle, most int) {
	word := func(text string) string { return word(text, most) }
	for _, text := range []*string{
		&b.Failure.Starting, &b.Failure.Suspect, &b.Failure.Reason, &b.Failure.Cause, &b.Signature.Title,
		&b.Versions.Keepout, &b.Versions.Recovery, &b.Versions.Kernel, &b.Versions.System,
	} {
		*text = word(*text)
	}
	for i := range b.Signature.Frames {
		b.Signature.Frames[i] = word(b.Signature.Frames[i])
	}
	for i := range b.Providers {
		p := &b.Providers[i]
		p.ID, p.State = word(p.ID), word(p.State)
		for _, s := range []*Slots{&p.Engine, &p.Content} {
			for _, text := range []*string{&s.Active, &s.Candidate, &s.LKG, &s.Former, &s.Factory} {
				*text = word(*text)
			}
		}
	}
	for i := range b.Crashes {
		b.Crashes[i].Provider, b.Crashes[i].Signature = word(b.Crashes[i].Provider), word(b.Crashes[i].Signature)
	}
	for i := range b.Starts {
		s := &b.Starts[i]
		s.What, s.Mode, s.Why = word(s.What), word(s.Mode), word(s.Why)
	}
	for i := range b.Modules {
		m := &b.Modules[i]
		m.Name, m.Taint, m.Owner = word(m.Name), word(m.Taint), word(m.Owner)
	}
	for i := range b.Changes {
		c := &b.Changes[i]
		c.Code, c.Provider, c.What = word(c.Code), word(c.Provider), word(c.What)
	}
	for i := range b.Units {
		b.Units[i].Name, b.Units[i].Result = word(b.Units[i].Name), word(b.Units[i].Result)
	}
	for i := range b.Timings {
		b.Timings[i].Phase = word(b.Timings[i].Phase)
	}
	for i := range b.Taint {
		b.Taint[i] = word(b.Taint[i])
	}
}

func word(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// fit encodes the bundle and takes away lines of the panic, from its middle, then older changes, then the ends of
// texts, until it is small enough.
func (b *Bundle) fit() ([]byte, error) {
	lines, changes, texts := len(b.Panic), len(b.Changes), maxWord
	for {
		b.noteCut("panic text (to fit)", len(b.Panic), lines, "lines")
		b.noteCut("changes (to fit)", len(b.Changes), changes, "entries")
		b.noteCut("texts (to fit)", texts, maxWord, "bytes each")
		encoded, err := b.Encode()
		if err != nil || len(encoded) <= MaxBundle {
			return encoded, err
		}
		switch {
		case len(b.Panic) > 8:
			// A quarter of what is left, two thirds into the text: the end is worth more than the beginning.
			n := (len(b.Panic) + 3) / 4
			at := (len(b.Panic) - n) / 3
			b.Panic = append(b.Panic[:at:at], b.Panic[at+n:]...)
		case len(b.Panic) > 0:
			b.Panic = nil
		case len(b.Changes) > 0:
			b.Changes = b.Changes[(len(b.Changes)+1)/2:]
		case texts > 16:
			texts /= 2
			shorten(b, texts)
		default:
			return nil, fmt.Errorf("make bundle: %d bytes without panic text and changes, at most %d", len(encoded), MaxBundle)
		}
	}
}

// noteCut keeps one entry for each thing that is cut in several steps.
func (b *Bundle) noteCut(what string, kept, of int, unit string) {
	if kept == of {
		return
	}
	c := Cut{What: what, Kept: int64(kept), Of: int64(of), Unit: unit}
	for i := range b.Cuts {
		if b.Cuts[i].What == what {
			b.Cuts[i] = c
			return
		}
	}
	b.Cuts = append(b.Cuts, c)
}
