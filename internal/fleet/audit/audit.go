// Package audit is the control plane's trail: every decision, batch of grants and use of a key, each entry bound to
// all before it by a hash.
//
// It guarantees that whoever holds one hash can tell whether any entry up to it was changed, removed, added or moved
// since. It is pure: the store keeps the entries, and calls Next in the transaction that the entry is about.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// Zero is the hash before the first entry.
const Zero = "0000000000000000000000000000000000000000000000000000000000000000"

// Entry is one line of the trail.
type Entry struct {
	Seq     uint64    // from 1, without gaps
	At      time.Time // milliseconds, UTC
	Actor   string    // a person, "host:ID" or "controller"
	Action  string    // for example rollout.halt
	Subject string    // what it was done to
	Detail  string    // JSON
	Prev    string    // hash of the entry before, Zero for the first
	Hash    string    // of all the above, 64 hexadecimal digits
}

// Next gives e its number and its hash, after the entry last; the zero Entry stands for none. Times are cut to
// milliseconds: what is hashed must be what a database gives back.
func Next(last, e Entry) Entry {
	e.Seq, e.Prev = last.Seq+1, last.Hash
	if e.Prev == "" {
		e.Prev = Zero
	}
	e.At = e.At.UTC().Truncate(time.Millisecond)
	e.Hash = hash(e)
	return e
}

// hash covers every field but Hash. Each text comes after its length, so that no two entries have the same bytes.
func hash(e Entry) string {
	h := sha256.New()
	var n [8]byte
	number := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	number(e.Seq)
	number(uint64(e.At.UnixMilli()))
	for _, text := range []string{e.Actor, e.Action, e.Subject, e.Detail, e.Prev} {
		number(uint64(len(text)))
		h.Write([]byte(text))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Chain checks entries one after the other. The zero value begins at the first.
type Chain struct {
	last Entry
}

// Broken says where a trail is not what was written.
type Broken struct {
	Seq  uint64 // of the entry that should have been there
	What string
}

// Error gives the place and what is wrong.
func (b *Broken) Error() string { return fmt.Sprintf("audit entry %d: %s", b.Seq, b.What) }

// Check takes the next entry. After an error the chain stays where it was.
func (c *Chain) Check(e Entry) error {
	want := c.last.Seq + 1
	prev := c.last.Hash
	if prev == "" {
		prev = Zero
	}
	switch {
	case e.Seq != want:
		return &Broken{Seq: want, What: fmt.Sprintf("it is missing; number %d comes next", e.Seq)}
	case e.Prev != prev:
		return &Broken{Seq: want, What: "it does not follow the entry before it"}
	case e.Hash != hash(e):
		return &Broken{Seq: want, What: "it was changed after it was written"}
	}
	c.last = e
	return nil
}

// Head is the number and hash of the last entry that was checked: 0 and Zero before the first.
func (c *Chain) Head() (seq uint64, head string) {
	if c.last.Hash == "" {
		return 0, Zero
	}
	return c.last.Seq, c.last.Hash
}
