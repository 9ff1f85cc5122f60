package supervisor

import "time"

// AppetiteConfig holds the numbers by which a provider keeps processors to itself, all in percent of one processor that
// it burned without a pause: what others on that processor wait for is the length of such a stretch.
type AppetiteConfig struct {
	Much   int           // at a look: it makes way for the others from now on
	Little int           // less than that is a rest
	Rest   time.Duration // after so much of it, it need not make way any more
	Spare  time.Duration // for so long it does not go last after it has starved there
}

// DefaultAppetite returns the documented numbers. Much is what the smallest cpu limit still allows.
func DefaultAppetite() AppetiteConfig {
	return AppetiteConfig{Much: 5, Little: 2, Rest: 5 * time.Second, Spare: 30 * time.Second}
}

// Appetite decides when a provider makes way for the others on the processors, and until when. To make way costs it
// nothing while nobody else wants to run. Where others always do, it would get next to nothing if it went last, and its
// votes would be late: it keeps its share there. The zero value makes no way. It is a value: Look returns the next one.
type Appetite struct {
	yields  bool
	since   time.Time // it yields
	hungry  time.Time // of the last look that found more than a little
	starved time.Time // of the last look that found that it starves; it outlives a rest
}

// Look judges what share of a processor the provider burned without a pause since the last look, and whether it starved
// where it went last.
func (a Appetite) Look(c AppetiteConfig, now time.Time, share int, starves bool) Appetite {
	if starves {
		a.starved = now
	}
	switch {
	case share >= c.Much && !a.yields:
		a.yields, a.since, a.hungry = true, now, now
	case share >= c.Little || starves:
		a.hungry = now
	case a.yields && now.Sub(a.hungry) >= c.Rest:
		return Appetite{starved: a.starved}
	}
	return a
}

// Last reports whether it goes last, after everybody who wants to run.
func (a Appetite) Last(c AppetiteConfig, now time.Time) bool {
	return a.yields && (a.starved.IsZero() || now.Sub(a.starved) >= c.Spare)
}

// Yields reports whether it makes way, and since when.
func (a Appetite) Yields() (since time.Time, yields bool) { return a.since, a.yields }
