package sign

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Bounds of an envelope.
const (
	MaxEnvelope   = 4 << 20 // bytes of a whole envelope
	MaxSignatures = 32      // signatures in one envelope or metadata file
	maxType       = 256     // bytes of a payload type
)

// envelope is a DSSE envelope (github.com/secure-systems-lab/dsse, version 1) as JSON.
type envelope struct {
	Payload     []byte              `json:"payload"` // base64
	PayloadType string              `json:"payloadType"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"` // base64
}

// Seal signs a payload of a type (a media type, such as "application/vnd.keepout.remediation.v1+json") with each
// of the keys and returns the envelope. Further people add their signatures with Cosign. The same input gives the
// same bytes.
func Seal(keys []ed25519.PrivateKey, payloadType string, payload []byte) ([]byte, error) {
	if payloadType == "" || len(payloadType) > maxType {
		return nil, fmt.Errorf("seal: a payload type has 1 to %d bytes", maxType)
	}
	e := envelope{Payload: payload, PayloadType: payloadType}
	if e.Payload == nil {
		e.Payload = []byte{} // null is no payload
	}
	for _, key := range keys {
		if err := e.sign(key); err != nil {
			return nil, err
		}
	}
	return e.encode()
}

// Cosign adds one key's signature to an envelope, in place of an earlier one by the same key. It does not look at
// the other signatures: whoever signs must have read the payload (Peek).
func Cosign(sealed []byte, key ed25519.PrivateKey) ([]byte, error) {
	e, err := decodeEnvelope(sealed)
	if err != nil {
		return nil, err
	}
	if err := e.sign(key); err != nil {
		return nil, err
	}
	return e.encode()
}

// Peek returns what an envelope claims to hold, UNVERIFIED, for a person who is about to sign it.
func Peek(sealed []byte) (payloadType string, payload []byte, err error) {
	e, err := decodeEnvelope(sealed)
	if err != nil {
		return "", nil, err
	}
	return e.PayloadType, e.Payload, nil
}

// Open verifies an envelope and only then hands out its payload, with the ids of the distinct keys that signed it,
// in the order of keys. At least threshold of the keys must have signed these bytes as this type; a threshold below
// 1 is never met. Signatures of other keys are ignored. Errors: CodeEnvelope, CodeType, CodeThreshold.
func Open(keys []ed25519.PublicKey, threshold int, payloadType string, sealed []byte) ([]byte, []KeyID, error) {
	e, err := decodeEnvelope(sealed)
	if err != nil {
		return nil, nil, err
	}
	if e.PayloadType != payloadType {
		return nil, nil, refuse(CodeType, "give the file that is meant here",
			"this is a signed statement of type %q, not %q", e.PayloadType, payloadType)
	}
	signatures := make([]signature, 0, len(e.Signatures))
	for _, s := range e.Signatures {
		signatures = append(signatures, signature{keyID: KeyID(s.KeyID), bytes: s.Sig})
	}
	role := Role{Keys: keys, Threshold: threshold}
	signers := role.signedBy(preAuthEncoding(e.PayloadType, e.Payload), signatures)
	if !role.enough(signers) {
		return nil, nil, refuse(CodeThreshold, "have it signed by the others whose keys count, or get the genuine file",
			"the statement has %d of %d needed signatures", len(signers), threshold)
	}
	return e.Payload, signers, nil
}

func (e *envelope) sign(key ed25519.PrivateKey) error {
	if len(key) != ed25519.PrivateKeySize {
		return errors.New("seal: not an Ed25519 private key")
	}
	public := ed25519.PublicKey(key[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
	id := string(IDOf(public))
	e.Signatures = slices.DeleteFunc(e.Signatures, func(s envelopeSignature) bool { return s.KeyID == id })
	if len(e.Signatures) >= MaxSignatures {
		return fmt.Errorf("seal: more than %d signatures", MaxSignatures)
	}
	e.Signatures = append(e.Signatures, envelopeSignature{
		KeyID: id, Sig: ed25519.Sign(key, preAuthEncoding(e.PayloadType, e.Payload)),
	})
	return nil
}

func (e *envelope) encode() ([]byte, error) {
	out, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if len(out) > MaxEnvelope {
		return nil, fmt.Errorf("seal: the envelope would have %d bytes, more than %d", len(out), MaxEnvelope)
	}
	return append(out, '\n'), nil
}

func decodeEnvelope(sealed []byte) (*envelope, error) {
	const next = "get the file again; it was damaged on its way, or is another file"
	if len(sealed) > MaxEnvelope+1 {
		return nil, refuse(CodeEnvelope, next, "a signed statement has at most %d bytes, this has %d",
			MaxEnvelope, len(sealed))
	}
	var e envelope
	if err := json.Unmarshal(sealed, &e); err != nil {
		return nil, refuse(CodeEnvelope, next, "this is no signed statement: %v", err)
	}
	if e.Payload == nil || e.PayloadType == "" || len(e.PayloadType) > maxType {
		return nil, refuse(CodeEnvelope, next, "this is no signed statement: it lacks payload or type")
	}
	if len(e.Signatures) > MaxSignatures {
		return nil, refuse(CodeEnvelope, next, "the statement has %d signatures, more than %d",
			len(e.Signatures), MaxSignatures)
	}
	return &e, nil
}

// preAuthEncoding is what DSSE signs: type and payload, each after its length, so that neither can be taken for
// part of the other.
func preAuthEncoding(payloadType string, payload []byte) []byte {
	out := make([]byte, 0, len(payload)+len(payloadType)+64)
	out = append(out, "DSSEv1 "...)
	out = strconv.AppendInt(out, int64(len(payloadType)), 10)
	out = append(append(append(out, ' '), payloadType...), ' ')
	out = strconv.AppendInt(out, int64(len(payload)), 10)
	return append(append(out, ' '), payload...)
}
