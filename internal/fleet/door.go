package fleet

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/access"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// Bounds of one request.
const (
	maxBody     = 256 << 10 // bytes
	answerTime  = 30 * time.Second
	packageTime = 30 * time.Minute
	maxWait     = 10 * time.Minute // of a long-poll
)

// caller is who made a request: a host, a person, or nobody.
type caller struct {
	member *member
	serial string
	ended  bool // the certificate is past its life: good for renewal only
	person store.AccessToken
}

// name is how the audit trail calls them.
func (c *caller) name() string {
	switch {
	case c.member != nil:
		return "host:" + c.member.id
	case c.person.Person != "":
		return c.person.Person
	default:
		return "nobody"
	}
}

func (c *caller) roles() []access.Role {
	roles := []access.Role{access.Anyone}
	if c.member != nil {
		return append(roles, access.Host)
	}
	for _, r := range c.person.Roles {
		roles = append(roles, access.Role(r))
	}
	return roles
}

// callerKey finds the caller in a request's context.
type callerKey struct{}

func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return &caller{}
}

// door lets a request through to next, or answers it with the reason why not. It is the only place that decides.
func (s *Server) door(next http.Handler) http.Handler {
	errs := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if int(s.busy.Add(1)) > s.cfg.MaxBusy {
			s.busy.Add(-1)
			s.turnAway(w, r, errs)
			return
		}
		defer s.busy.Add(-1)
		c, err := s.admit(r)
		if err != nil {
			w.Header().Set("Cache-Control", "no-store")
			_ = errs.Write(w, r, err) // the client has gone, there is nobody to tell
			return
		}
		s.setDeadlines(w, r)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// admit finds out who is calling, and whether they may.
func (s *Server) admit(r *http.Request) (*caller, error) {
	path := r.URL.Path
	if len(access.Allowed(path)) == 0 {
		return nil, refusal(connect.CodeNotFound, codeNotFound, "see /openapi.json", "there is nothing at this path")
	}
	c := &caller{}
	if access.May(path, access.Anyone) {
		return c, nil
	}
	var err error
	switch {
	case r.Header.Get("Authorization") != "":
		err = s.identifyPerson(r, c)
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		err = s.identifyHost(r, c)
	}
	if err != nil {
		return nil, err
	}
	roles := c.roles()
	switch {
	case access.May(path, roles...):
	case len(roles) == 1 && access.May(path, access.Host):
		return nil, refusal(connect.CodeUnauthenticated, codeCertificate, "enrol the host: keepout fleet enroll",
			"this needs a host's certificate")
	case len(roles) == 1:
		return nil, refusal(connect.CodeUnauthenticated, codeToken, "send Authorization: Bearer TOKEN",
			"this needs a token")
	default:
		return nil, refusal(connect.CodePermissionDenied, codeRole, "ask somebody who has that role",
			"this is not for the roles of %s, but for %s", c.name(), list(access.Allowed(path)))
	}
	if c.ended && path != access.HostService+"Renew" {
		return nil, refusal(connect.CodeUnauthenticated, codeCertificate, "renew it, or enrol the host anew",
			"the host's certificate has ended")
	}
	return c, nil
}

func list(roles []access.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

func (s *Server) identifyPerson(r *http.Request, c *caller) error {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t, found := s.tokens.find(identity.HashOf(strings.TrimSpace(secret)))
	if !ok || !found || t.Revoked || !s.clock().Before(t.Expires) {
		return refusal(connect.CodeUnauthenticated, codeToken, "ask an admin for a new one",
			"the token is not known, has expired or was revoked")
	}
	c.person = t
	return nil
}

func (s *Server) identifyHost(r *http.Request, c *caller) error {
	cert := r.TLS.PeerCertificates[0]
	m := s.roll.find(cert.Subject.CommonName)
	now := s.clock()
	if m == nil || m.snapshotState() == store.Retired || now.After(cert.NotAfter.Add(identity.HostGrace)) {
		return refusal(connect.CodeUnauthenticated, codeCertificate, "enrol it anew: keepout fleet enroll",
			"this host is not known any more")
	}
	c.member, c.serial, c.ended = m, cert.SerialNumber.Text(16), now.After(cert.NotAfter)
	switch m.recognise(c.serial) {
	case promoted:
		return s.persistHost(r.Context(), m, "", "")
	case current:
	case clone:
		return s.quarantine(r.Context(), m, "a replaced certificate was used again: two machines have this identity")
	}
	return nil
}

func (m *member) snapshotState() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.host.State
}

// setDeadlines bounds how long a client may take. The server's own timeouts hold for hosts, whose check-ins are to
// cost little; over HTTP/1.1, where they would end a long-poll, they are lifted once the request is read.
func (s *Server) setDeadlines(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.ProtoMajor > 1 && strings.HasPrefix(r.URL.Path, access.HostService) {
		return
	}
	rc := http.NewResponseController(w)
	// What cannot have a deadline has the connection's.
	switch {
	case r.URL.Path == access.HostService+"CheckIn":
		r.Body = &timedBody{ReadCloser: r.Body, rc: rc}
	case strings.HasPrefix(r.URL.Path, access.Packages):
		_ = rc.SetWriteDeadline(time.Now().Add(packageTime))
	default:
		_ = rc.SetWriteDeadline(time.Now().Add(answerTime))
	}
}

// timedBody takes the connection's deadline away once all is read.
type timedBody struct {
	io.ReadCloser

	rc *http.ResponseController
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && b.rc != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // as above
		b.rc = nil
	}
	return n, err
}

// turnAway tells a client of an overloaded server when to come back.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, errs *connect.ErrorWriter) {
	seconds := 1 + rand.Int64N(int64(s.spread()/time.Second)+1) //nolint:gosec // it spreads load, it hides nothing
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	_ = errs.Write(w, r, refusal(connect.CodeUnavailable, codeBusy, "try again later, as Retry-After says",
		"more requests at once than the control plane takes"))
}
