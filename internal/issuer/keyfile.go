package issuer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sign"
)

// Codes of what goes wrong with keys; docs/errors.md explains them.
const (
	CodeKey     = "KO-2101" // a key file cannot be used
	CodeHome    = "KO-2141" // a folder is no issuer's, or is one already
	CodePending = "KO-2142" // another change waits for signatures
	CodeKeys    = "KO-2143" // no key of the role is at hand, or too few would be left
)

const (
	keySuffix  = ".key"
	pemType    = "PRIVATE KEY" // PKCS #8, as other tools read it
	maxKeyFile = 64 << 10
	// workFactor makes one guess at a passphrase take about a fifth of a second and 64 MiB.
	workFactor = 16
)

var keyName = regexp.MustCompile(`^([a-z][a-z-]*)-(\d{1,4})\.key$`)

// Passphrase answers for one key file. An empty answer means that there is none.
type Passphrase func(file string) (string, error)

func refuse(code, next, format string, args ...any) error {
	return health.Problem{Code: code, Severity: health.Failure, Title: fmt.Sprintf(format, args...), Fix: next}
}

// makeKey writes a new key, encrypted when there is a passphrase, and returns its public half.
func makeKey(dir, role string, n int, passphrase string) (ed25519.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if passphrase != "" {
		if text, err = encrypt(text, passphrase); err != nil {
			return nil, err
		}
	}
	name := filepath.Join(dir, fmt.Sprintf("%s-%d%s", role, n, keySuffix))
	if _, err := os.Lstat(name); err == nil {
		return nil, refuse(CodeKey, "move it away first", "the key %s exists", name)
	}
	return public, durable.WriteFileOn(durable.OS(), name, text, 0o600)
}

func encrypt(text []byte, passphrase string) ([]byte, error) {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("use the passphrase: %w", err)
	}
	to.SetWorkFactor(workFactor)
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, to)
	if err != nil {
		return nil, fmt.Errorf("encrypt a key: %w", err)
	}
	if _, err = w.Write(text); err == nil {
		err = errors.Join(w.Close(), armored.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt a key: %w", err)
	}
	return out.Bytes(), nil
}

// readKey reads a key file, and asks for its passphrase when it has one.
func readKey(name string, ask Passphrase) (ed25519.PrivateKey, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, refuse(CodeKey, "see that it is there and that you may read it", "a key cannot be read: %v", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, refuse(CodeKey, "see that its medium is well", "the key %s cannot be read: %v", name, err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte(armor.Header)) {
		if text, err = decrypt(name, text, ask); err != nil {
			return nil, err
		}
	}
	return parseKey(name, text)
}

func decrypt(name string, text []byte, ask Passphrase) ([]byte, error) {
	if ask == nil {
		return nil, refuse(CodeKey, "run this where it can be asked for, or name --passphrase-file",
			"the key %s has a passphrase", name)
	}
	passphrase, err := ask(name)
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, refuse(CodeKey, "try again", "the key %s: %v", name, err)
	}
	id.SetMaxWorkFactor(workFactor + 4)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), id)
	if err != nil {
		return nil, refuse(CodeKey, "try again; nobody can recover a passphrase", "the passphrase of %s is wrong: %v", name,
			err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxKeyFile))
	if err != nil {
		return nil, refuse(CodeKey, "use the copy of it", "the key %s is damaged: %v", name, err)
	}
	return out, nil
}

func parseKey(name string, text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, refuse(CodeKey, "name a file that keepout keys init has made", "%s is no key", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, refuse(CodeKey, "name a file that keepout keys init has made", "%s is no Ed25519 key", name)
	}
	return key, nil
}

// keyring is the keys at hand.
type keyring struct {
	dirs []string
	ask  Passphrase
	read map[string]ed25519.PrivateKey // by file
}

// files lists the key files of a set, in the order of the folders and of their numbers.
func (k *keyring) files(role string) (out []string) {
	for _, dir := range k.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // a medium that is not there: its keys are not at hand
		}
		for _, e := range entries {
			if m := keyName.FindStringSubmatch(e.Name()); len(m) > 1 && m[1] == role {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out
}

// keys returns the keys of a set that are at hand, as they are asked for.
func (k *keyring) keys(role string) (out []ed25519.PrivateKey, err error) {
	for _, file := range k.files(role) {
		if k.read[file] == nil {
			key, err := readKey(file, k.ask)
			if err != nil {
				return nil, err
			}
			k.read[file] = key
		}
		out = append(out, k.read[file])
	}
	return out, nil
}

func idOf(key ed25519.PrivateKey) sign.KeyID {
	return sign.IDOf(ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:]))
}

// label is a key's file without folder and ending: "engine-1".
func label(file string) string { return strings.TrimSuffix(filepath.Base(file), keySuffix) }
