package diagnostics

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func keys(t testing.TB) ([]age.Recipient, []age.Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipients, err := ParseRecipients([]byte("# ours\n" + id.Recipient().String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	identities, err := ParseIdentities([]byte(id.String()))
	if err != nil {
		t.Fatal(err)
	}
	return recipients, identities
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	recipients, identities := keys(t)
	_, others := keys(t)
	made, encoded := make1(t, input(), Full)
	parcel, err := Seal(encoded, recipients)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := DecodeHeader(parcel)
	if err != nil || h.Digest != Digest(encoded) || h.Signature != made.Signature.ID || h.Machine != made.Machine {
		t.Errorf("header %+v, %v", h, err)
	}
	if bytes.Contains(parcel, []byte("acme")) || bytes.Contains(parcel, []byte("NULL")) {
		t.Error("the parcel can be read without the key")
	}
	b, got, err := Open(parcel, identities)
	if err != nil || !bytes.Equal(got, encoded) || b.Signature.ID != made.Signature.ID {
		t.Errorf("opened: %v", err)
	}
	if _, _, err := Open(parcel, others); err == nil {
		t.Error("another key opens it")
	}
	torn := append([]byte(nil), parcel...)
	torn[len(torn)-1] ^= 1
	if _, _, err := Open(torn, identities); err == nil {
		t.Error("a changed parcel was opened")
	}
	lie := bytes.Replace(parcel, []byte(h.Machine), []byte(strings.Repeat("0", 32)), 1)
	if _, _, err := Open(lie, identities); !errors.Is(err, ErrFormat) {
		t.Errorf("a header that lies: %v", err)
	}
	if _, err := Seal(encoded, nil); err == nil {
		t.Error("sealed for nobody")
	}
}

// TestTheLargestParcel: a bundle of the greatest size stays within what the server takes.
func TestTheLargestParcel(t *testing.T) {
	t.Parallel()
	recipients, identities := keys(t)
	b, _ := make1(t, input(), Full)
	b.Panic = nil
	encoded, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pad := append(bytes.TrimRight(encoded, "\n"), bytes.Repeat([]byte("\n"), MaxBundle-len(encoded)+1)...)
	if len(pad) != MaxBundle {
		t.Fatalf("%d bytes", len(pad))
	}
	for len(recipients) < maxRecipient {
		recipients = append(recipients, recipients[0])
	}
	parcel, err := Seal(pad, recipients)
	if err != nil || len(parcel) > MaxParcel {
		t.Fatalf("%d bytes, %v", len(parcel), err)
	}
	if _, _, err := Open(parcel, identities); err != nil {
		t.Error(err)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	day := time.Unix(1_784_000_000, 0)
	b, _ := make1(t, input(), Full)
	g := NewGroup(&b, day)
	for i := range 9 {
		in := input()
		in.MachineID = string(rune('a' + i))
		if i < 2 {
			in.Providers[0].Content.Active = "290"
		}
		b, _ := make1(t, in, Full)
		g.Add(&b, day.Add(time.Duration(i)*time.Minute))
	}
	in := input()
	in.Test = true
	rehearsal, _ := make1(t, in, Full)
	g.Add(&rehearsal, day)
	if g.Bundles != 10 || g.Machines() != 10 || g.Versions["acme-av content 291"] != 8 ||
		g.Versions["acme-av engine 7.2"] != 10 {
		t.Errorf("group %+v", g)
	}
	if change, share := g.SuspectedChange(); change != "acme-av content 291" || share != 0.8 {
		t.Errorf("suspected %q, %v", change, share)
	}
	in = input()
	in.Providers[0].Content.LKG = "291"
	proven, _ := make1(t, in, Full)
	if change, _ := NewGroup(&proven, day).SuspectedChange(); change != "" {
		t.Errorf("%q is suspected, and nothing changed", change)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add([]byte(`{"keepout":"diagnostics/1","digest":"` + strings.Repeat("a", 64) + `","machine":"` +
		strings.Repeat("b", 32) +
		`","signature":"` + strings.Repeat("c", 16) + `","level":"full"}` + "\nage-encryption.org/v1\n"))
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := Open(data, []age.Identity{id}); err == nil {
			t.Fatal("opened what nobody sealed for this key")
		}
		_, _ = ParseRecipients(data)
	})
}
