package diagnostics

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// Panic is what can be read from the kernel's last lines.
type Panic struct {
	Cause   string   // "Kernel panic - not syncing: …", without times and numbers of processors
	Bug     string   // the line that the kernel wrote first: "BUG: kernel NULL pointer dereference, address: …"
	Frames  []string // functions that were running, the innermost first, with [module] where there is one
	Tainted string   // "OE", as far as the text says
}

// kernelPanic begins what the kernel prints last.
const kernelPanic = "Kernel panic - "

// maxFrames are the functions that are kept; the five innermost make the signature.
const (
	maxFrames       = 32
	signatureFrames = 5
	maxScanned      = 20000 // lines
)

var (
	// printed is what the kernel and pstore put before a line: <6>, the time, the processor or task.
	printed = regexp.MustCompile(`^(?:<\d+>)?(?:\[\s*\d+\.\d+\])?(?:\[\s*[CT]\d+\])?\s?`)
	frame   = regexp.MustCompile(`^\s*(?:\[<[0-9a-f]+>\]\s*)?([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+` +
		`(?: (\[[\w-]+)(?: [0-9a-f]+)?\]?)?`)
	// pointer is the instruction pointer's line on x86 (RIP: 0010:f+0x1/0x2) and on arm64 (pc : f+0x1/0x2).
	pointer = regexp.MustCompile(`^(?:RIP: (?:[0-9a-f]{4}:)?|pc : )(.*)`)
	taint   = regexp.MustCompile(`\bTainted: ((?:\[?[A-Z]\]?=?\w*[ ,]*)+)`)
	number  = regexp.MustCompile(`\b(?:0x)?[0-9a-fA-F]*\d[0-9a-fA-F]*\b`)
)

// passing are functions that are in every trace: they report, and are no cause.
var passing = []string{
	"dump_stack", "dump_stack_lvl", "panic", "vpanic", "__die", "die", "oops_end", "die_addr", "exc_general_protection",
	"page_fault_oops", "exc_page_fault", "asm_exc_page_fault", "asm_exc_general_protection", "show_stack", "__warn",
	"report_bug", "handle_bug", "exc_invalid_op", "asm_exc_invalid_op", "do_trap", "do_error_trap", "__show_regs",
	"__die_body", "kernelmode_fixup_or_oops", "__bad_area_nosemaphore", "bad_area_nosemaphore", "do_user_addr_fault",
}

// ParsePanic reads the kernel's last lines. Whatever they are, it returns: what it does not find stays empty.
func ParsePanic(lines []string) Panic {
	var p Panic
	tracing := false
	for _, raw := range lines[max(len(lines)-maxScanned, 0):] {
		line := strings.TrimRight(raw[len(printed.FindString(raw)):], " \r")
		switch {
		case strings.Contains(line, kernelPanic):
			_, message, _ := strings.Cut(line, kernelPanic)
			p.Cause, tracing = kernelPanic+message, false
		case p.Bug == "" && begins(line, "BUG: ", "Oops: ", "general protection fault", "Unable to handle kernel",
			"watchdog: BUG", "Internal error: ", "kernel BUG at "):
			p.Bug = line
		case strings.HasPrefix(strings.TrimSpace(line), "Call Trace:"), strings.HasPrefix(strings.TrimSpace(line),
			"Call trace:"):
			tracing = true
		case strings.Contains(line, "---[ end"):
			tracing = false
		}
		if m := taint.FindStringSubmatch(line); m != nil && p.Tainted == "" {
			p.Tainted = strings.TrimSpace(m[1])
		}
		if m := pointer.FindStringSubmatch(line); m != nil {
			p.addFrame(m[1])
		} else if tracing {
			p.addFrame(line)
		}
	}
	return p
}

func begins(line string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
}

// addFrame takes a line of a trace. A line with a question mark is a guess of the kernel's, and does not match.
func (p *Panic) addFrame(line string) {
	m := frame.FindStringSubmatch(line)
	if m == nil || len(p.Frames) >= maxFrames {
		return
	}
	name, _, _ := strings.Cut(m[1], ".") // compilers add .isra.0 and the like, which change from build to build
	if slices.Contains(passing, name) {
		return
	}
	if m[2] != "" {
		name += " " + m[2] + "]"
	}
	if !slices.Contains(p.Frames, name) {
		p.Frames = append(p.Frames, name)
	}
}

// Signature groups failures that are alike, across versions and machines.
type Signature struct {
	ID     string   `json:"id" redact:"own"` // 16 hexadecimal digits
	Title  string   `json:"title"`           // for people
	Frames []string `json:"frames,omitempty"`
}

// Sign makes the signature of a failure: of the innermost functions where the kernel named any, else of its message
// without numbers, else of what was being started. Versions are no part of it: they are counted within a group.
func Sign(p *Panic, f *Failure) Signature {
	s := Signature{Frames: p.Frames[:min(len(p.Frames), signatureFrames)]}
	message := p.Bug
	if message == "" {
		message = p.Cause
	}
	message = number.ReplaceAllString(message, "N")
	var parts []string
	switch {
	case len(s.Frames) > 0:
		parts = append([]string{"frames"}, s.Frames...)
		s.Title = s.Frames[0]
		if message != "" {
			s.Title += ": " + message
		}
	case message != "":
		parts = []string{"message", message}
		s.Title = message
	case f.Starting != "":
		parts = []string{"starting", f.Starting}
		s.Title = "stopped without a message while starting " + f.Starting
	case f.Attempts == 0 && f.Visits == 0:
		parts = []string{"none"}
		s.Title = "no failure is known"
	default:
		parts = []string{"nothing"}
		s.Title = "stopped without a message"
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	s.ID = hex.EncodeToString(sum[:8])
	return s
}
