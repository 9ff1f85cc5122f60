package diagnostics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Header is the part of a parcel that everybody can read. It holds what a server needs to count, group and answer
// without being able to read the bundle, and nothing about people.
type Header struct {
	Keepout   string `json:"keepout"` // "diagnostics/1"
	Digest    string `json:"digest"`  // of the encoded bundle
	Machine   string `json:"machine"`
	Signature string `json:"signature"`
	Level     Level  `json:"level"`
	Test      bool   `json:"test,omitempty"`
}

const (
	parcelKind   = "diagnostics/1"
	maxHeader    = 1 << 10
	maxRecipient = 16
)

// ParseRecipients reads the organisation's public keys: one age recipient ("age1…") a line, with # before comments.
func ParseRecipients(text []byte) ([]age.Recipient, error) {
	if len(text) > 64<<10 {
		return nil, fmt.Errorf("recipients of %d bytes are too long", len(text))
	}
	list, err := age.ParseRecipients(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the organisation's key: %w", err)
	}
	if len(list) > maxRecipient {
		return nil, fmt.Errorf("read the organisation's key: %d recipients, at most %d", len(list), maxRecipient)
	}
	return list, nil
}

// Seal encrypts an encoded bundle for the organisation. The result has at most MaxParcel bytes.
func Seal(encoded []byte, recipients []age.Recipient) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("seal bundle: no key of the organisation")
	}
	b, err := Decode(encoded)
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	line, err := json.Marshal(Header{
		Keepout: parcelKind, Digest: Digest(encoded), Machine: b.Machine, Signature: b.Signature.ID, Level: b.Level,
		Test: b.Test,
	})
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	var out bytes.Buffer
	out.Write(append(line, '\n'))
	w, err := age.Encrypt(&out, recipients...)
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	if _, err = w.Write(encoded); err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	if out.Len() > MaxParcel {
		return nil, fmt.Errorf("seal bundle: %d bytes, at most %d", out.Len(), MaxParcel)
	}
	return out.Bytes(), nil
}

// DecodeHeader reads what everybody may know of a parcel, and returns the sealed rest. Nothing of it is proved.
func DecodeHeader(parcel []byte) (Header, []byte, error) {
	if len(parcel) > MaxParcel {
		return Header{}, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(parcel), MaxParcel)
	}
	line, rest, found := bytes.Cut(parcel, []byte{'\n'})
	if !found || len(line) > maxHeader {
		return Header{}, nil, fmt.Errorf("%w: no header", ErrFormat)
	}
	var h Header
	if err := json.Unmarshal(line, &h); err != nil {
		return Header{}, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if h.Keepout != parcelKind || !isHex(h.Digest, 64) || !isHex(h.Machine, 32) || !isHex(h.Signature, 16) ||
		h.Level != Minimal && h.Level != Full {
		return Header{}, nil, fmt.Errorf("%w: header", ErrFormat)
	}
	return h, rest, nil
}

// ParseIdentities reads the organisation's secret keys, as age-keygen(1) writes them.
func ParseIdentities(text []byte) ([]age.Identity, error) {
	list, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read secret key: %w", err)
	}
	return list, nil
}

// Open decrypts a parcel and holds it against its header. The encoded bundle is returned with it: its digest is that of
// the header.
func Open(parcel []byte, identities []age.Identity) (Bundle, []byte, error) {
	h, sealed, err := DecodeHeader(parcel)
	if err != nil {
		return Bundle{}, nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if err != nil {
		return Bundle{}, nil, fmt.Errorf("open parcel: %w", err)
	}
	encoded, err := io.ReadAll(io.LimitReader(r, MaxBundle+1))
	if err != nil {
		return Bundle{}, nil, fmt.Errorf("open parcel: %w", err)
	}
	b, err := Decode(encoded)
	if err != nil {
		return Bundle{}, nil, err
	}
	if h.Digest != Digest(encoded) || h.Machine != b.Machine || h.Signature != b.Signature.ID || h.Level != b.Level ||
		h.Test != b.Test {
		return Bundle{}, nil, fmt.Errorf("%w: its header tells something else than the bundle", ErrFormat)
	}
	return b, encoded, nil
}
