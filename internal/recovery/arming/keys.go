//go:build linux

package arming

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// KeyFolder is where the public keys of fixes are looked for below the root: organisation.pem, and PROVIDER.pem for
// each vendor that may sign for its own. It is laid out as the control plane's folder of the same name.
const KeyFolder = "/etc/keepout/fix-keys"

const (
	organisation = "organisation"
	maxKeyFiles  = 64
	maxKeyFile   = 64 << 10 // bytes
	signers      = 2        // keys of the organisation that a fix needs
)

// trust plans the file by which bootguard and the recovery environment verify fixes. Without a folder of keys nothing
// changes, and no fix is believed until it is there.
func (p *planner) trust() error {
	folder := p.Keys
	if folder == "" {
		folder = p.at(KeyFolder)
	}
	keys, err := readTrust(folder)
	if errors.Is(err, fs.ErrNotExist) {
		p.say("there are no keys of fixes in " + p.named(folder) + ": this machine believes no fix until they are there " +
			"and it is armed again (docs/remediation.md)")
		return nil
	}
	if err != nil {
		return fmt.Errorf("keys of fixes: %w", err)
	}
	if n := len(keys.Organisation.Keys); n < signers {
		p.say(fmt.Sprintf("a fix needs the signatures of %d keys of the organisation, and %s.pem in %s has %d", signers,
			organisation, p.named(folder), n))
	}
	data, err := intent.EncodeTrust(keys)
	if err != nil {
		return err
	}
	return p.want(p.dir+"/"+esp.Trust+"/"+intent.TrustFile, data, 0o600,
		"whose fixes are believed, in the recovery environment and at the next start")
}

// named is a path as the system itself calls it.
func (p *planner) named(path string) string {
	if p.Keys != "" {
		return path
	}
	return p.below(path)
}

// readTrust reads a folder of keys. The error matches fs.ErrNotExist when there is none.
func readTrust(folder string) (remediation.Trust, error) {
	t := remediation.Trust{Vendors: map[string]sign.Role{}}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return t, err
	}
	if len(entries) > maxKeyFiles {
		return t, fmt.Errorf("%s holds more than %d files", folder, maxKeyFiles)
	}
	for _, e := range entries {
		name, isPEM := strings.CutSuffix(e.Name(), ".pem")
		if !isPEM || name == "" {
			continue
		}
		keys, err := readKeys(filepath.Join(folder, e.Name()))
		if err != nil {
			return t, err
		}
		if name == organisation {
			t.Organisation = sign.Role{Keys: keys, Threshold: signers}
		} else {
			t.Vendors[name] = sign.Role{Keys: keys, Threshold: 1}
		}
	}
	return t, nil
}

// readKeys reads the Ed25519 public keys of one PEM file. A private key there is an error: it would be on every
// machine.
func readKeys(path string) ([]ed25519.PublicKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxKeyFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := parsed.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("%s holds something else than Ed25519 public keys", path)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key in PEM", path)
	}
	return keys, nil
}
