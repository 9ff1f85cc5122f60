package supervisor

import "time"

// AppetiteConfig holds the numbers by which a provider keeps processors to itself, all in percent of one processor that
// it burned without a pause: what others on that processor wait for is the length of such a stretch.
type AppetiteConfig struct {
	Much   int           // at a look: it makes way for the others from now on
	Little int           // less than that is a rest
	Rest   time.Duration // after so much of it, it need not make way any more
}

// DefaultAppetite returns the documented numbers. Much is what the smallest cpu limit still allows.
func DefaultAppetite() AppetiteConfig {
	return AppetiteConfig{Much: 5, Little: 2, Rest: 5 * time.Second}
}

// Appetite decides when a provider makes way for the others on the processors, and until when. To make way costs it
// nothing while nobody else wants to run. The zero value does not. It is a value: Look returns the next one.
type Appetite struct {
	yields bool
	since  time.Time // it yields
	hungry time.Time // of the last look that found more than a little
}

// Look judges what share of a processor the provider burned without a pause since the last look.
func (a Appetite) Look(c AppetiteConfig, now time.Time, share int) Appetite {
	switch {
	case share >= c.Much && !a.yields:
		return Appetite{yields: true, since: now, hungry: now}
	case share >= c.Little:
		a.hungry = now
	case a.yields && now.Sub(a.hungry) >= c.Rest:
		return Appetite{}
	}
	return a
}

// Yields reports whether it makes way, and since when.
func (a Appetite) Yields() (since time.Time, yields bool) { return a.since, a.yields }
