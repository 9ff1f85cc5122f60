package fleet

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/statement"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

func (p *plane) state(id string) string {
	p.t.Helper()
	out, err := p.admin.GetHost(p.t.Context(), connect.NewRequest(&fleetpb.GetHostRequest{Id: id}))
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Msg.GetHost().GetState()
}

func (p *plane) setState(id, state string) {
	p.t.Helper()
	_, err := p.admin.SetHostState(p.t.Context(), connect.NewRequest(&fleetpb.SetHostStateRequest{
		Id: id, State: state, Reason: "test",
	}))
	if err != nil {
		p.t.Fatal(err)
	}
}

// TestEnrolmentTokens: one token makes one host, once, in its time, and only here.
func TestEnrolmentTokens(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	other := start(t, nil)
	enrol := func(token string) (*client.Identity, error) {
		return client.Enrol(t.Context(), p.URL(), token, client.About{Labels: map[string]string{"customer": "evil"}}, nil)
	}
	token := p.token(map[string]string{"customer": "acme"})
	id, err := enrol(token)
	if err != nil {
		t.Fatal(err)
	}
	m := p.machine(id)
	m.checkIn(0)
	got, err := p.admin.GetHost(t.Context(), connect.NewRequest(&fleetpb.GetHostRequest{Id: id.HostID}))
	if err != nil || got.Msg.GetHost().GetLabels()["customer"] != "acme" {
		t.Errorf("the host chose its own customer: %v, %v", got, err)
	}
	if _, err := enrol(token); err == nil || !strings.Contains(err.Error(), "KO-2204") {
		t.Errorf("a token that was used: %v", err)
	}
	revoked := p.token(nil)
	list, err := p.admin.ListEnrolTokens(t.Context(), connect.NewRequest(&fleetpb.ListEnrolTokensRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Msg.GetTokens() {
		if e.GetUsedBy() == "" {
			_, err := p.admin.RevokeEnrolToken(t.Context(), connect.NewRequest(&fleetpb.RevokeEnrolTokenRequest{Id: e.GetId()}))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := enrol(revoked); err == nil || !strings.Contains(err.Error(), "KO-2204") {
		t.Errorf("a revoked token: %v", err)
	}
	if _, err := enrol(other.token(nil)); err == nil || !strings.Contains(err.Error(), "not the one") {
		t.Errorf("another fleet's token: %v", err)
	}
	for _, bad := range []string{"", "ko1.x.y", "hello", token[:len(token)-2]} {
		if _, err := enrol(bad); err == nil {
			t.Errorf("token %q is taken", bad)
		}
	}
	late := p.token(nil)
	p.hands.move(25 * time.Hour)
	if _, err := enrol(late); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a token of yesterday: %v", err)
	}
}

// TestEnrolmentCanBeRepeated: when the answer was lost, the same token and key give the same host.
func TestEnrolmentCanBeRepeated(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	token := p.token(nil)
	about := client.About{MachineID: "m1"}
	first, err := client.Enrol(t.Context(), p.URL(), token, about, key)
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Enrol(t.Context(), p.URL(), token, about, key)
	if err != nil || second.HostID != first.HostID || p.state(first.HostID) != store.Active {
		t.Errorf("%v, %v", second, err)
	}
}

// TestDuplicateIdentity: whatever shows that two machines are one host puts it into quarantine, where nothing is
// granted; a person releases it.
func TestDuplicateIdentity(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	about := client.About{MachineID: "golden-image"}
	first, err := client.Enrol(t.Context(), p.URL(), p.token(nil), about, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.Enrol(t.Context(), p.URL(), p.token(nil), about, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.state(first.HostID) != store.Active || p.state(second.HostID) != store.Quarantined {
		t.Errorf("a machine id twice: %s, %s", p.state(first.HostID), p.state(second.HostID))
	}
	if out := p.machine(second).checkIn(0); out.GetState() != store.Quarantined || len(out.GetOrders()) > 0 {
		t.Errorf("a quarantined host is told %v", out)
	}

	{ // two fetchers in turns
		m := p.machine(first)
		for _, c := range []struct{ instance, state string }{
			{"a", store.Active}, {"b", store.Active}, {"b", store.Active}, {"a", store.Quarantined}, {"a", store.Quarantined},
		} {
			out, err := m.CheckIn(t.Context(), &fleetpb.CheckInRequest{Instance: c.instance})
			if err != nil || out.GetState() != c.state {
				t.Errorf("instance %s: %v, %v, want %s", c.instance, out, err, c.state)
			}
		}
		p.setState(first.HostID, store.Active)
		if out := m.checkIn(0); out.GetState() != store.Active {
			t.Errorf("after its release: %v", out)
		}
	}
	{ // a replaced certificate
		m, old := p.machine(first), p.machine(first)
		keep := func(*client.Identity) error { return nil }
		if err := m.Renew(t.Context(), keep); err != nil {
			t.Fatal(err)
		}
		if out := old.checkIn(0); out.GetState() != store.Active {
			t.Errorf("the old certificate before the new one was used: %v", out)
		}
		if out := m.checkIn(0); out.GetState() != store.Active {
			t.Errorf("the new certificate: %v", out)
		}
		if out := old.checkIn(0); out.GetState() != store.Quarantined {
			t.Errorf("the old certificate after it: %v", out)
		}
	}
	p.setState(first.HostID, store.Retired)
	if _, err := p.machine(first).try(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "KO-2203") {
		t.Errorf("a retired host: %v", err)
	}
}

// TestCertificateLives: seven days, asked to renew after two thirds; past its end it is good for renewal only, and
// after ninety days for nothing.
func TestCertificateLives(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(2)
	m, lost := machines[0], machines[1]
	if out := m.checkIn(0); out.GetRenew() {
		t.Error("a new certificate should be renewed")
	}
	p.hands.move(identity.HostLife * 3 / 4)
	if out := m.checkIn(0); !out.GetRenew() {
		t.Error("an old certificate should not be renewed")
	}
	p.hands.move(identity.HostLife)
	_, err := m.try(t.Context(), 0)
	if !errors.Is(err, client.ErrCertificate) || !strings.Contains(err.Error(), "KO-2203") {
		t.Errorf("an ended certificate checks in: %v", err)
	}
	if err := m.Renew(t.Context(), func(*client.Identity) error { return nil }); err != nil {
		t.Fatalf("an ended certificate is not renewed: %v", err)
	}
	m.checkIn(0)
	p.hands.move(identity.HostGrace + identity.HostLife)
	if err := lost.Renew(t.Context(), func(*client.Identity) error { return nil }); err == nil {
		t.Error("a host that was away for longer than the grace renews")
	}
}

// TestSignedTime: the answer to a nonce is the server's time, and nobody else can have said it.
func TestSignedTime(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	m := p.enrolled(1)[0]
	req := m.report()
	req.Nonce = []byte("0123456789abcdef")
	out, err := m.CheckIn(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := statement.OpenTime(m.key, out.GetSignedTime())
	if err != nil || !bytes.Equal(got.Nonce, req.GetNonce()) || !got.Now.Equal(p.hands.read()) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRestart: hosts, tokens and rollouts are there after a restart, and the trail is whole.
func TestRestart(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	machines := p.enrolled(12)
	id := p.create(newContent()).GetId()
	p.round(machines)
	p.round(machines)
	before := p.rollout(id)
	p.stop()
	p.launch()
	t.Cleanup(func() { p.stop() })
	p.tick() // it goes through the conductor, which leads from then on
	after := p.rollout(id)
	if after.GetEpoch() <= before.GetEpoch() || after.GetRings()[0].GetGranted() != before.GetRings()[0].GetGranted() {
		t.Errorf("before %v, after %v", before, after)
	}
	for range 3 {
		p.round(machines)
		within(t, p.rollout(id))
	}
	out, err := p.admin.VerifyAudit(context.Background(), connect.NewRequest(&fleetpb.VerifyAuditRequest{}))
	if err != nil || !out.Msg.GetIntact() || out.Msg.GetEntries() < 15 {
		t.Errorf("the audit trail: %v, %v", out, err)
	}
}
