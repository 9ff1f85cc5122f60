package testvm

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	tailLines = 60      // of the serial log in a failure's message
	lineLimit = 4 << 10 // bytes of one line; a longer one is cut into several
	rawLimit  = 256 << 10
	keepLines = 100_000 // lines kept; a machine that says more is broken
)

// escape is what terminals are told about colours and places.
var escape = regexp.MustCompile("\x1b[\\[(][0-9;?=]*[a-zA-Z]|\x1b[c78]")

// Serial collects the lines of a machine's serial port. It may be used from several goroutines.
type Serial struct {
	mu      sync.Mutex
	log     io.Writer
	partial []byte
	raw     []byte // the last rawLimit bytes, as they came
	total   int    // bytes that came so far
	lines   []string
	next    int // the first line that expect has not consumed
	ended   bool
	changed chan struct{} // closed and replaced at each new line
}

func newSerial(log io.Writer) *Serial { return &Serial{log: log, changed: make(chan struct{})} }

// Write takes what the machine sends.
func (s *Serial) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.log.Write(p)
	s.raw, s.total = append(s.raw, p...), s.total+len(p)
	s.raw = s.raw[max(0, len(s.raw)-rawLimit):]
	s.partial = append(s.partial, p...)
	for {
		i := bytes.IndexByte(s.partial, '\n')
		if i < 0 && len(s.partial) < lineLimit {
			return len(p), nil
		}
		if i < 0 {
			i = lineLimit - 1
		}
		line := escape.ReplaceAllString(strings.TrimRight(string(s.partial[:i]), "\r"), "")
		if s.partial = s.partial[i+1:]; len(s.lines) < keepLines {
			s.lines = append(s.lines, line)
		}
		s.wake()
	}
}

func (s *Serial) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Serial) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

// Tail returns the last lines, for a failure's message.
func (s *Serial) Tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines[max(0, len(s.lines)-tailLines):]
	return strings.Join(lines, "\n") + "\n" + string(s.partial)
}

// Lines returns a copy of all lines so far.
func (s *Serial) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

// Count says how many lines so far match.
func (s *Serial) Count(pattern string) int {
	re := regexp.MustCompile(pattern)
	n := 0
	for _, line := range s.Lines() {
		if re.MatchString(line) {
			n++
		}
	}
	return n
}

// expectText waits for a text that comes from now on, in a line or not: a boot loader's menu has no lines.
func (s *Serial) expectText(text string, within time.Duration) error {
	s.mu.Lock()
	from := s.total
	s.mu.Unlock()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		s.mu.Lock()
		fresh := s.raw[max(0, len(s.raw)-(s.total-from)):]
		found, ended := bytes.Contains(fresh, []byte(text)), s.ended
		s.mu.Unlock()
		if found {
			return nil
		}
		if ended {
			break
		}
	}
	return fmt.Errorf("the machine did not write %q within %v", text, within)
}

func (s *Serial) expect(pattern string, within time.Duration) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	deadline := time.After(within)
	for {
		line, found, ended, changed := s.look(re)
		switch {
		case found:
			return line, nil
		case ended:
			return "", fmt.Errorf("the machine ended before it said %q", pattern)
		}
		select {
		case <-changed:
		case <-deadline:
			return "", fmt.Errorf("the machine did not say %q within %v", pattern, within)
		}
	}
}

func (s *Serial) look(re *regexp.Regexp) (line string, found, ended bool, changed chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.next < len(s.lines) {
		line := s.lines[s.next]
		s.next++
		if re.MatchString(line) {
			return line, true, false, nil
		}
	}
	return "", false, s.ended, s.changed
}
