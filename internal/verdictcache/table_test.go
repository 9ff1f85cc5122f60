package verdictcache

import (
	"strconv"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/event"
)

var (
	allow = event.Vote{Action: event.Allow, Confidence: event.Certain, Content: "7"}
	deny  = event.Vote{Action: event.Deny, Confidence: event.Certain, Rule: "eicar", Content: "7"}
)

func question(n int) *Question {
	return &Question{Type: event.Open, Version: event.Version{Dev: 1, Ino: uint64(n), Size: 4}, Path: "/srv/f"}
}

// A question that differs in anything is another one.
func TestKeys(t *testing.T) {
	t.Parallel()
	seeds := NewSeeds()
	seen := map[Key]string{}
	for name, change := range map[string]func(q *Question){
		"same":    func(*Question) {},
		"type":    func(q *Question) { q.Type = event.Exec },
		"device":  func(q *Question) { q.Version.Dev++ },
		"handle":  func(q *Question) { q.Version.Handle = "x" },
		"size":    func(q *Question) { q.Version.Size++ },
		"mtime":   func(q *Question) { q.Version.MtimeNS++ },
		"ctime":   func(q *Question) { q.Version.CtimeNS++ },
		"path":    func(q *Question) { q.Path = "/srv/g" },
		"no path": func(q *Question) { q.Path, q.Unsure = "", true },
		"unsure":  func(q *Question) { q.Unsure = true },
	} {
		q := question(1)
		change(q)
		k := seeds.Key(q)
		if other, taken := seen[k]; taken {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[k] = name
		if again := seeds.Key(q); again != k {
			t.Errorf("%s has two keys", name)
		}
	}
}

// The table never gives back anything but the last vote that was put in under the key in the current epoch, and that
// only while it lives. Forgetting is always allowed.
func TestTableAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type remembered struct {
			vote  event.Vote
			until time.Time
		}
		table, seeds, model := New(), NewSeeds(), map[int]remembered{}
		now, stale := time.Now(), table.Epoch()
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			n := rapid.IntRange(0, 5).Draw(t, "object")
			k := seeds.Key(question(n))
			switch rapid.IntRange(0, 5).Draw(t, "act") {
			case 0:
				table.Flush()
				clear(model)
			case 1:
				stale = table.Epoch()
			case 2: // a vote on a question that may have been asked before a flush
				table.Put(k, deny, stale, now, 0)
				if stale == table.Epoch() {
					model[n] = remembered{vote: deny}
				}
			case 3:
				v := rapid.SampledFrom([]event.Vote{allow, deny, {Action: event.Allow}}).Draw(t, "vote")
				life := time.Duration(rapid.IntRange(0, 30).Draw(t, "life")) * time.Second
				table.Put(k, v, table.Epoch(), now, life)
				model[n] = remembered{vote: v}
				if life > 0 {
					model[n] = remembered{vote: v, until: now.Add(life)}
				}
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			case 5:
				got, ok := table.Get(k, now)
				want, known := model[n]
				if ok && (!known || got != want.vote || !want.until.IsZero() && !now.Before(want.until)) {
					t.Fatalf("object %d: got %+v, remembered %+v (%v)", n, got, want, known)
				}
				if known && !ok && (want.until.IsZero() || now.Add(time.Second).Before(want.until)) {
					t.Fatalf("object %d: forgotten %+v", n, want)
				}
			}
		}
	})
}

// However much is put in, the table does not grow, and nearly all of 200,000 objects find a place.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(entry{}); size > 32 {
		t.Errorf("a vote takes %d bytes, want at most 32", size)
	}
	table, seeds, now := New(), NewSeeds(), time.Now()
	const objects = 200_000
	for n := range objects {
		table.Put(seeds.Key(question(n)), allow, table.Epoch(), now, 0)
	}
	found := 0
	for n := range objects {
		if _, ok := table.Get(seeds.Key(question(n)), now); ok {
			found++
		}
	}
	if found < objects*9/10 {
		t.Errorf("%d of %d objects are remembered", found, objects)
	}
	for n := range maxKept + 10 {
		v := deny
		v.Rule = strconv.Itoa(n)
		table.Put(seeds.Key(question(n)), v, table.Epoch(), now, 0)
	}
	if len(table.votes) > maxKept {
		t.Errorf("%d different votes are kept", len(table.votes))
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	table, seeds, now := New(), NewSeeds(), time.Now()
	q := question(1)
	table.Put(seeds.Key(q), allow, table.Epoch(), now, 0)
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := table.Get(seeds.Key(q), now); !ok {
			t.Fatal("forgotten")
		}
		table.Put(seeds.Key(q), allow, table.Epoch(), now, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	table, seeds, now := New(), NewSeeds(), time.Now()
	q := question(1)
	table.Put(seeds.Key(q), allow, table.Epoch(), now, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := table.Get(seeds.Key(q), now); !ok {
			b.Fatal("forgotten")
		}
	}
}
