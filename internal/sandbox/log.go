package sandbox

import (
	"io"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/wire"
)

// maxLog bounds what is kept in memory of a provider's standard error, in bytes.
const maxLog = 16 << 10

// A provider's standard error is copied by the core, on the core's time and disk, which no control group of the
// provider's counts. So it is read no faster than this; who writes more waits.
const (
	logRate  = 1 << 20 // bytes a second
	logBurst = 1 << 20 // bytes at once
)

// pace says how long to wait before the next bytes are taken. It is pure; the zero value is rested.
type pace struct {
	owed time.Duration // at logRate, for what was taken
	at   time.Time
}

// take returns the pace after n bytes were taken at now, and how long to wait.
func (p pace) take(now time.Time, n int) (pace, time.Duration) {
	if passed := now.Sub(p.at); passed > 0 {
		p.owed = max(p.owed-passed, 0)
	}
	p.at = now
	p.owed += time.Duration(n) * time.Second / logRate
	return p, max(p.owed-logBurst*time.Second/logRate, 0)
}

// tail keeps the last maxLog bytes written to it, and passes all of them on.
type tail struct {
	also io.Writer // or nil
	pace pace      // the one writer's own

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	var wait time.Duration
	t.pace, wait = t.pace.take(time.Now(), len(b))
	time.Sleep(wait)
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
