package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

// selftest is the object that is denied whatever the lists say, so that "keepout doctor" can see that votes arrive.
//
//go:embed selftest.txt
var selftest []byte

const (
	// chunk is what one read takes, in bytes, and the size up to which a file is hashed without asking
	// whether the vote is still wanted: making the event's context costs more than hashing so little.
	chunk = 256 << 10

	// workers allows one large file a processor while small ones pass it.
	workers = 4
)

// lists are what one load read; they are replaced as one and never changed.
type lists struct {
	deny, allow *list
	denyMiss    bool // on_miss: deny

	use    sync.RWMutex // held shared by votes, so that close waits for them
	closed bool
}

// judge answers events from the lists in force.
type judge struct {
	selftest [sha256.Size]byte // digest of the object that is always denied
	inForce  atomic.Pointer[lists]
	buffers  sync.Pool // of *[chunk]byte
}

func newEngine() provider.Engine {
	j := &judge{selftest: sha256.Sum256(selftest)}
	return provider.Engine{
		Name:    "hashlist",
		Version: version,
		Subscription: provider.Subscription{
			Events:  []event.Type{event.Open, event.Exec},
			MinSize: 1, // whoever creates a file opens an empty one, and there is nothing to judge
			Content: true,
			Digest:  true,
			AnyType: true,
		},
		Load:    j.load,
		Vote:    j.vote,
		Workers: workers,
	}
}

// load reads the lists and puts them in force. After an error the lists in force stay.
func (j *judge) load(ctx context.Context, s provider.Settings) (string, error) {
	next := &lists{}
	switch miss := s.Values["on_miss"]; miss {
	case "", "allow":
	case "deny":
		next.denyMiss = true
	default:
		return "", fmt.Errorf("on_miss is %q: want allow or deny", miss)
	}
	var digest string
	var err error
	next.deny, next.allow, digest, err = readLists(ctx, s.Content)
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("deny %d, allow %d, %s", next.deny.len(), next.allow.len(), digest)
	if old := j.inForce.Swap(next); old != nil { // from here on the next load may close these, too
		old.close()
	}
	return what, nil
}

// vote answers one event.
func (j *judge) vote(ev *provider.Event) provider.Vote {
	in := j.acquire()
	if in == nil {
		return provider.Abstain()
	}
	anything := in.deny.len() == 0 && !in.denyMiss
	in.use.RUnlock() // a reload need not wait for a large file
	if anything && ev.File.Size != int64(len(selftest)) {
		return provider.Allow() // no digest would change the answer
	}
	sum, err := j.digest(ev)
	if err != nil {
		return provider.Abstain() // unreadable, or not wanted any more: no opinion
	}
	if sum == j.selftest {
		return provider.Deny(event.SelftestRule)
	}
	in = j.acquire()
	defer in.use.RUnlock()
	return in.judge(&sum)
}

// acquire returns the lists in force, held for a vote, or nil.
func (j *judge) acquire() *lists {
	for {
		in := j.inForce.Load()
		if in == nil {
			return nil
		}
		in.use.RLock()
		if !in.closed {
			return in
		}
		in.use.RUnlock() // replaced between the two lines above
	}
}

// close frees the lists after the last vote.
func (in *lists) close() {
	in.use.Lock()
	defer in.use.Unlock()
	in.closed = true
	in.deny.close()
	in.allow.close()
}

// judge decides on a digest: the deny list wins over the allow list.
func (in *lists) judge(sum *[sha256.Size]byte) provider.Vote {
	if name, found := in.deny.find(sum); found {
		if name == "" {
			name = "sha256:" + hex.EncodeToString(sum[:6])
		}
		return provider.Deny(name)
	}
	if _, found := in.allow.find(sum); !found && in.denyMiss {
		return provider.Deny("not on the allow list")
	}
	return provider.Allow()
}

// digest returns the digest of the event's object, which it computes where the platform has not.
func (j *judge) digest(ev *provider.Event) (sum [sha256.Size]byte, err error) {
	if known, err := hex.DecodeString(ev.File.SHA256); err == nil && len(known) == len(sum) {
		return [sha256.Size]byte(known), nil
	}
	content, err := ev.Content()
	if err != nil {
		return sum, fmt.Errorf("open content: %w", err)
	}
	buf, ok := j.buffers.Get().(*[chunk]byte)
	if !ok {
		buf = new([chunk]byte)
	}
	defer j.buffers.Put(buf)
	size := max(content.Size(), 0)
	n, err := io.ReadFull(content, buf[:min(size, chunk)])
	switch {
	case ended(err): // the file was cut since the event, and what is left is what will be read
		return sha256.Sum256(buf[:n]), nil
	case err != nil:
		return sum, fmt.Errorf("read content: %w", err)
	case size <= chunk:
		return sha256.Sum256(buf[:n]), nil
	}
	return hashRest(ev.Context(), content, buf)
}

// hashRest hashes a large file, of which buf holds the first chunk.
func hashRest(ctx context.Context, rest io.Reader, buf *[chunk]byte) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for n := chunk; n > 0; {
		h.Write(buf[:n])
		if err := ctx.Err(); err != nil {
			return sum, fmt.Errorf("hash content: %w", err)
		}
		n, err = io.ReadFull(rest, buf[:])
		if err != nil && !ended(err) {
			return sum, fmt.Errorf("read content: %w", err)
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
