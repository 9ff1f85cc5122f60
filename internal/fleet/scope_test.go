package fleet

import (
	"maps"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// labels reads K=V pairs.
func labels(text string) map[string]string {
	out := map[string]string{}
	for _, pair := range strings.Fields(text) {
		key, value, _ := strings.Cut(pair, "=")
		out[key] = value
	}
	return out
}

// TestScopedTokens: a token enrols only hosts whose labels are in its scope. Who is refused leaves the token good and a
// line in the audit trail; who is in cannot leave by saying something else later.
func TestScopedTokens(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	out, err := p.admin.CreateEnrolToken(t.Context(), connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{
		Labels: labels("customer=acme"), Scope: []string{"customer=acme", "site=berlin", "site=paris", "rack=*"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	token := out.Msg.GetSecret()
	outside := []string{"site=rome", "site=berlin tier=canary", "site=berlin pin=first", "", "rack=1", "site=", "site=*"}
	for _, says := range outside {
		_, err := client.Enrol(t.Context(), p.URL(), token, client.About{Labels: labels(says)}, nil)
		if err == nil || !strings.Contains(err.Error(), codeScope) {
			t.Errorf("%q: %v", says, err)
		}
	}
	refused := p.entries("host.enrol-refused")
	if len(refused) != len(outside) || !strings.Contains(refused[0].GetDetail(), "site=rome") {
		t.Errorf("audit: %v", refused)
	}
	id, err := client.Enrol(t.Context(), p.URL(), token, client.About{
		Labels: labels("site=paris rack=7 kernel=6.18 distro=debian customer=evil"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if joined := p.entries("host.enrol"); len(joined) != 1 || !strings.Contains(joined[0].GetDetail(), "site=berlin") {
		t.Errorf("audit: %v", joined)
	}
	p.says(id, "site=berlin rack=8 tier=canary customer=evil kernel=6.19")
	want := labels("customer=acme site=berlin rack=8 kernel=6.19 distro=debian")
	if got := p.labelsOf(id); !maps.Equal(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	p.stop()
	p.launch()
	t.Cleanup(func() { p.stop() })
	p.says(id, "site=rome")
	if got := p.labelsOf(id); !maps.Equal(got, want) {
		t.Errorf("after a restart: labels %v, want %v", got, want)
	}
	list, err := p.admin.ListEnrolTokens(t.Context(), connect.NewRequest(&fleetpb.ListEnrolTokensRequest{}))
	if err != nil || len(list.Msg.GetTokens()[0].GetScope()) != 4 {
		t.Errorf("tokens %v, %v", list, err)
	}
}

// says checks in once with labels.
func (p *plane) says(id *client.Identity, text string) {
	p.t.Helper()
	_, err := p.machine(id).CheckIn(p.t.Context(), &fleetpb.CheckInRequest{
		Instance: "i", BootId: "b", Labels: labels(text),
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) labelsOf(id *client.Identity) map[string]string {
	p.t.Helper()
	got, err := p.admin.GetHost(p.t.Context(), connect.NewRequest(&fleetpb.GetHostRequest{Id: id.HostID}))
	if err != nil {
		p.t.Fatal(err)
	}
	return got.Msg.GetHost().GetLabels()
}

func (p *plane) entries(action string) (out []*fleetpb.AuditEntry) {
	p.t.Helper()
	trail, err := p.admin.ListAudit(p.t.Context(), connect.NewRequest(&fleetpb.ListAuditRequest{Limit: 1000}))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range trail.Msg.GetEntries() {
		if e.GetAction() == action {
			out = append(out, e)
		}
	}
	return out
}

// TestScopesAreChecked: a scope that makes no sense makes no token.
func TestScopesAreChecked(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	many := make([]string, maxLabels+1)
	for i := range many {
		many[i] = "k=" + strconv.Itoa(i)
	}
	for name, c := range map[string]struct {
		fixed string
		scope []string
	}{
		"no value": {"", []string{"site"}}, "no key": {"", []string{"=x"}}, "an empty value": {"", []string{"site="}},
		"what a machine is like": {"", []string{"kernel=6.18"}}, "too many": {"", many},
		"too long":            {"", []string{"site=" + strings.Repeat("x", maxLabel+1)}},
		"a label outside":     {"customer=acme", []string{"site=berlin"}},
		"a label beside it":   {"site=rome", []string{"site=berlin"}},
		"a pair in the value": {"site=a=b", []string{"site=a"}},
	} {
		_, err := p.admin.CreateEnrolToken(t.Context(), connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{
			Labels: labels(c.fixed), Scope: c.scope,
		}))
		if err == nil || !strings.Contains(err.Error(), codeInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLabelsAreBounded: a host that says new labels in each check-in does not grow for ever.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	had := map[string]string{}
	for i := range 1000 {
		had = relabelled(had, map[string]string{"k" + strconv.Itoa(i): "v"}, map[string]string{"customer": "acme"}, nil)
		if len(had) > 2*maxLabels || had["customer"] != "acme" || had["k"+strconv.Itoa(i)] != "v" {
			t.Fatalf("after %d: %d labels", i, len(had))
		}
	}
}
