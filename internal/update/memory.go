package update

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
)

// Codes of what is wrong with updates; docs/errors.md.
const (
	CodeMemory  = "KO-2601" // what was remembered of trust is damaged in both copies
	CodeRoot    = "KO-2602" // the operator's root file cannot be read
	CodeStaging = "KO-2603" // what the fetcher wrote cannot be read
	CodeRefused = "KO-2604" // a package that was ordered is not used
	CodeLocked  = "KO-2605" // what was remembered could not be written
	CodeStray   = "KO-2606" // a roll-back led elsewhere than it was ordered to
	CodeVendor  = "KO-2607" // not all of what one vendor publishes could be fetched
)

// known is one package that was taken into the store.
type known struct {
	sign.Release

	Package string `json:"package"` // digest of its OCI manifest
	Path    string `json:"path"`
	Vendor  string `json:"vendor"`
	Length  int64  `json:"length"`
	Rollout string `json:"rollout,omitempty"` // that brought it
	Used    bool   `json:"used,omitempty"`    // it has been active on this host
	Offered bool   `json:"offered,omitempty"`
}

// memory is what survives a power cut.
type memory struct {
	Generation uint64                    `json:"generation"`
	Trust      json.RawMessage           `json:"trust"`
	Packages   map[rollback.Digest]known `json:"packages"` // by what the store calls their files
	Epochs     map[string]uint64         `json:"epochs"`   // highest of each rollout
}

// Bounds of what is remembered; beyond, what is not in any slot is forgotten.
const (
	maxKnown   = 256
	maxEpochs  = 256
	maxMemory  = sign.MaxState + 1<<20
	memoryMode = 0o600
)

var copies = [2]string{"a", "b"}

// record is one copy on the disk.
type record struct {
	SHA256 string          `json:"sha256"`
	Memory json.RawMessage `json:"memory"`
}

// recall reads both copies and returns the newer good one. No copy at all is a new host; copies of which none is good
// are an error: a host must not silently believe old metadata again.
func recall(dir string) (m memory, state sign.State, err error) {
	m = memory{Packages: map[rollback.Digest]known{}, Epochs: map[string]uint64{}}
	var bad []error
	found := false
	for _, name := range copies {
		one, s, err := recallCopy(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			bad = append(bad, fmt.Errorf("%s: %w", name, err))
		case !found || one.Generation > m.Generation:
			m, state, found = one, s, true
		}
	}
	if !found && len(bad) > 0 {
		return m, state, health.Problem{
			Code: CodeMemory, Severity: health.Failure,
			Title: fmt.Sprintf("what this host remembers of signatures is damaged: %v", errors.Join(bad...)),
			Fix:   "restore " + dir + " from a backup; remove it only if you would trust this host as a new one",
		}
	}
	return m, state, nil
}

func recallCopy(path string) (m memory, state sign.State, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return m, state, err
	}
	if info.Size() > maxMemory {
		return m, state, errors.New("it is too long")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return m, state, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return m, state, err
	}
	if checksum(r.Memory) != r.SHA256 {
		return m, state, errors.New("its checksum is another")
	}
	if err := json.Unmarshal(r.Memory, &m); err != nil {
		return m, state, err
	}
	if m.Packages == nil || m.Epochs == nil {
		return m, state, errors.New("it is not complete")
	}
	state, err = sign.DecodeState(m.Trust)
	return m, state, err
}

// keep writes the older copy anew. After nil it survives a power cut.
func (m *memory) keep(dir string, state sign.State) error {
	trust, err := state.Encode()
	if err != nil {
		return err
	}
	m.Generation++
	m.Trust = trust
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode what is trusted: %w", err)
	}
	text, err = json.Marshal(record{SHA256: checksum(text), Memory: text})
	if err != nil {
		return fmt.Errorf("encode what is trusted: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, copies[m.Generation%2]), text, memoryMode)
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
