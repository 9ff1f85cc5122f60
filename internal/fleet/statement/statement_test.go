package statement

import (
	"bytes"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

func TestStatements(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_900_000_000, 0).UTC()
	want := rollout.Grant{Rollout: "r", Host: "h", Digest: "d", Nonce: "n", Epoch: 3, Serial: 4, Issued: now, Lifetime: 5}
	grant, err := SealGrant(private, &want)
	if err != nil {
		t.Fatal(err)
	}
	moment, err := SealTime(private, &Time{Nonce: []byte("n"), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenGrant(public, grant); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := OpenTime(public, moment); err != nil || !bytes.Equal(got.Nonce, []byte("n")) || !got.Now.Equal(now) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, open := range map[string]func() error{
		"another key":        func() error { _, err := OpenGrant(other, grant); return err },
		"a time for a grant": func() error { _, err := OpenGrant(public, moment); return err },
		"a grant for a time": func() error { _, err := OpenTime(public, grant); return err },
		"another grant": func() error {
			_, err := OpenGrant(public, bytes.Replace(grant, []byte("p"), []byte("q"), 1))
			return err
		},
	} {
		if open() == nil {
			t.Errorf("%s is believed", name)
		}
	}
}

func FuzzOpenGrant(f *testing.F) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := SealGrant(private, &rollout.Grant{Host: "h"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if g, err := OpenGrant(public, data); err == nil && g.Host != "h" {
			t.Fatalf("believed %+v", g)
		}
	})
}
