package guard

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const testLimit = time.Second

// play samples a core every tenth of the limit and returns when it was given up, or 0.
func play(look func(at time.Duration) sample, until time.Duration) (at time.Duration, v verdict) {
	var w watch
	for at := time.Duration(0); at <= until; at += testLimit / samplesPerLimit {
		if w, v = w.step(testLimit, at, look(at)); v == stalled {
			return at, v
		}
	}
	return 0, v
}

func TestWatch(t *testing.T) {
	t.Parallel()
	ticks := func(at time.Duration) uint64 { return uint64(at / (5 * time.Millisecond)) }
	tests := map[string]struct {
		look func(at time.Duration) sample
		want verdict
	}{
		"nobody waits":  {func(time.Duration) sample { return sample{} }, idle},
		"a slow engine": {func(at time.Duration) sample { return sample{taken: 1, beat: ticks(at)} }, fine},
		"a busy one": {func(at time.Duration) sample {
			return sample{queued: true, taken: 1 + ticks(at), answered: ticks(at)}
		}, fine},
		"nobody reads":         {func(time.Duration) sample { return sample{queued: true} }, stalled},
		"nobody answers":       {func(time.Duration) sample { return sample{taken: 1} }, stalled},
		"reads but no answers": {func(at time.Duration) sample { return sample{taken: 1 + ticks(at)} }, stalled},
		"answers but no reads": {func(at time.Duration) sample {
			return sample{queued: true, taken: 9, answered: ticks(at), beat: ticks(at)}
		}, stalled},
		"beats but no reads":    {func(at time.Duration) sample { return sample{queued: true, beat: ticks(at)} }, stalled},
		"holds leases":          {func(at time.Duration) sample { return sample{held: true, beat: ticks(at)} }, fine},
		"leaves leases alone":   {func(time.Duration) sample { return sample{held: true} }, stalled},
		"stopped, nobody waits": {func(time.Duration) sample { return sample{stopped: true} }, stalled},
		"stopped":               {func(time.Duration) sample { return sample{queued: true, stopped: true} }, stalled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, v := play(tt.look, 10*testLimit)
			if v != tt.want || at >= testLimit {
				t.Errorf("verdict %d at %v, want %d", v, at, tt.want)
			}
		})
	}
}

// TestWatchIsInTime: whenever a core stops making progress, an event that arrives from then on waits less than the
// limit; and one that makes progress in every interval is never given up.
func TestWatchIsInTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dies := time.Duration(rapid.Int64Range(0, int64(10*testLimit)).Draw(t, "dies"))
		lives := rapid.Bool().Draw(t, "lives")
		var s sample
		at, v := play(func(at time.Duration) sample {
			if lives || at < dies {
				n := rapid.Uint64Range(1, 9).Draw(t, "n")
				s.taken, s.beat = s.taken+n, s.beat+1
				s.answered += rapid.Uint64Range(0, s.taken-s.answered).Draw(t, "answered")
				s.queued = rapid.Bool().Draw(t, "queued")
				return s
			}
			s.queued = true // whoever comes now
			return s
		}, 12*testLimit)
		if lives && v == stalled {
			t.Fatalf("given up at %v", at)
		}
		if !lives && (v != stalled || at-dies > testLimit*9/10) {
			t.Fatalf("verdict %d at %v, core died at %v", v, at, dies)
		}
	})
}

// TestWatchKnowsItsOwnAbsence: the time in which the guard did not run either does not count.
func TestWatchKnowsItsOwnAbsence(t *testing.T) {
	t.Parallel()
	const interval = testLimit / samplesPerLimit
	var w watch
	var v verdict
	owing := sample{taken: 1}
	at := time.Duration(0)
	for _, gap := range []time.Duration{interval, interval, time.Hour, interval} {
		at += gap
		if w, v = w.step(testLimit, at, owing); v != fine {
			t.Fatalf("given up at %v", at)
		}
	}
	for start := at; v == fine; {
		at += 2 * interval // late, but awake
		if w, v = w.step(testLimit, at, owing); at-start > testLimit {
			t.Fatal("never given up")
		}
	}
}
