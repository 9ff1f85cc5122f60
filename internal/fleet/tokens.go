package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/access"
	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// Lifetimes of tokens.
const (
	enrolLife     = 24 * time.Hour
	maxEnrolLife  = 30 * 24 * time.Hour
	accessLife    = 90 * 24 * time.Hour
	maxAccessLife = 366 * 24 * time.Hour
)

// AdminFile is where the first start writes how to log in.
const AdminFile = "admin.json"

// tokens is every access token, by hash, so that a request needs no query. What is here is in the store, always.
type tokens struct {
	mu     sync.RWMutex
	byHash map[string]store.AccessToken
}

func loadTokens(ctx context.Context, s store.Store) (*tokens, error) {
	t := &tokens{byHash: map[string]store.AccessToken{}}
	err := s.View(ctx, func(r store.Reader) error {
		all, err := r.AccessTokens()
		for i := range all {
			t.byHash[all[i].Hash] = all[i]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the tokens: %w", err)
	}
	return t, nil
}

func (t *tokens) find(hash string) (store.AccessToken, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a, ok := t.byHash[hash]
	return a, ok
}

func (t *tokens) put(a store.AccessToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byHash[a.Hash] = a
}

// firstLogin makes the first admin's token, where there is no token at all, and writes it for a person to find.
func (s *Server) firstLogin(ctx context.Context, url string) error {
	if len(s.tokens.byHash) > 0 {
		return nil
	}
	secret, hash := identity.NewAccessToken()
	login := client.Login{
		Note:   "How to log in to this control plane: export KEEPOUT_FLEET_LOGIN=this file. Whoever reads it is admin.",
		Server: url, Token: secret, CA: string(identity.PEM("CERTIFICATE", s.authority.Root.Raw)),
	}
	// The file first: a token that nobody knows would be in the way of the next start.
	if err := durable.WriteFile(filepath.Join(s.cfg.StateDir, AdminFile), login.Text(), 0o600); err != nil {
		return fmt.Errorf("write how to log in: %w", err)
	}
	now := s.clock()
	t := store.AccessToken{
		ID: identity.NewID("t-"), Hash: hash, Person: "admin", Roles: []string{string(access.Admin)}, Created: now,
		Expires: now.Add(maxAccessLife),
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.PutAccessToken(t), s.note(tx, "keepout-fleet", "token.create", t.ID,
			map[string]any{"person": t.Person, "roles": t.Roles, "first": true}))
	})
	if err != nil {
		return errors.Join(err, os.Remove(filepath.Join(s.cfg.StateDir, AdminFile)))
	}
	s.tokens.put(t)
	return nil
}

// CreateAccessToken implements the service.
func (p people) CreateAccessToken(
	ctx context.Context, req *connect.Request[fleetpb.CreateAccessTokenRequest],
) (*connect.Response[fleetpb.CreateAccessTokenResponse], error) {
	s, m := p.s, req.Msg
	life, err := lifeOf(m.GetValidSeconds(), accessLife, maxAccessLife)
	if err != nil {
		return nil, err
	}
	if n := len(m.GetPerson()); n == 0 || n > maxLabel {
		return nil, invalid("person has 1 to %d bytes", maxLabel)
	}
	for _, r := range m.GetRoles() {
		if !slices.Contains(access.People(), access.Role(r)) {
			return nil, invalid("role %q is not known: %s", r, list(access.People()))
		}
	}
	vendor := slices.Contains(m.GetRoles(), string(access.Vendor))
	if len(m.GetRoles()) == 0 || vendor != (m.GetVendor() != "") || vendor && len(m.GetRoles()) > 1 {
		return nil, invalid("a token needs a role; vendor stands alone, and names the vendor's provider")
	}
	secret, hash := identity.NewAccessToken()
	now := s.clock()
	t := store.AccessToken{
		ID: identity.NewID("t-"), Hash: hash, Person: m.GetPerson(), Roles: m.GetRoles(), Vendor: m.GetVendor(),
		Created: now, Expires: now.Add(life),
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.PutAccessToken(t), s.note(tx, callerOf(ctx).name(), "token.create", t.ID,
			map[string]any{"person": t.Person, "roles": t.Roles, "vendor": t.Vendor}))
	})
	if err != nil {
		return nil, answer(err)
	}
	s.tokens.put(t)
	return connect.NewResponse(&fleetpb.CreateAccessTokenResponse{Token: accessPB(&t), Secret: secret}), nil
}

func lifeOf(seconds uint32, usual, most time.Duration) (time.Duration, error) {
	life := time.Duration(seconds) * time.Second
	if life == 0 {
		life = usual
	}
	if life > most {
		return 0, invalid("valid for at most %v", most)
	}
	return life, nil
}

func accessPB(t *store.AccessToken) *fleetpb.AccessToken {
	return &fleetpb.AccessToken{
		Id: t.ID, Person: t.Person, Roles: t.Roles, Vendor: t.Vendor, Expires: stamp(t.Expires), Revoked: t.Revoked,
	}
}

// ListAccessTokens implements the service.
func (p people) ListAccessTokens(
	ctx context.Context, _ *connect.Request[fleetpb.ListAccessTokensRequest],
) (*connect.Response[fleetpb.ListAccessTokensResponse], error) {
	out := &fleetpb.ListAccessTokensResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.AccessTokens()
		for i := range all {
			out.Tokens = append(out.Tokens, accessPB(&all[i]))
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// RevokeAccessToken implements the service.
func (p people) RevokeAccessToken(
	ctx context.Context, req *connect.Request[fleetpb.RevokeAccessTokenRequest],
) (*connect.Response[fleetpb.RevokeAccessTokenResponse], error) {
	s := p.s
	var t store.AccessToken
	err := s.store.Update(ctx, func(tx store.Tx) (err error) {
		if t, err = tx.AccessToken(req.Msg.GetId()); err != nil {
			return err
		}
		t.Revoked = true
		return errors.Join(tx.PutAccessToken(t),
			s.note(tx, callerOf(ctx).name(), "token.revoke", t.ID, map[string]any{"person": t.Person}))
	})
	if err != nil {
		return nil, answer(err)
	}
	s.tokens.put(t)
	return connect.NewResponse(&fleetpb.RevokeAccessTokenResponse{}), nil
}

// CreateEnrolToken implements the service.
func (p people) CreateEnrolToken(
	ctx context.Context, req *connect.Request[fleetpb.CreateEnrolTokenRequest],
) (*connect.Response[fleetpb.CreateEnrolTokenResponse], error) {
	s, m := p.s, req.Msg
	life, err := lifeOf(m.GetValidSeconds(), enrolLife, maxEnrolLife)
	if err != nil {
		return nil, err
	}
	if err := checkLabels(m.GetLabels()); err != nil {
		return nil, err
	}
	if err := scope(m.GetScope()).check(m.GetLabels()); err != nil {
		return nil, err
	}
	if len(m.GetNote()) > maxText {
		return nil, invalid("a note has at most %d bytes", maxText)
	}
	text, hash := identity.NewEnrolToken(s.authority.Fingerprint())
	now := s.clock()
	t := store.EnrolToken{
		ID: identity.NewID("e-"), Hash: hash, CreatedBy: callerOf(ctx).name(), Created: now, Expires: now.Add(life),
		Labels: m.GetLabels(), Note: m.GetNote(), Scope: m.GetScope(),
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.PutEnrolToken(t), s.note(tx, t.CreatedBy, "enrol-token.create", t.ID,
			map[string]any{"labels": t.Labels, "scope": t.Scope, "note": t.Note}))
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.CreateEnrolTokenResponse{Token: enrolPB(&t), Secret: text}), nil
}

func enrolPB(t *store.EnrolToken) *fleetpb.EnrolToken {
	return &fleetpb.EnrolToken{
		Id: t.ID, CreatedBy: t.CreatedBy, Expires: stamp(t.Expires), UsedBy: t.UsedBy, Revoked: t.Revoked,
		Labels: t.Labels, Note: t.Note, Scope: t.Scope,
	}
}

// ListEnrolTokens implements the service.
func (p people) ListEnrolTokens(
	ctx context.Context, _ *connect.Request[fleetpb.ListEnrolTokensRequest],
) (*connect.Response[fleetpb.ListEnrolTokensResponse], error) {
	out := &fleetpb.ListEnrolTokensResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.EnrolTokens()
		for i := range all {
			out.Tokens = append(out.Tokens, enrolPB(&all[i]))
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// RevokeEnrolToken implements the service.
func (p people) RevokeEnrolToken(
	ctx context.Context, req *connect.Request[fleetpb.RevokeEnrolTokenRequest],
) (*connect.Response[fleetpb.RevokeEnrolTokenResponse], error) {
	s := p.s
	err := s.store.Update(ctx, func(tx store.Tx) error {
		t, err := tx.EnrolToken(req.Msg.GetId())
		if err != nil {
			return err
		}
		t.Revoked = true
		return errors.Join(tx.PutEnrolToken(t), s.note(tx, callerOf(ctx).name(), "enrol-token.revoke", t.ID, nil))
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.RevokeEnrolTokenResponse{}), nil
}
