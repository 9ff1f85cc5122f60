package audit

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func chainOf(n int) (entries []Entry) {
	var last Entry
	for i := range n {
		last = Next(last, Entry{
			At: time.Unix(int64(i), 123_456_789), Actor: "ann", Action: "rollout.pause", Subject: "r1", Detail: `{"n":1}`,
		})
		entries = append(entries, last)
	}
	return entries
}

func check(entries []Entry) (*Chain, error) {
	var c Chain
	for _, e := range entries {
		if err := c.Check(e); err != nil {
			return &c, err
		}
	}
	return &c, nil
}

func TestChain(t *testing.T) {
	t.Parallel()
	entries := chainOf(5)
	c, err := check(entries)
	if err != nil {
		t.Fatal(err)
	}
	if seq, head := c.Head(); seq != 5 || head != entries[4].Hash {
		t.Errorf("head %d %s", seq, head)
	}
	if seq, head := new(Chain).Head(); seq != 0 || head != Zero {
		t.Errorf("empty: %d %s", seq, head)
	}
}

// TestTamperingIsFound: whatever is changed, removed, added or moved in the middle of a trail is found at its place.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 12).Draw(t, "entries")
		entries := chainOf(n)
		i := rapid.IntRange(0, n-2).Draw(t, "place")
		switch rapid.SampledFrom([]string{"change", "remove", "repeat", "swap", "forge"}).Draw(t, "tampering") {
		case "change":
			field := rapid.SampledFrom([]func(*Entry){
				func(e *Entry) { e.Actor = "eve" },
				func(e *Entry) { e.Action = "rollout.halt" },
				func(e *Entry) { e.Subject = "r2" },
				func(e *Entry) { e.Detail += " " },
				func(e *Entry) { e.At = e.At.Add(time.Millisecond) },
				func(e *Entry) { e.Actor, e.Action = e.Actor+e.Action[:1], e.Action[1:] },
			}).Draw(t, "field")
			field(&entries[i])
		case "remove":
			entries = append(entries[:i:i], entries[i+1:]...)
		case "repeat":
			entries = append(entries[:i+1:i+1], entries[i:]...)
		case "swap":
			entries[i], entries[i+1] = entries[i+1], entries[i]
		case "forge": // a new hash for a changed entry does not fit the next one
			forged := entries[i]
			forged.Actor = "eve"
			forged.Hash = hash(forged)
			entries[i] = forged
		}
		_, err := check(entries)
		var broken *Broken
		if !errors.As(err, &broken) || broken.Seq <= uint64(i) || broken.Seq > uint64(i)+2 {
			t.Fatalf("at entry %d: %v", i+1, err)
		}
	})
}
