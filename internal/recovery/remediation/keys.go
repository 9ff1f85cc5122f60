package remediation

import (
	"crypto/ed25519"
	"slices"

	"github.com/keepout-security/keepout/internal/sign"
)

// without is the trust that is left when keys are taken back.
func (t Trust) without(revoked []string) Trust {
	if len(revoked) == 0 {
		return t
	}
	left := func(r sign.Role) sign.Role {
		r.Keys = slices.DeleteFunc(slices.Clone(r.Keys), func(k ed25519.PublicKey) bool {
			return slices.Contains(revoked, string(sign.IDOf(k)))
		})
		return r
	}
	out := Trust{Organisation: left(t.Organisation), Vendors: map[string]sign.Role{}}
	for id, r := range t.Vendors {
		out.Vendors[id] = left(r)
	}
	return out
}

// MayRevoke reports whether those who signed a revocation may take back the keys that it names: two of the organisation
// may take back any, one its own only. Otherwise whoever has stolen one key could take back all others. Fixes are not
// its matter: one key is enough for them.
func (f *Fix) MayRevoke(signers []sign.KeyID) error {
	if len(signers) >= minimumSigners {
		return nil
	}
	for _, id := range f.RevokesKeys {
		if !slices.Contains(signers, sign.KeyID(id)) {
			return refuse(CodeOverreach, "have it approved by a second key: keepout remediation approve",
				"one key takes back the key %s, and may take back only itself", sign.KeyID(id).Short())
		}
	}
	return nil
}

// united is a list with what another one has beyond it, in that order.
func united(list, more []string) []string {
	out := slices.Clone(list)
	for _, id := range more {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
