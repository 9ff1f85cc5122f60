//go:build linux

package bootguard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// staging is where the host's fetcher leaves what it brought.
const staging = "var/lib/keepout/staging"

// Revoke remembers what the control plane took back since the last time, in Keepout's folder on the ESP or /boot, where
// the recovery environment and the next boot look. It takes nothing back that was applied already.
func (g *Guard) Revoke() error {
	if err := g.open(); err != nil {
		return err
	}
	return g.learn()
}

// learn believes nothing of the staging folder, which is the fetcher's to fill with anything. A machine that never
// heard of a revocation, or that was never armed, has none.
func (g *Guard) learn() error {
	text, err := g.staged()
	if g.Learn == nil || err != nil || text == nil {
		return err
	}
	id, err := os.ReadFile(filepath.Join(g.Root, "etc", "machine-id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tell this machine from others: %w", err)
	}
	if err := g.Learn(text, g.dir.Join(esp.Trust), string(id), g.Now()); err != nil {
		return fmt.Errorf("fixes that were taken back: %w", err)
	}
	return nil
}

// staged reads the fetcher's list; nil when there is none.
func (g *Guard) staged() ([]byte, error) {
	dir, err := folder.Open(filepath.Join(g.Root, filepath.FromSlash(staging)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // only read
	f, err := dir.Open(protocol.RevocationsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, protocol.MaxRevocationsFile+1))
	if err != nil {
		return nil, fmt.Errorf("read what was taken back: %w", err)
	}
	return text, nil
}
