package rescue

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/keepout-security/keepout/internal/recovery/settings"
)

func makeBundle(config settings.Config, e Evidence) (Bundle, error) {
	text, err := json.Marshal(map[string]any{"machine": config.Machine, "state": e.State, "panic": e.Panics.Text})
	sum := sha256.Sum256(text)
	return Bundle{Sent: text, Digest: hex.EncodeToString(sum[:])}, err
}
