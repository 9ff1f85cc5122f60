package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
)

// KeyID names a public key: the SHA-256 of its TUF description, 64 hexadecimal digits. It is a hint for people and
// for finding a key; what counts is the key.
type KeyID string

// Short is the beginning of a key's id, enough for people to compare by eye. It proves nothing.
func (id KeyID) Short() string { return string(id[:min(len(id), 12)]) }

// IDOf returns the id of an Ed25519 public key, as other TUF software computes it.
func IDOf(key ed25519.PublicKey) KeyID {
	sum := sha256.Sum256([]byte(`{"keytype":"ed25519","keyval":{"public":"` + hex.EncodeToString(key) +
		`"},"scheme":"ed25519"}`))
	return KeyID(hex.EncodeToString(sum[:]))
}

// Role is who may make a statement: so many of these keys must sign. The zero value is nobody: nothing opens for it.
type Role struct {
	Keys      []ed25519.PublicKey
	Threshold int // at least 1
}

// signedBy returns the distinct keys of the role with a valid signature over message. Keys are told apart by their
// bytes: one key under two names counts once.
func (r Role) signedBy(message []byte, signatures []signature) (signers []KeyID) {
	seen := map[string]bool{}
	for _, key := range r.Keys {
		if len(key) != ed25519.PublicKeySize || seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		id := IDOf(key)
		for _, s := range signatures {
			if s.keyID == id && ed25519.Verify(key, message, s.bytes) {
				signers = append(signers, id)
				break
			}
		}
	}
	return signers
}

// enough reports whether so many signers are what the role demands. A role without keys or with a threshold below 1
// is never satisfied.
func (r Role) enough(signers []KeyID) bool {
	return r.Threshold >= 1 && len(signers) >= r.Threshold
}

// signature is one signature, its key's claimed id beside it.
type signature struct {
	keyID KeyID
	bytes []byte
}
