package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

func codeOf(err error) string {
	var p health.Problem
	_ = errors.As(err, &p)
	return p.Code
}

// TestAFixThatCannotBeRemembered: it is not done, or a later start might do it again, and not lost: it is done once it
// can be remembered, and then never again.
func TestAFixThatCannotBeRemembered(t *testing.T) {
	t.Parallel()
	dir, f := machine(t)
	trust, fix := dir.Join(esp.Trust), sealed(t, "one", f.Bundle, disable)
	if err := os.Mkdir(dir.Join(memoryFile), 0o700); err != nil { // no file can take its name
		t.Fatal(err)
	}
	for range 2 {
		got, err := Verify(fix, trust)
		if !got.Later || !got.Orders.None() || codeOf(err) != remediation.CodeUnkept {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if err := os.Remove(dir.Join(memoryFile)); err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(fix, trust); err != nil || got.Later || len(got.Orders.Disabled) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	f.Bundle = strings.Repeat("3", 64)
	if err := Note(dir, f); err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(fix, trust); err == nil || got.Later {
		t.Errorf("after the next failure: %+v, %v", got, err)
	}
}

// TestAFixFindsRoomOnAFullDisk: old bundles give way to the memory of a fix, but for the newest; without others the fix
// waits, and says why.
func TestAFixFindsRoomOnAFullDisk(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root, testenv.MountNS)
	for name, bundles := range map[string]int{"with old bundles": esp.MaxBundles, "with one": 1, "without": 0} {
		dir, f := machineIn(t, testenv.Tmpfs(t, "512k"))
		if err := os.Mkdir(dir.Join(esp.Diag), 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range bundles {
			old := dir.Join(fmt.Sprintf("%s/%s2020-%d", esp.Diag, esp.BundlePrefix, i))
			if err := os.WriteFile(old, make([]byte, 8<<10), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(dir.Join("full"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
		got, err := Verify(sealed(t, "one", f.Bundle, disable), dir.Join(esp.Trust))
		_, kept := os.Stat(dir.Join(memoryFile))
		switch {
		case bundles > 1:
			if err != nil || got.Later || kept != nil {
				t.Errorf("%s: %+v, %v, %v", name, got, err, kept)
			}
		case !got.Later || !errors.Is(kept, fs.ErrNotExist):
			t.Errorf("%s: %+v, %v, %v", name, got, err, kept)
		default:
			const want = remediation.CodeUnkept + ": fix one cannot be remembered: no space left on device"
			if why := health.Unadvised(err); why != want {
				t.Errorf("%s: %q, want %q", name, why, want)
			}
		}
		if newest := fmt.Sprintf("%s/%s2020-%d", esp.Diag, esp.BundlePrefix, bundles-1); bundles > 0 {
			if _, err := os.Stat(dir.Join(newest)); err != nil {
				t.Errorf("%s: the newest is gone: %v", name, err)
			}
		}
	}
}

// crowd is an organisation and more vendors than a machine remembers, the ids of all of them as long as may be.
func crowd() (remediation.Trust, []string) {
	trust := remediation.Trust{
		Organisation: sign.Role{Keys: remediation.PublicKeys(key("a"), key("b")), Threshold: 2},
		Vendors:      map[string]sign.Role{},
	}
	var vendors []string
	for i := range 80 {
		id := fmt.Sprintf("v%0127d", i)
		vendors = append(vendors, id)
		trust.Vendors[id] = sign.Role{Keys: remediation.PublicKeys(key(id)), Threshold: 1}
	}
	return trust, vendors
}

// TestMemoryHasRoom: whatever comes, in whatever order, with power cuts in between: what is remembered can be read
// again; nothing that was taken is taken again after another fix; and the organisation's next campaign and its answer
// to a report are always taken.
func TestMemoryHasRoom(t *testing.T) {
	t.Parallel()
	trust, vendors := crowd()
	rapid.Check(t, func(rt *rapid.T) {
		p := &past{t: rt, trust: trust, vendors: vendors, m: crammed(rt, vendors), now: time.Now()}
		for range rapid.IntRange(1, 12).Draw(rt, "fixes") {
			p.n++
			p.happens()
			p.comesBack()
		}
		p.n++
		for kind, fix := range map[string]remediation.Fix{"campaign": p.campaign(""), "answer": p.answer()} {
			if err := p.take(p.seal(&fix)); err != nil {
				rt.Fatalf("the organisation's %s: %v", kind, err)
			}
		}
		p.comesBack()
		for i, fix := range p.taken[:len(p.taken)-1] {
			if err := p.take(fix); err == nil {
				rt.Fatalf("fix %d of %d is taken again", i+1, len(p.taken))
			}
		}
	})
}

// crammed is a memory that may be full of everything.
func crammed(t *rapid.T, vendors []string) (m memory) {
	s := remediation.State{Sequence: 1 << 52, Vendors: map[string]uint64{}, Floor: time.Now().Add(-time.Hour)}
	for i := range rapid.SampledFrom([]int{0, 62, 64}).Draw(t, "applied") {
		s.Applied = append(s.Applied, fmt.Sprintf("%064x", i))
	}
	for i := range rapid.SampledFrom([]int{0, 250, 256}).Draw(t, "revoked") {
		s.Revoked = append(s.Revoked, fmt.Sprintf("r%0127d", i))
	}
	for i := range rapid.SampledFrom([]int{0, 64}).Draw(t, "keys") {
		s.RevokedKeys = append(s.RevokedKeys, fmt.Sprintf("%064x", i))
	}
	for _, id := range vendors[:rapid.SampledFrom([]int{0, 62, 64}).Draw(t, "vendors")] {
		s.Vendors[id] = 1 << 52
	}
	return memory{State: s, Last: strings.Repeat("0", 64), Before: s}
}

// past is a machine with a memory.
type past struct {
	t       *rapid.T
	trust   remediation.Trust
	vendors []string
	m       memory
	now     time.Time
	n       int // of the failure, and of the fix that answers it
	taken   [][]byte
}

func (p *past) failure() *Failure {
	return &Failure{Machine: strings.Repeat("1", 32), Bundle: fmt.Sprintf("%064x", 1000+p.n), Floor: p.now.Add(-time.Hour)}
}

func (p *past) fix(kind remediation.Kind) remediation.Fix {
	return remediation.Fix{
		Format: remediation.Format, ID: fmt.Sprint("fix-", p.n), Kind: kind, Reason: "because",
		Issued: p.now.Add(-time.Minute), Expires: p.now.Add(time.Hour),
	}
}

func (p *past) campaign(vendor string) remediation.Fix {
	f := p.fix(remediation.Campaign)
	f.Vendor, f.Sequence = vendor, 1<<52+uint64(p.n)
	f.Symptom = remediation.Symptom{Signature: "0123456789abcdef"}
	f.Actions = []remediation.Action{{Verb: remediation.DisableProvider, Provider: "acme"}}
	if vendor != "" {
		f.Actions[0].Provider = vendor
	}
	return f
}

func (p *past) answer() remediation.Fix {
	f := p.fix(remediation.Targeted)
	f.Bundle, f.Actions = p.failure().Bundle, []remediation.Action{disable}
	return f
}

func (p *past) seal(f *remediation.Fix) []byte {
	by := []string{"a", "b"}
	if f.Vendor != "" {
		by = []string{f.Vendor}
	}
	text, err := remediation.Encode(f)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := sign.Seal(keysOf(by), remediation.PayloadType, text)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// happens is one failure, and what comes then.
func (p *past) happens() {
	f := p.campaign("")
	switch rapid.IntRange(0, 4).Draw(p.t, "kind") {
	case 0:
	case 1:
		f = p.answer()
	case 2:
		f = p.campaign(rapid.SampledFrom(p.vendors).Draw(p.t, "vendor"))
	case 3:
		f = p.fix(remediation.Revocation)
		for i := range rapid.IntRange(1, 7).Draw(p.t, "ids") {
			f.Revokes = append(f.Revokes, fmt.Sprintf("r%0127d", 1000*p.n+i))
		}
		if _, err := p.m.revoke(p.trust, p.failure(), p.now, p.seal(&f)); err != nil && codeOf(err) != remediation.CodeFull {
			p.t.Fatal(err)
		}
		return
	case 4: // a power cut: the last one is looked at again
		if len(p.taken) > 0 {
			_ = p.take(p.taken[len(p.taken)-1])
		}
		return
	}
	if err := p.take(p.seal(&f)); err != nil && codeOf(err) != remediation.CodeFull {
		p.t.Fatal(err)
	}
}

func (p *past) take(sealed []byte) error {
	f := p.failure()
	f.Signature = "0123456789abcdef"
	_, next, err := p.m.take(p.trust, f, p.now, sealed)
	if err != nil {
		return err
	}
	again := len(p.taken) > 0 && bytes.Equal(p.taken[len(p.taken)-1], sealed)
	if p.m = next; !again {
		p.taken = append(p.taken, sealed)
	}
	return nil
}

// comesBack writes the memory down and reads it.
func (p *past) comesBack() {
	text, err := json.Marshal(p.m)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(text) > maxMemory {
		p.t.Fatalf("%d bytes, %d are read", len(text), maxMemory)
	}
	got, err := decode(text)
	if err != nil {
		p.t.Fatal(err)
	}
	if !reflect.DeepEqual(got.State.Applied, p.m.State.Applied) || !maps.Equal(got.State.Vendors, p.m.State.Vendors) {
		p.t.Fatalf("it comes back as %+v", got)
	}
	p.m = got
}
