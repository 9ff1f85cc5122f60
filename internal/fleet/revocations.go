package fleet

import (
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
)

// revocationsAge is how long what is in force is taken from memory: at each check-in it is asked for.
const revocationsAge = 10 * time.Second

// revocations is what hosts and recovery environments are told to have been taken back. It is safe for concurrent use.
type revocations struct {
	mu   sync.Mutex
	read time.Time // when list was read; zero: not yet, or not any more
	list [][]byte
	mark uint64 // says which list that is; 0 for an empty one
}

// forget has the next one read them anew.
func (r *revocations) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = time.Time{}
}

// inForce are the newest signed revocations and their mark. Machines remember what they saw, so that a fix which was
// taken back is refused also when somebody else serves it.
func (s *Server) inForce(ctx context.Context) (list [][]byte, mark uint64, err error) {
	r := &s.revocations
	r.mu.Lock()
	defer r.mu.Unlock()
	now := s.clock()
	if age := now.Sub(r.read); age < 0 || age >= revocationsAge {
		if r.list, err = s.signedRevocations(ctx, now); err != nil {
			return nil, 0, err
		}
		r.read, r.mark = now, markOf(r.list)
	}
	return r.list, r.mark, nil
}

func markOf(list [][]byte) uint64 {
	if len(list) == 0 {
		return 0
	}
	h := fnv.New64a()
	for _, sealed := range list {
		_, _ = h.Write(sealed) // a hash never fails
	}
	return h.Sum64() | 1
}

func (s *Server) signedRevocations(ctx context.Context, now time.Time) (out [][]byte, err error) {
	err = s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Remediations(store.FixActive, store.Page)
		if err != nil {
			return err
		}
		slices.SortStableFunc(all, func(a, b store.Remediation) int { return b.Created.Compare(a.Created) })
		for i := range all {
			f, err := decodeFix(all[i].Envelope)
			if err == nil && f.Kind == remediation.Revocation && now.Before(f.Expires) &&
				len(out) < protocol.MaxRevocations && len(all[i].Envelope) <= protocol.MaxRevocation {
				out = append(out, all[i].Envelope)
			}
		}
		return nil
	})
	return out, err
}

// tellRevocations puts into an answer what a host has not heard of yet.
func (s *Server) tellRevocations(ctx context.Context, m *fleetpb.CheckInRequest, out *fleetpb.CheckInResponse) error {
	list, mark, err := s.inForce(ctx)
	if err != nil {
		return err
	}
	if out.RevocationsMark = mark; mark != m.GetRevocationsMark() {
		out.Revocations = list
	}
	return nil
}
