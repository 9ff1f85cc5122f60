package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Cause is why a core before this one no longer answered.
type Cause uint8

// The causes.
const (
	None    Cause = iota // there was none before
	Exited               // it ended; Detail is the exit code
	Killed               // it was killed; Detail is the signal
	Stalled              // it made no progress and was killed by the guard
	Stopped              // it was stopped by a signal and was killed by the guard
)

// String returns the cause's name in status.
func (c Cause) String() string {
	return [...]string{"none", "exited", "killed", "stalled", "stopped"}[min(c, Stopped)]
}

// Gap is a time in which the guard answered without asking any engine.
type Gap struct {
	Cause   Cause
	Detail  int           // exit code or signal
	Length  time.Duration // from the last sign of progress to the takeover
	Decided uint64        // events that the guard answered
	Cores   uint32        // cores started since the guard
}

// String says in words what happened.
func (g Gap) String() string {
	what := "no core ran before"
	switch g.Cause {
	case Exited:
		what = fmt.Sprintf("the core ended with exit code %d", g.Detail)
	case Killed:
		what = fmt.Sprintf("the core was ended by signal %d (%s)", g.Detail, unix.SignalName(unix.Signal(g.Detail)))
	case Stalled:
		what = "the core made no progress and was ended"
	case Stopped:
		what = "the core was stopped by a signal and was ended"
	case None:
	}
	return fmt.Sprintf("%s; for %v the guard answered, %d events were allowed without asking an engine",
		what, g.Length.Round(time.Millisecond), g.Decided)
}

// gapSize is the length of an encoded gap.
const gapSize = 1 + 1 + 2 + 4 + 8 + 8

// ErrGap reports bytes that are no gap.
var ErrGap = errors.New("malformed report of the guard")

// Encode writes g to b without allocating.
func (g Gap) encode(b *[gapSize]byte) {
	b[0], b[1] = 1, byte(g.Cause)
	binary.NativeEndian.PutUint16(b[2:], uint16(g.Detail))
	binary.NativeEndian.PutUint32(b[4:], g.Cores)
	binary.NativeEndian.PutUint64(b[8:], uint64(g.Length))
	binary.NativeEndian.PutUint64(b[16:], g.Decided)
}

func decodeGap(b []byte) (Gap, error) {
	if len(b) != gapSize || b[0] != 1 || Cause(b[1]) > Stopped {
		return Gap{}, fmt.Errorf("%w: %d bytes", ErrGap, len(b))
	}
	return Gap{
		Cause: Cause(b[1]), Detail: int(binary.NativeEndian.Uint16(b[2:])), Cores: binary.NativeEndian.Uint32(b[4:]),
		Length:  time.Duration(binary.NativeEndian.Uint64(b[8:])),
		Decided: binary.NativeEndian.Uint64(b[16:]),
	}, nil
}
