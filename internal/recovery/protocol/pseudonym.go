package protocol

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Pseudonym is the name under which a machine reports, in its recovery environment and out of it: 32 hexadecimal
// digits, always the same for one machine id, from which the id cannot be found. The id itself must not leave the
// machine (machine-id(5)).
func Pseudonym(machineID string) string {
	mac := hmac.New(sha256.New, []byte(strings.TrimSpace(machineID)))
	mac.Write([]byte("keepout diagnostics 1"))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
