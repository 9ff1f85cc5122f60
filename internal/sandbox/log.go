package sandbox

import (
	"io"
	"strings"
	"sync"

	"github.com/keepout-security/keepout/wire"
)

// maxLog bounds what is kept in memory of a provider's standard error, in bytes.
const maxLog = 16 << 10

// tail keeps the last maxLog bytes written to it, and passes all of them on.
type tail struct {
	also io.Writer // or nil

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	if t.also != nil {
		// A log that cannot be written costs the provider nothing.
		_, _ = t.also.Write(b)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-maxLog):]...)
	if extra := len(t.buf) - maxLog; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// lastLine returns what a program says last: of a crash the reason, otherwise the last line that is not empty. It is
// fit for a terminal.
func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(t.String()), "\n")
	for _, line := range lines {
		// What Go says first of a crash; the stacks below it say less.
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return wire.Clip(line)
		}
	}
	return wire.Clip(lines[len(lines)-1])
}
