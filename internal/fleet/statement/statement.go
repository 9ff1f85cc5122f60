// Package statement is what the director signs: grants and times.
//
// It guarantees that nothing of a statement is looked at before its signature was verified.
package statement

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
	"github.com/keepout-security/keepout/internal/sign"
)

// The types under which they are sealed.
const (
	GrantType = "application/vnd.keepout.grant.v1+json"
	TimeType  = "application/vnd.keepout.time.v1+json"
)

// Time is the server's time, for the nonce of one request.
type Time struct {
	Nonce []byte    `json:"nonce"`
	Now   time.Time `json:"now"`
}

// SealGrant signs a grant.
func SealGrant(key ed25519.PrivateKey, g *rollout.Grant) ([]byte, error) {
	return seal(key, GrantType, g)
}

// SealTime signs a time.
func SealTime(key ed25519.PrivateKey, t *Time) ([]byte, error) { return seal(key, TimeType, t) }

func seal(key ed25519.PrivateKey, kind string, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sign.Seal([]ed25519.PrivateKey{key}, kind, payload)
}

// OpenGrant verifies a grant. Whether it is for this host, digest and nonce, and still good, is for the caller to say.
func OpenGrant(key ed25519.PublicKey, sealed []byte) (g rollout.Grant, err error) {
	err = open(key, GrantType, sealed, &g)
	return g, err
}

// OpenTime verifies a time. Whether the nonce is the one that was sent is for the caller to say.
func OpenTime(key ed25519.PublicKey, sealed []byte) (t Time, err error) {
	err = open(key, TimeType, sealed, &t)
	return t, err
}

func open(key ed25519.PublicKey, kind string, sealed []byte, v any) error {
	payload, _, err := sign.Open([]ed25519.PublicKey{key}, 1, kind, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("the director's statement: %w", err)
	}
	return nil
}
