package fleet

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
)

// TestRevocationsReachRunningHosts: a check-in brings what somebody with a key took back, as it was signed, once to
// each host, at once although the host would wait, and never what a person only stopped here or what has expired.
func TestRevocationsReachRunningHosts(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	p.trusts("organisation.pem", "ada", "bob")
	ann, ben := p.as("ann", "", "operator"), p.as("ben", "", "approver")
	m := p.enrolled(1)[0]
	var mark uint64
	said := func(wait uint32) [][]byte {
		t.Helper()
		req := m.report()
		req.WaitSeconds, req.RevocationsMark = wait, mark
		out, err := m.CheckIn(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		mark, m.revision = out.GetRevocationsMark(), out.GetRevision()
		return out.GetRevocations()
	}
	if got := said(0); len(got) != 0 || mark != 0 {
		t.Fatalf("%d revocations before there was any, mark %d", len(got), mark)
	}
	for _, id := range []string{"fix-1", "fix-2"} {
		f := remediation.Fix{ID: id, Kind: remediation.Campaign, Symptom: remediation.Symptom{Provider: "acme"}}
		if err := errors.Join(create(p, ann, p.sealed(f, "ada", "bob")), approve(p, ben, id, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.as("hal", "", "halter").RevokeRemediation(t.Context(), connect.NewRequest(
		&fleetpb.RevokeRemediationRequest{Id: "fix-2", Reason: "290 is bad, too"})); err != nil {
		t.Fatal(err)
	}
	if got := said(0); len(got) != 0 {
		t.Errorf("%d revocations that nobody signed", len(got))
	}
	first := p.sealed(remediation.Fix{ID: "r-1", Kind: remediation.Revocation, Revokes: []string{"fix-1"}}, "bob")
	if err := create(p, ann, first); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if got := said(55); len(got) != 1 || !bytes.Equal(got[0], first) || mark == 0 {
		t.Fatalf("%d revocations after one, mark %d", len(got), mark)
	}
	if took := time.Since(begun); took > 50*time.Second {
		t.Errorf("the news waited %s for the end of a long-poll", took)
	}
	if got := said(0); len(got) != 0 {
		t.Errorf("%d revocations are said again", len(got))
	}
	p.hands.move(time.Minute)
	second := p.sealed(remediation.Fix{ID: "r-2", Kind: remediation.Revocation, Revokes: []string{"fix-3"}}, "ada")
	if err := create(p, ann, second); err != nil {
		t.Fatal(err)
	}
	if got := said(0); len(got) != 2 || !bytes.Equal(got[0], second) {
		t.Errorf("%d revocations after two", len(got))
	}
	p.hands.move(2 * time.Hour)
	if got := said(0); len(got) != 0 || mark != 0 {
		t.Errorf("%d revocations that have expired, mark %d", len(got), mark)
	}
}
