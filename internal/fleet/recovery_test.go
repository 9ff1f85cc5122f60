package fleet

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"filippo.io/age"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

// keyOf is a person's key, always the same for one name.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// trusts puts public keys into the control plane's folder.
func (p *plane) trusts(file string, names ...string) {
	p.t.Helper()
	var text []byte
	for _, n := range names {
		der, err := x509.MarshalPKIXPublicKey(keyOf(n).Public())
		if err != nil {
			p.t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	dir := filepath.Join(p.cfg.StateDir, FixKeys)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, file), text, 0o600)); err != nil {
		p.t.Fatal(err)
	}
}

// failed is one machine in its recovery environment, with a sealed bundle.
type failed struct {
	p      *plane
	web    *http.Client
	name   string
	digest string
	parcel []byte
	bundle diagnostics.Bundle
}

func (p *plane) failed(machineID, cause string, test bool) *failed {
	p.t.Helper()
	who, err := age.GenerateX25519Identity()
	if err != nil {
		p.t.Fatal(err)
	}
	nonce := sha256.Sum256([]byte(machineID + cause + p.t.Name()))
	bundle, encoded, err := diagnostics.Make(&diagnostics.Input{
		MachineID: machineID, Test: test, Now: p.hands.read(), Nonce: nonce[:16], PanicLog: []byte(cause),
		Failure: diagnostics.Failure{Attempts: 3, Cause: cause},
	}, diagnostics.Full)
	if err != nil {
		p.t.Fatal(err)
	}
	parcel, err := diagnostics.Seal(encoded, []age.Recipient{who.Recipient()})
	if err != nil {
		p.t.Fatal(err)
	}
	return &failed{
		p: p, web: p.browserWith(nil), name: bundle.Machine, digest: diagnostics.Digest(encoded), parcel: parcel,
		bundle: bundle,
	}
}

func (f *failed) post(path, kind string, body []byte) (int, string, string) {
	f.p.t.Helper()
	req, err := http.NewRequestWithContext(f.p.t.Context(), http.MethodPost, f.p.URL()+path, bytes.NewReader(body))
	if err != nil {
		f.p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	res, err := f.web.Do(req)
	if err != nil {
		f.p.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		f.p.t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(text)
}

func (f *failed) upload() {
	f.p.t.Helper()
	if code, _, text := f.post(protocol.BundlePath, protocol.BundleType, f.parcel); code != http.StatusNoContent {
		f.p.t.Fatalf("upload: %d %s", code, text)
	}
}

// answer asks for a fix.
func (f *failed) answer(attempt int, suspect string) protocol.FixResponse {
	f.p.t.Helper()
	body, err := json.Marshal(protocol.FixRequest{
		Version: 1, Machine: f.name, Digest: f.digest, Attempt: attempt, Visits: 1, Suspect: suspect, Test: f.bundle.Test,
	})
	if err != nil {
		f.p.t.Fatal(err)
	}
	code, kind, text := f.post(protocol.FixPath, protocol.ContentType, body)
	if code != http.StatusOK {
		f.p.t.Fatalf("ask: %d %s", code, text)
	}
	out, err := protocol.DecodeResponse(kind, []byte(text))
	if err != nil {
		f.p.t.Fatal(err)
	}
	return out
}

// ask asks for a fix and returns its id, or "".
func (f *failed) ask(attempt int, suspect string) string {
	f.p.t.Helper()
	out := f.answer(attempt, suspect)
	if out.Status == protocol.NoFix {
		return ""
	}
	// It must be one that a machine believes.
	plan, err := remediation.Judge(remediation.Trust{Organisation: sign.Role{
		Keys: remediation.PublicKeys(keyOf("ada"), keyOf("bob")), Threshold: 2,
	}}, remediation.State{}, remediation.Machine{
		ID: f.name, Bundle: f.digest, Signature: f.bundle.Signature.ID, Now: f.p.hands.read(), Test: f.bundle.Test,
		Providers: []remediation.Provider{{ID: "acme"}},
	}, out.Envelope)
	if err != nil {
		f.p.t.Fatal(err)
	}
	return plan.Fix.ID
}

// sealed is a fix with signatures.
func (p *plane) sealed(f remediation.Fix, keys ...string) []byte {
	p.t.Helper()
	f.Format, f.Reason = remediation.Format, "content 291 ends machines"
	f.Issued, f.Expires = p.hands.read().UTC(), p.hands.read().UTC().Add(time.Hour)
	if f.Kind == remediation.Campaign && f.Sequence == 0 {
		f.Sequence = 1
	}
	if f.Kind != remediation.Revocation && f.Actions == nil {
		f.Actions = []remediation.Action{{Verb: remediation.RollbackContent, Provider: "acme"}}
	}
	payload, err := remediation.Encode(&f)
	if err != nil {
		p.t.Fatal(err)
	}
	var signers []ed25519.PrivateKey
	for _, k := range keys {
		signers = append(signers, keyOf(k))
	}
	out, err := sign.Seal(signers, remediation.PayloadType, payload)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func create(p *plane, who fleetpbconnect.FleetServiceClient, envelope []byte) error {
	_, err := who.CreateRemediation(p.t.Context(), connect.NewRequest(
		&fleetpb.CreateRemediationRequest{Envelope: envelope}))
	return err
}

func approve(p *plane, who fleetpbconnect.FleetServiceClient, id string, envelope []byte) error {
	_, err := who.ApproveRemediation(p.t.Context(), connect.NewRequest(
		&fleetpb.ApproveRemediationRequest{Id: id, Envelope: envelope}))
	return err
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

// TestFixReachesTheMachine is the whole way: a bundle, a fix of two people with two keys, the machine that gets it,
// and others that do not.
func TestFixReachesTheMachine(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	p.trusts("organisation.pem", "ada", "bob")
	ann, ben := p.as("ann", "", "operator"), p.as("ben", "", "approver")
	sick := p.failed("id-1", "Kernel panic - not syncing: VFS: no root", false)
	other := p.failed("id-2", "Oops in acme_filter", false)
	sick.upload()
	sick.upload() // again: the answer was lost
	other.upload()
	if got := sick.ask(1, "acme"); got != "" {
		t.Fatalf("got fix %q before there was any", got)
	}

	fix := remediation.Fix{ID: "fix-1", Kind: remediation.Campaign, Symptom: remediation.Symptom{
		Signature: sick.bundle.Signature.ID,
	}}
	one := p.sealed(fix, "ada")
	if err := create(p, ann, one); err != nil {
		t.Fatal(err)
	}
	if got := sick.ask(2, "acme"); got != "" {
		t.Fatalf("fix %q was served with one person's word", got)
	}
	wantCode(t, approve(p, ben, "fix-1", nil), "KO-2704") // one key
	both, err := sign.Cosign(one, keyOf("bob"))
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, approve(p, p.as("ann", "", "approver"), "fix-1", both), "KO-2704") // the same person, another token
	elsewise := fix
	elsewise.Actions = []remediation.Action{{Verb: remediation.SafeMode}}
	wantCode(t, approve(p, ben, "fix-1", p.sealed(elsewise, "ada", "bob")), "KO-2208") // another text
	if err := approve(p, ben, "fix-1", both); err != nil {
		t.Fatal(err)
	}
	if got := sick.ask(3, "acme"); got != "fix-1" {
		t.Errorf("the machine with the symptom gets %q", got)
	}
	if got := other.ask(1, "acme"); got != "" {
		t.Errorf("a machine with another failure gets %q", got)
	}
	wantCode(t, approve(p, ben, "fix-1", both), "KO-2705")
	wantCode(t, create(p, ann, one), "KO-2705")

	// Its answer to one report goes before the campaign, and to nobody else.
	targeted := p.sealed(remediation.Fix{ID: "fix-2", Kind: remediation.Targeted, Bundle: sick.digest}, "ada", "bob")
	if err := errors.Join(create(p, ann, targeted), approve(p, ben, "fix-2", nil)); err != nil {
		t.Fatal(err)
	}
	if a, b := sick.ask(1, ""), sick.ask(2, ""); a != "fix-2" || b != "fix-1" {
		t.Errorf("the first attempts get %q and %q", a, b)
	}
	if _, err := p.as("hal", "", "halter").RevokeRemediation(t.Context(), connect.NewRequest(
		&fleetpb.RevokeRemediationRequest{Id: "fix-2", Reason: "290 is bad, too"})); err != nil {
		t.Fatal(err)
	}
	revocation := p.sealed(remediation.Fix{ID: "r-1", Kind: remediation.Revocation, Revokes: []string{"fix-1"}}, "bob")
	if err := create(p, ann, revocation); err != nil {
		t.Fatal(err)
	}
	if a, b := sick.ask(1, ""), sick.ask(2, ""); a != "" || b != "" {
		t.Errorf("after the revocations it gets %q and %q", a, b)
	}
	// What one key revoked reaches machines as it was signed; what a person stopped here has no signature to show.
	if got := sick.answer(3, "").Revocations; len(got) != 1 || !bytes.Equal(got[0], revocation) {
		t.Errorf("%d revocations reach the machine", len(got))
	}
	p.hands.move(2 * time.Hour)
	if got := sick.answer(4, "").Revocations; len(got) != 0 {
		t.Errorf("%d expired revocations are served", len(got))
	}
}

// TestFixesThatNobodyTakes: without keys nothing is taken, and with them only what they signed.
func TestFixesThatNobodyTakes(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	ann := p.as("ann", "", "operator")
	fix := remediation.Fix{ID: "f", Kind: remediation.Campaign, Symptom: remediation.Symptom{Provider: "acme"}}
	wantCode(t, create(p, ann, p.sealed(fix, "ada", "bob")), "KO-2703")
	p.trusts("organisation.pem", "ada", "bob")
	p.trusts("acme.pem", "victor")
	wantCode(t, create(p, ann, p.sealed(fix, "mallory")), "KO-2703")
	wantCode(t, create(p, ann, p.sealed(fix, "victor")), "KO-2703") // a vendor signs as the organisation
	wantCode(t, create(p, ann, []byte("{}")), "KO-2703")
	fix.Vendor = "acme"
	vendor := p.as("victor", "acme", "vendor")
	wantCode(t, create(p, p.as("ian", "initech", "vendor"), p.sealed(fix, "victor")), "KO-2202")
	if err := create(p, vendor, p.sealed(fix, "victor")); err != nil {
		t.Fatal(err)
	}
	if err := approve(p, p.as("ben", "", "approver"), "f", nil); err != nil {
		t.Error(err)
	}
	p.hands.move(2 * time.Hour)
	if got := p.failed("id-1", "panic", false).ask(1, "acme"); got != "" {
		t.Errorf("an expired fix %q is served", got)
	}
}

// TestRehearsalsStayAmongThemselves: a rehearsal gets rehearsals' fixes only, and is no beacon and in no group.
func TestRehearsalsStayAmongThemselves(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	p.trusts("organisation.pem", "ada", "bob")
	ann, ben := p.as("ann", "", "operator"), p.as("ben", "", "approver")
	p.enrolled(1)
	drill := p.failed("machine-0", "a drill", true)
	drill.upload()
	for id, test := range map[string]bool{"real": false, "drill": true} {
		f := remediation.Fix{ID: id, Kind: remediation.Campaign, Test: test, Symptom: remediation.Symptom{Provider: "acme"}}
		if test {
			f.Actions = []remediation.Action{{Verb: remediation.Collect}}
		}
		if err := errors.Join(create(p, ann, p.sealed(f, "ada", "bob")), approve(p, ben, id, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if got := drill.ask(1, ""); got != "drill" {
		t.Errorf("the rehearsal gets %q", got)
	}
	if got := p.failed("id-2", "real", false).ask(1, ""); got != "real" {
		t.Errorf("a machine in earnest gets %q", got)
	}
	groups, err := p.admin.ListGroups(t.Context(), connect.NewRequest(&fleetpb.ListGroupsRequest{}))
	beacons, err2 := p.admin.ListBeacons(t.Context(), connect.NewRequest(&fleetpb.ListBeaconsRequest{}))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if len(groups.Msg.GetGroups()) != 0 || len(beacons.Msg.GetBeacons()) != 0 {
		t.Errorf("a rehearsal counts: %v %v", groups.Msg, beacons.Msg)
	}
}

// TestGroupsAndParcels: bundles of one failure are one group, with the versions of the hosts that are enrolled; the
// sealed bundle comes back as it was sent.
func TestGroupsAndParcels(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	hosts := p.enrolled(2)
	for _, m := range hosts {
		req := m.report()
		req.Installed[0].Digest = digest("new")
		old := &fleetpb.Installed{
			Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digest("old"), Slot: "lkg",
		}
		req.Installed = append(req.Installed, old)
		if _, err := m.CheckIn(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		f := p.failedAs(m)
		if err := m.SendParcel(t.Context(), f.parcel); err != nil {
			t.Fatal(err)
		}
		out, err := p.admin.GetBundle(t.Context(), connect.NewRequest(&fleetpb.GetBundleRequest{Digest: f.digest[:12]}))
		if err != nil || !bytes.Equal(out.Msg.GetParcel(), f.parcel) || out.Msg.GetBundle().GetHost() != m.Identity().HostID {
			t.Errorf("the bundle comes back as %v, %v", out, err)
		}
	}
	p.failed("stranger", "Kernel panic: same", false).upload()
	out, err := p.admin.ListGroups(t.Context(), connect.NewRequest(&fleetpb.ListGroupsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	want := "acme content " + digest("new")
	g := out.Msg.GetGroups()
	if len(g) != 1 || g[0].GetBundles() != 3 || g[0].GetMachines() != 3 || g[0].GetVersions()[want] != 2 ||
		g[0].GetSuspectedChange() != want || g[0].GetShare() != 1 {
		t.Errorf("the group is %v", g)
	}
	wantCode(t, hosts[0].SendParcel(t.Context(), []byte("no parcel")), "KO-2701")
}

// failedAs is the recovery environment of an enrolled machine.
func (p *plane) failedAs(m *machine) *failed {
	p.t.Helper()
	return p.failed(p.roll.find(m.Identity().HostID).snapshot().MachineID, "Kernel panic: same", false)
}

// TestRecoveryStopsARollout: hosts that were granted new content and come up in recovery stop its rollout, by the way
// that the recovery environment takes, and each counts once however often it asks.
func TestRecoveryStopsARollout(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(30)
	r := p.create(newContent())
	for range 3 {
		p.round(machines)
	}
	asked := 0
	for _, m := range machines {
		if m.granted == 0 {
			continue
		}
		f := p.failedAs(m)
		f.upload()
		for attempt := range 4 {
			f.ask(attempt+1, "acme")
		}
		if asked++; asked == 1 && p.rollout(r.GetId()).GetStatus() == "halted" {
			t.Fatal("one host stopped the rollout: what it says four times counted four times")
		}
	}
	got := p.rollout(r.GetId())
	if asked < 2 || got.GetStatus() == "running" {
		t.Errorf("after %d machines in recovery the rollout is %s: %s", asked, got.GetStatus(), got.GetReason())
	}
	beacons, err := p.admin.ListBeacons(t.Context(), connect.NewRequest(&fleetpb.ListBeaconsRequest{}))
	if err != nil || len(beacons.Msg.GetBeacons()) < asked {
		t.Errorf("%d beacons of %d machines, %v", len(beacons.Msg.GetBeacons()), asked, err)
	}
}

// TestRecoveryRefusesNonsense: no request brings the server down or is answered as if it were one.
func TestRecoveryRefusesNonsense(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	f := p.failed("id-1", "panic", false)
	long := make([]byte, protocol.MaxBundle+100)
	for i, c := range []struct {
		path string
		body []byte
		want int
	}{
		{protocol.BundlePath, nil, 400},
		{protocol.BundlePath, long, 413},
		{protocol.BundlePath, f.parcel[:40], 400},
		{protocol.FixPath, []byte("{"), 400},
		{protocol.FixPath, []byte(`{"version":1,"machine":"m","digest":"x"}`), 400},
		{protocol.ReportPath, []byte(`{"version":2}`), 400},
		{protocol.ReportPath, []byte(`{"version":1,"source":"server","machine":"nobody"}`), 204},
	} {
		if code, _, text := f.post(c.path, "text/plain", c.body); code != c.want {
			t.Errorf("%d %s: %d %s, want %d", i, c.path, code, text, c.want)
		}
	}
	f.upload()
	thief := *f
	thief.name = fmt.Sprintf("%032x", 7)
	p.trusts("organisation.pem", "ada", "bob")
	if got := thief.ask(1, ""); got != "" {
		t.Errorf("with another machine's digest one gets %q", got)
	}
}
