package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// MaxSelftest bounds a self-test object, in bytes.
const MaxSelftest = 64 << 10

// ErrNoSelftest reports that a manifest names no self-test file.
var ErrNoSelftest = errors.New("the manifest names no self-test file")

// Selftest reads the object that the provider's engine must deny. A file whose name ends in .b64 holds it in base64:
// so a package can carry a test virus without being taken for one. What could run is refused, because a canary is also
// executed.
func (m *Manifest) Selftest() ([]byte, error) {
	name := m.Health.Selftest
	if name == "" {
		return nil, ErrNoSelftest
	}
	f, err := os.Open(filepath.Join(m.dir, name))
	if err != nil {
		return nil, fmt.Errorf("self-test file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, 2*MaxSelftest))
	if err != nil {
		return nil, fmt.Errorf("self-test file: %w", err)
	}
	if strings.HasSuffix(name, ".b64") {
		if b, err = base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b))); err != nil {
			return nil, fmt.Errorf("self-test file %s: %w", name, err)
		}
	}
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("self-test file %s is empty", name)
	case len(b) > MaxSelftest:
		return nil, fmt.Errorf("self-test file %s has more than %d KiB", name, MaxSelftest>>10)
	case runnable(b):
		return nil, fmt.Errorf("self-test file %s could be executed: use text that is no script", name)
	}
	return b, nil
}

// runnable reports whether a kernel might start a program from these bytes: a script, ELF, or what binfmt_misc is
// often set up for.
func runnable(b []byte) bool {
	for _, magic := range []string{"#!", "\x7fELF", "MZ", "PK", "\xca\xfe\xba\xbe"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return true
		}
	}
	return false
}
