package docket

import (
	"time"

	"github.com/keepout-security/keepout/internal/arbiter"
)

// rouse starts the clock if it rests.
func (d *Docket) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// clock gives up late votes. It ticks only while there are questions, and a little longer, so that an idle host
// costs nothing and a busy one no wake-up per question.
func (d *Docket) clock() {
	for {
		<-d.wake
		if d.tickUntilIdle() {
			return
		}
	}
}

// tickUntilIdle reports whether the docket is closed and empty.
func (d *Docket) tickUntilIdle() bool {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for idle := 0; idle < restAfter; idle++ {
		<-ticker.C
		left, closing := d.expire()
		if left > 0 {
			idle = 0
		} else if closing {
			return true
		}
	}
	return false
}

// expire gives every open case the time. There are at most MaxInFlight of them.
func (d *Docket) expire() (left int, closing bool) {
	d.mu.Lock()
	var todo actions
	for _, e := range d.cases {
		if at, ok := e.c.Deadline(); ok && time.Since(e.q.Event.Time) >= at {
			todo.add(d.stepLocked(e, arbiter.Input{Kind: arbiter.Tick}))
		}
	}
	left, closing = len(d.cases), d.closing
	d.mu.Unlock()
	todo.run()
	d.beat()
	return left, closing
}
