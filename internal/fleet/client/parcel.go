package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// maxRefusal bounds what is read of a refusal, in bytes.
const maxRefusal = 1 << 10

// ErrRefused is part of the error for a bundle that the server will never take as it is.
var ErrRefused = errors.New("to send it again is in vain")

// SendParcel uploads one sealed diagnostics bundle, as internal/recovery/diagnostics.Seal made it, of at most
// protocol.MaxBundle bytes. It may be sent again: the same bundle is kept once. After nil the server has it on its
// disk, and the outbox may forget it.
func (h *Host) SendParcel(ctx context.Context, parcel []byte) error {
	if len(parcel) > protocol.MaxBundle {
		return fmt.Errorf("send the diagnostics: %d bytes, at most %d", len(parcel), protocol.MaxBundle)
	}
	where := strings.TrimSuffix(h.server, "/") + protocol.BundlePath
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, bytes.NewReader(parcel))
	if err != nil {
		return fmt.Errorf("send the diagnostics: %w", err)
	}
	req.Header.Set("Content-Type", protocol.BundleType)
	res, err := h.http.Do(req)
	if err != nil {
		return fmt.Errorf("send the diagnostics: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 == 2 {
		return nil
	}
	if res.StatusCode/100 == 4 {
		err = ErrRefused
	}
	why, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal)) // what came of it says enough
	return errors.Join(fmt.Errorf("send the diagnostics: the server answers %s: %.200q", res.Status, why), err)
}
