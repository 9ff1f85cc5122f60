package rescue

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/settings"
)

// bundler makes diagnostics bundles as the image's settings say.
type bundler struct {
	config     settings.Config
	recipients []age.Recipient
}

// newBundler reads the organisation's key, where there is one.
func newBundler(config settings.Config, root string) (*bundler, error) {
	b := &bundler{config: config}
	text, err := os.ReadFile(filepath.Join(root, settings.RecipientsFile))
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		b.recipients, err = diagnostics.ParseRecipients(text)
	}
	return b, err
}

func (b *bundler) make(e Evidence) (Bundle, error) {
	level, err := diagnostics.ParseLevel(b.config.Diagnostics)
	if err != nil {
		return Bundle{}, err
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails (crypto/rand); it may wait, which the plan bounds
	in := diagnostics.Input{
		Machine: b.config.Machine, Test: e.Test, Now: e.Now, Nonce: nonce, PanicLog: []byte(e.Panics.Text),
		Versions: diagnostics.Versions{Recovery: b.config.Built.UTC().Format("2006-01-02"), Kernel: b.config.Kernel},
		Failure: diagnostics.Failure{
			Attempts: e.State.Failures, Visits: e.State.Recoveries, Starting: e.Crumb.Provider, Cause: e.Panics.Cause,
		},
	}
	if e.Crumb.Provider != "" {
		in.Providers = []diagnostics.Provider{{
			ID: e.Crumb.Provider, State: "starting",
			Engine: diagnostics.Slots{Active: e.Crumb.Engine}, Content: diagnostics.Slots{Active: e.Crumb.Content},
		}}
		if e.Crumb.Ready {
			in.Providers[0].State = "ready"
		} else {
			in.Failure.Suspect, in.Failure.Reason = e.Crumb.Provider, "it was being started when the machine stopped"
		}
	}
	for _, h := range e.State.History {
		in.Starts = append(in.Starts, diagnostics.Start{At: h.At, What: h.What, Mode: string(h.Mode), Why: h.Why})
	}
	made, encoded, err := diagnostics.Make(&in, level)
	if errors.Is(err, diagnostics.ErrOff) {
		// The question for a fix names a visit all the same; this number says nothing about it.
		return Bundle{Off: true, Digest: diagnostics.Digest(nonce)}, nil
	}
	if err != nil {
		return Bundle{}, err
	}
	out := Bundle{Kept: encoded, Digest: diagnostics.Digest(encoded), Signature: made.Signature.ID}
	if len(b.recipients) == 0 {
		return out, nil // it stays here: nobody could be sure who reads it on the way
	}
	if out.Sent, err = diagnostics.Seal(encoded, b.recipients); err != nil {
		return out, fmt.Errorf("seal the diagnostics: %w", err)
	}
	out.Kept = out.Sent
	return out, nil
}
