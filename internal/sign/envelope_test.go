package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

const testType = "application/vnd.keepout.test.v1+json"

// keyFrom makes a key that is the same in every run.
func keyFrom(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(keys ...ed25519.PrivateKey) (out []ed25519.PublicKey) {
	for _, k := range keys {
		out = append(out, k.Public().(ed25519.PublicKey))
	}
	return out
}

func sealed(t testing.TB, payload string, keys ...ed25519.PrivateKey) []byte {
	t.Helper()
	e, err := Seal(keys, testType, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// edit changes an envelope as somebody without a key could.
func edit(t *testing.T, sealed []byte, change func(e *envelope)) []byte {
	t.Helper()
	var e envelope
	if err := json.Unmarshal(sealed, &e); err != nil {
		t.Fatal(err)
	}
	change(&e)
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpen(t *testing.T) {
	t.Parallel()
	a, b, c, stranger := keyFrom("a"), keyFrom("b"), keyFrom("c"), keyFrom("stranger")
	both := sealed(t, "pay 10", a, b)
	for name, c := range map[string]struct {
		sealed    []byte
		keys      []ed25519.PublicKey
		threshold int
		kind      string
		code      string
	}{
		"two of three":          {both, public(a, b, c), 2, testType, ""},
		"one of one":            {both, public(b), 1, testType, ""},
		"one signature of two":  {sealed(t, "pay 10", a), public(a, b), 2, testType, CodeThreshold},
		"a stranger's":          {sealed(t, "pay 10", a, stranger), public(a, b), 2, testType, CodeThreshold},
		"nobody's":              {sealed(t, "pay 10"), public(a), 1, testType, CodeThreshold},
		"threshold 0":           {both, public(a), 0, testType, CodeThreshold},
		"threshold -1":          {both, public(a), -1, testType, CodeThreshold},
		"no keys":               {both, nil, 1, testType, CodeThreshold},
		"one key listed twice":  {sealed(t, "pay 10", a), public(a, a), 2, testType, CodeThreshold},
		"a key of wrong length": {both, []ed25519.PublicKey{{1, 2, 3}}, 1, testType, CodeThreshold},
		"another type":          {both, public(a, b), 2, "application/other", CodeType},
		"payload changed": {
			edit(t, both, func(e *envelope) { e.Payload = []byte("pay 99") }), public(a, b), 2, testType, CodeThreshold,
		},
		"type changed": {
			edit(t, both, func(e *envelope) { e.PayloadType = "application/other" }),
			public(a, b), 2, "application/other", CodeThreshold,
		},
		"one signature twice": {
			edit(t, sealed(t, "pay 10", a), func(e *envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }),
			public(a, b), 2, testType, CodeThreshold,
		},
		"one signature under two names": {
			edit(t, sealed(t, "pay 10", a), func(e *envelope) {
				s := e.Signatures[0]
				s.KeyID = string(IDOf(public(b)[0]))
				e.Signatures = append(e.Signatures, s)
			}), public(a, b), 2, testType, CodeThreshold,
		},
		"a bad signature before the good one": {
			edit(t, both, func(e *envelope) {
				bad := e.Signatures[0]
				bad.Sig = make([]byte, ed25519.SignatureSize)
				e.Signatures = append([]envelopeSignature{bad}, e.Signatures...)
			}), public(a, b), 2, testType, "",
		},
		"too many signatures": {
			edit(t, both, func(e *envelope) {
				for range MaxSignatures {
					e.Signatures = append(e.Signatures, e.Signatures[0])
				}
			}), public(a, b), 2, testType, CodeEnvelope,
		},
		"torn":    {both[:len(both)/2], public(a, b), 2, testType, CodeEnvelope},
		"empty":   {nil, public(a, b), 2, testType, CodeEnvelope},
		"null":    {[]byte("null"), public(a, b), 2, testType, CodeEnvelope},
		"endless": {append(both, bytes.Repeat([]byte(" "), MaxEnvelope)...), public(a, b), 2, testType, CodeEnvelope},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload, signers, err := Open(c.keys, c.threshold, c.kind, c.sealed)
			if got := CodeOf(err); got != c.code {
				t.Fatalf("code %q (%v), want %q", got, err, c.code)
			}
			if err != nil && (payload != nil || signers != nil) {
				t.Error("a refused envelope handed out its payload")
			}
			if err == nil && (string(payload) != "pay 10" || len(signers) < c.threshold) {
				t.Errorf("payload %q by %v", payload, signers)
			}
		})
	}
}

func TestCosign(t *testing.T) {
	t.Parallel()
	a, b := keyFrom("a"), keyFrom("b")
	one := sealed(t, "x", a)
	if _, _, err := Open(public(a, b), 2, testType, one); CodeOf(err) != CodeThreshold {
		t.Fatalf("one signature: %v", err)
	}
	two, err := Cosign(one, b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Cosign(two, b)
	if err != nil || !bytes.Equal(again, two) {
		t.Errorf("a second signature by the same key changed the envelope: %v", err)
	}
	if _, signers, err := Open(public(a, b), 2, testType, two); err != nil || len(signers) != 2 {
		t.Fatalf("two signatures: %v %v", signers, err)
	}
	kind, payload, err := Peek(two)
	if err != nil || kind != testType || string(payload) != "x" {
		t.Errorf("peek: %q %q %v", kind, payload, err)
	}
}

// TestPreAuthEncoding holds the example of the DSSE protocol, so that other DSSE software reads what we sign.
func TestPreAuthEncoding(t *testing.T) {
	t.Parallel()
	const want = "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
	if got := string(preAuthEncoding("http://example.com/HelloWorld", []byte("hello world"))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSealIsReproducible(t *testing.T) {
	t.Parallel()
	if a, b := sealed(t, "x", keyFrom("a")), sealed(t, "x", keyFrom("a")); !bytes.Equal(a, b) {
		t.Error("the same input gave two envelopes")
	}
	if _, err := Seal(nil, strings.Repeat("x", maxType+1), nil); err == nil {
		t.Error("a type without bound was sealed")
	}
	if _, err := Seal([]ed25519.PrivateKey{{1}}, testType, nil); err == nil {
		t.Error("sealed with half a key")
	}
}

func FuzzOpen(f *testing.F) {
	a := keyFrom("a")
	f.Add(sealed(f, "x", a))
	f.Add([]byte(`{"payload":"","payloadType":"t","signatures":[{"keyid":"","sig":"` +
		base64.StdEncoding.EncodeToString(make([]byte, 64)) + `"}]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		payload, _, err := Open(public(a), 1, testType, data)
		if err == nil && string(payload) != "x" {
			t.Fatalf("opened %q, which nobody signed", payload)
		}
		if err != nil && CodeOf(err) == "" {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}
