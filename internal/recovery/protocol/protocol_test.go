package protocol

import (
	"bytes"
	"strings"
	"testing"
)

func TestDecodeResponse(t *testing.T) {
	t.Parallel()
	const good = `{"version":1,"status":"fix","envelope":"YQ=="}`
	for name, c := range map[string]struct {
		kind, body string
		ok         bool
	}{
		"a fix":             {ContentType, good, true},
		"with parameters":   {ContentType + "; charset=utf-8", good, true},
		"no fix":            {ContentType, `{"version":1,"status":"none","retry_seconds":5}`, true},
		"a sign-in page":    {"text/html", "<html>Welcome to the hotel</html>", false},
		"no type":           {"", good, false},
		"another version":   {ContentType, `{"version":2,"status":"none"}`, false},
		"an unknown status": {ContentType, `{"version":1,"status":"maybe"}`, false},
		"an empty promise":  {ContentType, `{"version":1,"status":"fix"}`, false},
		"torn":              {ContentType, good[:20], false},
		"endless":           {ContentType, strings.Repeat(" ", MaxResponse) + good, false},
	} {
		if _, err := DecodeResponse(c.kind, []byte(c.body)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"machine":"m","digest":"` + strings.Repeat("0", 64) + `","attempt":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := DecodeRequest(data); err == nil && r.Check() != nil {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add([]byte(`{"version":1,"status":"fix","envelope":"YQ=="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := DecodeResponse(ContentType, data); err == nil && r.Status == HasFix && len(r.Envelope) == 0 {
			t.Fatal("a fix without an envelope")
		}
	})
}

func FuzzDecodeRevocations(f *testing.F) {
	f.Add([]byte(`{"version":1,"revocations":["YQ=="]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := DecodeRevocations(data)
		if err != nil {
			return
		}
		text, err := EncodeRevocations(list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeRevocations(text)
		if err != nil || len(again) != len(list) {
			t.Fatalf("%d became %d: %v", len(list), len(again), err)
		}
	})
}

// TestRevocationsAreBounded: what is written can always be read, and what is too much is left out or refused.
func TestRevocationsAreBounded(t *testing.T) {
	t.Parallel()
	many := [][]byte{bytes.Repeat([]byte("x"), MaxRevocation+1)}
	for range MaxRevocations + 4 {
		many = append(many, bytes.Repeat([]byte("x"), MaxRevocation))
	}
	text, err := EncodeRevocations(many)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRevocations(text); err != nil || len(got) != MaxRevocations {
		t.Errorf("%d, %v", len(got), err)
	}
	for name, text := range map[string]string{
		"another version": `{"version":2,"revocations":[]}`, "torn": `{"version":1,`,
		"too many":  `{"version":1,"revocations":["YQ=="` + strings.Repeat(`,"YQ=="`, MaxRevocations) + `]}`,
		"too large": `{"version":1,"revocations":["` + strings.Repeat("YWFh", MaxRevocation/3+1) + `"]}`,
		"endless":   strings.Repeat(" ", MaxRevocationsFile+1),
	} {
		if _, err := DecodeRevocations([]byte(text)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
