package sensor

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/keepout-security/keepout/event"
)

// unaskedReasons are the reasons for which the sensor answers by itself.
var unaskedReasons = [...]event.Reason{
	event.ReasonSelf, event.ReasonProvider, event.ReasonVital, event.ReasonPair, event.ReasonScope,
	event.ReasonKind, event.ReasonRemote, event.ReasonVanished, event.ReasonNobody,
}

// Counters is a snapshot of what the sensor did without asking anybody.
type Counters struct {
	Unasked   map[event.Reason]uint64 `json:"unasked"`
	Malformed uint64                  `json:"malformed"` // events of a version this program does not know
	NoFile    uint64                  `json:"no_file"`   // refused by the kernel, which had no descriptor for us
	Overflows uint64                  `json:"overflows"` // times the notify queue lost events
	Offered   uint64                  `json:"offered"`   // files shown to the providers when their writers closed them
	Unoffered uint64                  `json:"unoffered"` // and those for which there was no room or no quiet moment
}

type counters struct {
	unasked                      map[event.Reason]*atomic.Uint64 // filled once, so safe to read
	malformed, noFile, overflows atomic.Uint64
	offered, unoffered           atomic.Uint64

	mu  sync.Mutex
	err error
}

func newCounters() *counters {
	c := &counters{unasked: make(map[event.Reason]*atomic.Uint64, len(unaskedReasons))}
	for _, r := range unaskedReasons {
		c.unasked[r] = new(atomic.Uint64)
	}
	return c
}

func (c *counters) snapshot() Counters {
	out := Counters{
		Unasked:   make(map[event.Reason]uint64, len(c.unasked)),
		Malformed: c.malformed.Load(), NoFile: c.noFile.Load(), Overflows: c.overflows.Load(),
		Offered: c.offered.Load(), Unoffered: c.unoffered.Load(),
	}
	for r, n := range c.unasked {
		out.Unasked[r] = n.Load()
	}
	return out
}

// readEnded notes why a reader stopped; the end of the group is the normal way.
func (c *counters) readEnded(err error) {
	if errors.Is(err, io.EOF) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errors.Join(c.err, fmt.Errorf("reader: %w", err))
}

func (c *counters) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
