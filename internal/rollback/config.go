package rollback

import "time"

// Config holds every number of a promotion, a rollback and a quarantine. Durations are of time that the platform
// ran: what passes while it is down or suspended does not count (see Gap).
type Config struct {
	Samples    uint64        // events that active and candidate both judged, before their agreement means something
	Delta      float64       // the part of them, 0 to 1, on as many objects of which they may differ
	Few        uint64        // objects on which they may always differ: a new signature is there to make a difference
	TrialMin   time.Duration // no promotion before that, however many events there were
	TrialIdle  time.Duration // on an idle host, agreement over this time is enough, with however few events
	TrialLimit time.Duration // a candidate that is not ready by then is refused
	Attempts   int           // trials that may end with the platform itself (crash, power cut) before it is refused
	Settle     time.Duration // between two changes of one provider, so that trouble has one suspect

	Soak       time.Duration // of serving without crash or breaker, after which the active version is last-known-good
	Superseded time.Duration // of the same, enough when a newer version takes over: content is replaced hourly

	Crashes     int           // this many
	CrashWindow time.Duration // within this time roll back
	BreakerHold time.Duration // a breaker open for this long rolls back

	QuarantineFirst time.Duration // before the first new attempt, when there is nothing to roll back
	QuarantineMax   time.Duration // the wait doubles up to this
	Calm            time.Duration // of serving without trouble, after which the wait starts small again

	Gap       time.Duration // the most that may pass between two inputs; a longer gap counts as this
	KeepEvery time.Duration // the soak's progress is kept on disk this often
	History   int           // entries kept
	Refusals  int           // refused digests remembered for each part; beyond, the oldest is forgotten
}

// Defaults are the documented numbers; docs/decisions/0006-store.md says why.
func Defaults() Config {
	return Config{
		Samples: 1000, Delta: 0.005, Few: 3,
		TrialMin: time.Minute, TrialIdle: 30 * time.Minute, TrialLimit: 2 * time.Hour,
		Attempts: 3, Settle: 10 * time.Minute,
		Soak: 24 * time.Hour, Superseded: time.Hour,
		Crashes: 3, CrashWindow: 10 * time.Minute, BreakerHold: 10 * time.Second,
		QuarantineFirst: time.Minute, QuarantineMax: time.Hour, Calm: time.Hour,
		Gap: time.Minute, KeepEvery: 10 * time.Minute, History: 32, Refusals: 64,
	}
}
