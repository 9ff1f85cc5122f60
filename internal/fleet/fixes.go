package fleet

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// FixKeys is the folder below the state directory with the public keys that fixes are verified by: organisation.pem,
// and PROVIDER.pem for each vendor that may sign for its own. Machines verify by their own copies; this keeps out what
// no machine would take.
const FixKeys = "fix-keys"

const (
	organisation = "organisation"
	maxKeyFile   = 64 << 10
	maxKeyFiles  = 256
	fixSigners   = 2
)

// verifiedFix is a fix with the keys that have signed it.
type verifiedFix struct {
	remediation.Fix

	signers  []string
	signedBy []sign.KeyID
	need     int // signatures
}

// fixKeys reads the keys anew each time: they are few, and a key that was taken away must not count any more.
func (s *Server) fixKeys() (map[string][]ed25519.PublicKey, error) {
	dir := filepath.Join(s.cfg.StateDir, FixKeys)
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("keys of fixes: %w", err)
	}
	keys := map[string][]ed25519.PublicKey{}
	for _, e := range entries[:min(len(entries), maxKeyFiles)] {
		name, isPEM := strings.CutSuffix(e.Name(), ".pem")
		if !isPEM || !e.Type().IsRegular() {
			continue
		}
		if keys[name], err = readKeys(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, refusal(connect.CodeFailedPrecondition, codeFixKeys,
			"put organisation.pem with the public keys into "+FixKeys+" of the control plane's folder",
			"the control plane knows no key that fixes are verified by")
	}
	return keys, nil
}

func readKeys(path string) (keys []ed25519.PublicKey, err error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxKeyFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	if err != nil {
		return nil, fmt.Errorf("keys of fixes: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keys of fixes: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := parsed.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("keys of fixes: %s holds something else than Ed25519 public keys", path)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// verify finds whose fix it is by who signed it, before it reads what it says.
func (s *Server) verify(sealed []byte) (*verifiedFix, error) {
	if len(sealed) > remediation.MaxEnvelope {
		return nil, invalid("a fix has at most %d bytes", remediation.MaxEnvelope)
	}
	keys, err := s.fixKeys()
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(keys))
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(b2i(b == organisation), b2i(a == organisation))
	})
	why := error(nil)
	for _, name := range names {
		payload, signers, err := sign.Open(keys[name], 1, remediation.PayloadType, sealed)
		if err != nil {
			why = cmp.Or(why, err)
			continue
		}
		f, err := remediation.Decode(payload)
		if err != nil {
			return nil, invalid("signed, but no fix that this version understands: %v", err)
		}
		if want := cmp.Or(f.Vendor, organisation); want != name {
			continue
		}
		out := &verifiedFix{Fix: f, need: 1, signedBy: signers}
		if f.Vendor == "" && f.Kind != remediation.Revocation {
			out.need = fixSigners
		}
		for _, id := range signers {
			out.signers = append(out.signers, string(id))
		}
		return out, nil
	}
	return nil, refusal(connect.CodePermissionDenied, codeFixKeys, "sign it with a key that the control plane knows",
		"nobody whose signature counts has signed this fix")
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// candidate is a fix that may help a machine, and how surely.
type candidate struct {
	record store.Remediation
	fix    remediation.Fix
	fit    int
}

// fixFor chooses the fix that a machine gets, or nil. Where several may fit they take turns from attempt to attempt:
// only the machine knows all of its versions, and which fixes it has taken.
func (s *Server) fixFor(ctx context.Context, q *protocol.FixRequest, b *store.Bundle) ([]byte, error) {
	var list []candidate
	var chosen []byte
	err := s.store.Update(ctx, func(tx store.Tx) error {
		all, err := tx.Remediations(store.FixActive, store.Page)
		if err != nil {
			return err
		}
		for i := range all {
			f, err := decodeFix(all[i].Envelope)
			if err != nil {
				continue // a later version's: this one cannot match it
			}
			if fit := s.fits(&f, q, b); fit > 0 {
				list = append(list, candidate{all[i], f, fit})
			}
		}
		if len(list) == 0 {
			return nil
		}
		slices.SortStableFunc(list, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.fit, a.fit), cmp.Compare(b.fix.Sequence, a.fix.Sequence))
		})
		c := &list[max(q.Attempt-1, 0)%len(list)]
		c.record.Served++
		chosen = c.record.Envelope
		return tx.PutRemediation(&c.record)
	})
	return chosen, err
}

// How surely a fix fits: the answer to this very bundle, to this failure, to the suspect, or to a provider.
const (
	fitsProvider = 1 + iota
	fitsSuspect
	fitsSignature
	fitsBundle
)

// fits says how surely a fix is for a machine, 0 for not at all.
func (s *Server) fits(f *remediation.Fix, q *protocol.FixRequest, b *store.Bundle) int {
	now, symptom := s.clock(), f.Symptom
	switch {
	case f.Test != q.Test || !now.Before(f.Expires) || f.Kind == remediation.Revocation:
		return 0
	case len(f.Machines.IDs) > 0 && !slices.Contains(f.Machines.IDs, q.Machine):
		return 0
	case f.Kind == remediation.Targeted:
		if f.Bundle != q.Digest {
			return 0
		}
		return fitsBundle
	case symptom.Signature != "" && symptom.Signature != b.Signature:
		return 0
	case symptom.Provider != "" && !s.hasProvider(q.Machine, symptom.Provider):
		return 0
	case symptom.Signature != "":
		return fitsSignature
	case symptom.Provider == q.Suspect:
		return fitsSuspect
	default:
		return fitsProvider
	}
}

// decodeFix reads a fix that was verified when it was stored.
func decodeFix(sealed []byte) (remediation.Fix, error) {
	_, payload, err := sign.Peek(sealed)
	if err != nil {
		return remediation.Fix{}, err
	}
	return remediation.Decode(payload)
}
