package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"strings"
)

// Beginnings of tokens, so that a scanner for leaked secrets can find them.
const (
	enrolPrefix  = "ko1."
	accessPrefix = "koa1."
)

// lower is base32 without padding, in lower case: it survives being read out loud.
var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID makes a random name with a prefix, for what is named once: 80 bits.
func NewID(prefix string) string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the process instead
	return prefix + lower.EncodeToString(b[:])
}

// newSecret makes 160 random bits as text.
func newSecret() string {
	var b [20]byte
	_, _ = rand.Read(b[:])
	return lower.EncodeToString(b[:])
}

// HashOf is what is kept of a token's secret. The secret is random, so it needs no salt and no slow hash.
func HashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// NewEnrolToken makes the text of a token, which carries the root's fingerprint, and the hash to keep.
func NewEnrolToken(fingerprint string) (text, hash string) {
	secret := newSecret()
	return enrolPrefix + secret + "." + fingerprint, HashOf(secret)
}

// ParseEnrolToken takes a token apart.
func ParseEnrolToken(text string) (hash, fingerprint string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), enrolPrefix)
	secret, fingerprint, ok2 := strings.Cut(rest, ".")
	raw, err := lower.DecodeString(secret)
	sum, err2 := hex.DecodeString(fingerprint)
	if !ok || !ok2 || err != nil || err2 != nil || len(raw) != 20 || len(sum) != sha256.Size {
		return "", "", errors.New("this is no enrolment token: it begins with " + enrolPrefix +
			" and is printed by keepout fleet enroll")
	}
	return HashOf(secret), fingerprint, nil
}

// NewAccessToken makes the text of a person's token, and the hash to keep.
func NewAccessToken() (text, hash string) {
	text = accessPrefix + newSecret()
	return text, HashOf(text)
}
