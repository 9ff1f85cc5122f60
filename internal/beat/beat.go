// Package beat lets those who look at something now and then, and not at a certain moment, look at the same moment: an
// idle host is then woken up once for all of them, in every process, and not once for each.
package beat

import "time"

// Next returns how long it is until the next multiple of every since the epoch: more than 0 and at most every, which
// must be more than 0. A clock that is set changes the moment, and never by more than that.
func Next(every time.Duration) time.Duration { return next(time.Now(), every) }

func next(now time.Time, every time.Duration) time.Duration {
	return every - time.Duration(now.UnixNano())%every
}
