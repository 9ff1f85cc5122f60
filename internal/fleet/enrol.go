package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// Bounds of what a host says about itself.
const (
	maxLabels    = 32
	maxLabel     = 128 // bytes of a key or a value
	maxInstalled = 256
	maxText      = 2000 // bytes of a sample
)

// hosts is the service for machines.
type hosts struct{ s *Server }

// Enrol implements the service.
func (h hosts) Enrol(
	ctx context.Context, req *connect.Request[fleetpb.EnrolRequest],
) (*connect.Response[fleetpb.EnrolResponse], error) {
	m := req.Msg
	if err := checkLabels(m.GetLabels()); err != nil {
		return nil, err
	}
	if len(m.GetMachineId()) > maxLabel || len(m.GetHostname()) > maxLabel {
		return nil, invalid("machine id and host name have at most %d bytes", maxLabel)
	}
	hash, _, err := identity.ParseEnrolToken(m.GetToken())
	if err != nil {
		return nil, refuseEnrol(err.Error())
	}
	_, keyHash, err := identity.KeyOf(m.GetCsr())
	if err != nil {
		return nil, refusal(connect.CodeInvalidArgument, codeRequest, "make the request with a new P-256 or Ed25519 key",
			"%v", err)
	}
	var host store.Host
	var issued identity.Issued
	err = h.s.store.Update(ctx, func(tx store.Tx) error {
		host, issued, err = h.s.enrol(tx, hash, keyHash, m)
		return err
	})
	var outside *outsideError
	if errors.As(err, &outside) {
		err = errors.Join(outside.refusal(), h.s.store.Update(ctx, func(tx store.Tx) error {
			return h.s.note(tx, "enrol-token:"+outside.token.ID, "host.enrol-refused", outside.token.ID, map[string]any{
				"why": outside.why.Error(), "scope": outside.token.Scope, "hostname": m.GetHostname(), "labels": m.GetLabels(),
			})
		}))
	}
	if err != nil {
		return nil, answer(err)
	}
	h.s.roll.put(host)
	return connect.NewResponse(&fleetpb.EnrolResponse{
		HostId: host.ID, Certificate: issued.DER, Authority: h.s.authority.Root.Raw, NotAfter: stamp(issued.NotAfter),
		DirectorKey: h.s.authority.DirectorKey(),
	}), nil
}

func refuseEnrol(what string) error {
	return refusal(connect.CodePermissionDenied, codeEnrol, "keepout fleet enroll makes a new token", "%s", what)
}

// enrol uses a token up and makes the host. The same token with the same key gives a certificate for the same host
// once more: the first answer may have been lost.
func (s *Server) enrol(
	tx store.Tx, hash, keyHash string, m *fleetpb.EnrolRequest,
) (host store.Host, issued identity.Issued, err error) {
	now := s.clock()
	token, err := tx.EnrolTokenByHash(hash)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && token.Revoked:
		return host, issued, refuseEnrol("the enrolment token is not known, or was revoked")
	case err != nil:
		return host, issued, err
	case !now.Before(token.Expires):
		return host, issued, refuseEnrol("the enrolment token has expired")
	}
	if token.UsedBy != "" {
		host, err = tx.Host(token.UsedBy)
		if err != nil || host.KeyHash != keyHash || !host.LastSeen.IsZero() {
			return host, issued, errors.Join(ignoreAbsent(err), refuseEnrol("the enrolment token was used already"))
		}
	} else {
		host = store.Host{
			ID: identity.NewID("h-"), Hostname: m.GetHostname(), MachineID: m.GetMachineId(), State: store.Active,
			Labels: merged(m.GetLabels(), token.Labels), Fixed: token.Labels, KeyHash: keyHash, Enrolled: now,
			Scope: token.Scope,
		}
		if err := scope(token.Scope).admits(host.Labels); err != nil {
			return host, issued, &outsideError{token, err}
		}
		if host.Reason, err = twin(tx, m.GetMachineId(), keyHash); err != nil {
			return host, issued, err
		} else if host.Reason != "" {
			host.State = store.Quarantined
		}
	}
	if issued, err = s.authority.IssueHost(m.GetCsr(), host.ID, now); err != nil {
		return host, issued, err
	}
	host.Serial, host.CertEnds, token.UsedBy = issued.Serial, issued.NotAfter, host.ID
	err = errors.Join(tx.PutHost(host), tx.PutEnrolToken(token), s.note(tx, "host:"+host.ID, "host.enrol", host.ID,
		map[string]any{
			"token": token.ID, "hostname": host.Hostname, "state": host.State, "reason": host.Reason,
			"labels": host.Labels, "scope": host.Scope,
		}))
	return host, issued, err
}

// outsideError is a host that its token is not for. The token is not used up.
type outsideError struct {
	token store.EnrolToken
	why   error
}

// Error implements error.
func (e *outsideError) Error() string { return e.why.Error() }

func (e *outsideError) refusal() error {
	return refusal(connect.CodePermissionDenied, codeScope, "give the host the labels that the token is for, or "+
		"keepout fleet enroll --scope makes another token", "%v", e.why)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// twin says which other host has this machine id or key, or "".
func twin(tx store.Reader, machineID, keyHash string) (string, error) {
	others, err := tx.HostsLike(machineID, keyHash)
	if err != nil {
		return "", err
	}
	for i := range others {
		if others[i].State != store.Retired {
			return "duplicate identity: it has the machine id or the key of " + others[i].ID +
				"; if that one is gone, retire it and release this one", nil
		}
	}
	return "", nil
}

// Renew implements the service. A certificate that was replaced is refused before it comes here.
func (h hosts) Renew(
	ctx context.Context, req *connect.Request[fleetpb.RenewRequest],
) (*connect.Response[fleetpb.RenewResponse], error) {
	s, m := h.s, callerOf(ctx).member
	if m.snapshotState() != store.Active {
		return nil, refusal(connect.CodePermissionDenied, codeQuarantine, "keepout fleet hosts says why",
			"this host is quarantined, and its certificate is not renewed")
	}
	_, keyHash, err := identity.KeyOf(req.Msg.GetCsr())
	if err != nil {
		return nil, refusal(connect.CodeInvalidArgument, codeRequest, "make the request with a new P-256 or Ed25519 key",
			"%v", err)
	}
	var issued identity.Issued
	var host store.Host
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if host, err = tx.Host(m.id); err != nil {
			return err
		}
		if issued, err = s.authority.IssueHost(req.Msg.GetCsr(), m.id, s.clock()); err != nil {
			return err
		}
		// The old certificate stays good until the new one is used: this answer may be lost.
		host.Pending, host.KeyHash, host.CertEnds = issued.Serial, keyHash, issued.NotAfter
		return errors.Join(tx.PutHost(host), s.note(tx, "host:"+m.id, "host.renew", m.id, nil))
	})
	if err != nil {
		return nil, answer(err)
	}
	m.mu.Lock()
	m.host.Pending, m.host.KeyHash, m.host.CertEnds = host.Pending, host.KeyHash, host.CertEnds
	m.mu.Unlock()
	return connect.NewResponse(&fleetpb.RenewResponse{
		Certificate: issued.DER, NotAfter: stamp(issued.NotAfter), DirectorKey: s.authority.DirectorKey(),
	}), nil
}

// quarantine takes a host's voice away: nothing is granted to it, and no report of it counts.
func (s *Server) quarantine(ctx context.Context, m *member, why string) error {
	if m.snapshotState() == store.Quarantined {
		return nil
	}
	return s.persistHost(ctx, m, store.Quarantined, why)
}

// persistHost writes what changed of a member; with a state, that and why, and says so in the audit trail.
func (s *Server) persistHost(ctx context.Context, m *member, state, why string) error {
	err := s.store.Update(ctx, func(tx store.Tx) error {
		host, err := tx.Host(m.id)
		if err != nil {
			return err
		}
		m.mu.Lock()
		host.Serial, host.Pending = m.host.Serial, m.host.Pending
		m.mu.Unlock()
		if state == "" {
			return tx.PutHost(host)
		}
		host.State, host.Reason = state, why
		return errors.Join(tx.PutHost(host),
			s.note(tx, "host:"+m.id, "host."+state, m.id, map[string]any{"reason": why}))
	})
	if err != nil {
		return answer(fmt.Errorf("host %s: %w", m.id, err))
	}
	if state != "" {
		m.mu.Lock()
		m.host.State, m.host.Reason = state, why
		m.mu.Unlock()
	}
	return nil
}

// note adds to the audit trail.
func (s *Server) note(tx store.Tx, actor, action, subject string, detail map[string]any) error {
	text := []byte("{}")
	if detail != nil {
		var err error
		if text, err = json.Marshal(detail); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	}
	_, err := tx.Append(audit.Entry{At: s.clock(), Actor: actor, Action: action, Subject: subject, Detail: string(text)})
	return err
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid("%d labels: at most %d", len(labels), maxLabels)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabel || len(v) > maxLabel {
			return invalid("label %.20q: a key has 1 to %d bytes, a value at most %d", k, maxLabel, maxLabel)
		}
	}
	return nil
}

// merged is a copy of the labels with the stronger ones on top.
func merged(labels, stronger map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+len(stronger))
	for _, m := range []map[string]string{labels, stronger} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// stamp is how the API writes times.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
