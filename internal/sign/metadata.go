package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"
)

// header is what every metadata file begins with.
type header struct {
	Type    string    `json:"_type"`
	Spec    string    `json:"spec_version"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

type rootFile struct {
	header
	Consistent bool               `json:"consistent_snapshot"`
	Keys       map[string]tufKey  `json:"keys"`
	Roles      map[string]tufRole `json:"roles"`
}

type timestampFile struct {
	header
	Meta map[string]fileMeta `json:"meta"`
	// SignedAt is when the repository says it was signed: an addition of ours, from which the time floor comes.
	SignedAt time.Time `json:"x-keepout-signed-at"`
}

type snapshotFile struct {
	header
	Meta map[string]fileMeta `json:"meta"`
}

type targetsFile struct {
	header
	Targets     map[string]targetMeta `json:"targets"`
	Delegations struct {
		Keys  map[string]tufKey `json:"keys"`
		Roles []delegation      `json:"roles"`
	} `json:"delegations"`
}

type tufKey struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

type tufRole struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

type delegation struct {
	tufRole
	Name  string   `json:"name"`
	Paths []string `json:"paths"`
}

type fileMeta struct {
	Version int64             `json:"version"`
	Length  int64             `json:"length"`
	Hashes  map[string]string `json:"hashes"`
}

type targetMeta struct {
	Length int64             `json:"length"`
	Hashes map[string]string `json:"hashes"`
	Custom json.RawMessage   `json:"custom"`
}

// signedFile is a metadata file whose signatures nobody has looked at yet.
type signedFile struct {
	message    []byte // canonical: what is signed, and what is read once it is verified
	signatures []signature
}

// openFile takes a file apart without reading what it says.
func openFile(raw []byte) (*signedFile, error) {
	var outer struct {
		Signed     json.RawMessage `json:"signed"`
		Signatures []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(raw, &outer); err != nil {
		return nil, err
	}
	if len(outer.Signatures) > MaxSignatures {
		return nil, fmt.Errorf("it has %d signatures, more than %d", len(outer.Signatures), MaxSignatures)
	}
	message, err := canonical(outer.Signed)
	if err != nil {
		return nil, err
	}
	f := &signedFile{message: message}
	for _, s := range outer.Signatures {
		// One that is no hexadecimal is no signature; another may still be good.
		if sig, err := hex.DecodeString(s.Sig); err == nil {
			f.signatures = append(f.signatures, signature{keyID: KeyID(s.KeyID), bytes: sig})
		}
	}
	return f, nil
}

// read decodes what was verified: exactly the bytes that were signed.
func (f *signedFile) read(kind string, into any) error {
	var c header
	if err := json.Unmarshal(f.message, &c); err != nil {
		return err
	}
	switch {
	case c.Type != kind:
		return fmt.Errorf("it is %q, not %q", c.Type, kind)
	case !strings.HasPrefix(c.Spec, "1."):
		return fmt.Errorf("it follows version %q of TUF, not 1", c.Spec)
	case c.Version < 1:
		return fmt.Errorf("its version is %d", c.Version)
	case c.Expires.IsZero():
		return fmt.Errorf("it never expires")
	}
	return json.Unmarshal(f.message, into)
}

// role finds the keys of a role. A key that is missing, of another kind than Ed25519 or damaged is left out: it can
// only make the threshold harder to reach.
func role(r tufRole, keys map[string]tufKey) Role {
	out := Role{Threshold: r.Threshold}
	for _, id := range r.KeyIDs {
		k := keys[id]
		public, err := hex.DecodeString(k.Value.Public)
		if k.Type == "ed25519" && k.Scheme == "ed25519" && err == nil && len(public) == ed25519.PublicKeySize {
			out.Keys = append(out.Keys, public)
		}
	}
	return out
}

// delegated finds who may speak about a path under the name of a role. Nobody may when the role is not there or its
// paths do not cover this one.
func (t *targetsFile) delegated(name, target string) Role {
	for _, d := range t.Delegations.Roles {
		if d.Name != name {
			continue
		}
		for _, pattern := range d.Paths {
			if ok, err := path.Match(pattern, target); ok && err == nil {
				return role(d.tufRole, t.Delegations.Keys)
			}
		}
		return Role{}
	}
	return Role{}
}

// digestOf is a digest as it is written everywhere in Keepout.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// matches says how data differs from what another file says of it, or nil. Length and SHA-256 must be named.
func (m fileMeta) matches(data []byte) error {
	if int64(len(data)) != m.Length {
		return fmt.Errorf("it has %d bytes, not %d", len(data), m.Length)
	}
	if got := digestOf(data); got != "sha256:"+m.Hashes["sha256"] {
		return fmt.Errorf("its digest is %s, not sha256:%.64s", got, m.Hashes["sha256"])
	}
	return nil
}
