package fleet

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/access"
	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// endpoints lists all that there is: each method of the .proto file, and the other paths.
func endpoints() (paths []string) {
	services := fleetpb.File_fleet_proto.Services()
	for i := range services.Len() {
		s := services.Get(i)
		for k := range s.Methods().Len() {
			paths = append(paths, "/"+string(s.FullName())+"/"+string(s.Methods().Get(k).Name()))
		}
	}
	return append(paths, "/healthz", "/openapi.json", "/ca.pem", "/packages/x", "/nothing",
		protocol.BundlePath, protocol.FixPath, protocol.ReportPath,
		"/keepout.fleet.v1.FleetService/None")
}

// mayCall is who may call what, written once more by hand: the table of package access must say the same.
func mayCall() map[string]string {
	const all = "viewer operator approver halter vendor admin"
	const most = "viewer operator approver halter admin"
	return map[string]string{
		"/healthz": "nobody host " + all, "/openapi.json": "nobody host " + all, "/ca.pem": "nobody host " + all,
		"/packages/x": "host " + all, "Enrol": "nobody host " + all,
		"Renew": "host", "CheckIn": "host", "ReportRecovery": "host",
		"WhoAmI": all, "GetSummary": all, "ListHosts": most, "GetHost": most, "SetHostState": "operator admin",
		"CreateEnrolToken": "operator admin", "ListEnrolTokens": "operator admin", "RevokeEnrolToken": "operator admin",
		"CreateAccessToken": "admin", "ListAccessTokens": "admin", "RevokeAccessToken": "admin",
		"PlanRollout": all, "CreateRollout": "operator admin", "ListRollouts": all, "GetRollout": all,
		"ApproveRollout": "approver admin", "PauseRollout": "operator halter admin", "ResumeRollout": "operator admin",
		"HaltRollout": "operator approver halter admin", "ExplainRollout": all, "ListAudit": most, "VerifyAudit": most,
		"ListBuckets": all, "ListBeacons": most,
		protocol.BundlePath: "nobody host " + all, protocol.FixPath: "nobody host " + all,
		protocol.ReportPath: "nobody host " + all,
		"ListBundles":       most, "GetBundle": most, "ListGroups": most, "ListRemediations": most, "GetRemediation": most,
		"CreateRemediation": "operator vendor admin", "ApproveRemediation": "approver admin",
		"RevokeRemediation": "operator approver halter admin",
		"SetHold":           "operator halter admin", "RemoveHold": "operator admin", "ListHolds": most,
	}
}

// TestEveryEndpointForEveryRole calls all that there is as everybody, over the wire.
func TestEveryEndpointForEveryRole(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	id := p.enrolled(1)[0].Identity()
	login, err := client.LoadLogin(p.AdminFile())
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]*http.Client{"nobody": p.browserWith(nil), "host": p.browserOf(&id)}
	tokens := map[string]string{"admin": login.Token}
	for _, role := range access.People() {
		if role != access.Admin {
			tokens[string(role)] = p.secret(role)
		}
		callers[string(role)] = p.browserWith(nil)
	}
	may := mayCall()
	for _, path := range endpoints() {
		allowed, known := may[path]
		if !known {
			allowed = may[path[strings.LastIndex(path, "/")+1:]]
		}
		for name, browser := range callers {
			status, body := call(t, browser, p.URL()+path, tokens[name])
			refused := strings.Contains(body, "KO-2201") || strings.Contains(body, "this is not for the roles of") ||
				strings.Contains(body, "KO-2203") || strings.Contains(body, "there is nothing at this path")
			if want := slices.Contains(strings.Fields(allowed), name); refused == want {
				t.Errorf("%s as %s: %d %s, want allowed: %v", path, name, status, body, want)
			}
		}
	}
}

// TestEveryEndpointIsInTheTable: what the .proto file has and the table lacks is for nobody.
func TestEveryEndpointIsInTheTable(t *testing.T) {
	t.Parallel()
	services := fleetpb.File_fleet_proto.Services()
	for i := range services.Len() {
		for k := range services.Get(i).Methods().Len() {
			path := "/" + string(services.Get(i).FullName()) + "/" + string(services.Get(i).Methods().Get(k).Name())
			if len(access.Allowed(path)) == 0 {
				t.Errorf("%s is for nobody: give it a line in package access", path)
			}
		}
	}
	if access.May("/x", access.Admin) || access.May("/packages", access.Admin) {
		t.Error("what is not in the table is allowed")
	}
}

// secret makes a token with one role.
func (p *plane) secret(role access.Role) string {
	p.t.Helper()
	vendor := ""
	if role == access.Vendor {
		vendor = "acme"
	}
	return p.secretOf(string(role), vendor, string(role))
}

func (p *plane) browserOf(id *client.Identity) *http.Client {
	p.t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(id.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.browserWith([]tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}})
}

// browserWith is a plain HTTP client that trusts the control plane.
func (p *plane) browserWith(certs []tls.Certificate) *http.Client {
	p.t.Helper()
	config := identity.ClientTLS(p.authority.Root)
	config.Certificates = certs
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func call(t *testing.T, c *http.Client, url, token string) (int, string) {
	t.Helper()
	method := http.MethodPost
	if !strings.Contains(url, "Service/") {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
