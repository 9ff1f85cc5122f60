package fetch

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// revoke stages what was taken back, for bootguard, which verifies it and remembers it for good where the next start
// looks. It is on the disk before the control plane is told so: the host may never come up again.
func (f *fetcher) revoke(out *fleetpb.CheckInResponse) error {
	mark := out.GetRevocationsMark()
	if mark == f.revoked {
		return nil
	}
	text, err := protocol.EncodeRevocations(out.GetRevocations())
	if err != nil {
		return err
	}
	path := filepath.Join(f.o.Staging, protocol.RevocationsFile)
	if had, err := os.ReadFile(path); err != nil || !bytes.Equal(had, text) { // a write starts bootguard
		if err := durable.WriteFile(path, text, 0o640); err != nil {
			return fmt.Errorf("stage the revocations: %w", err)
		}
		f.o.Log.Info("revocations of fixes are staged", slog.Int("count", len(out.GetRevocations())))
	}
	f.revoked = mark
	return nil
}
