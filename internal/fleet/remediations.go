package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/sign"
)

func fixRefusal(code, next, what string, args ...any) error {
	return refusal(connect.CodeFailedPrecondition, code, next, what, args...)
}

// fixPB is a fix as people see it.
func (s *Server) fixPB(r *store.Remediation) *fleetpb.Remediation {
	out := &fleetpb.Remediation{
		Id: r.ID, Status: r.Status, Signers: r.Signers, CreatedBy: r.CreatedBy, Created: stamp(r.Created),
		ApprovedBy: r.ApprovedBy, Approved: stamp(r.Approved), RevokedBy: r.RevokedBy, RevokedBecause: r.Because,
		Served: r.Served,
	}
	f, err := decodeFix(r.Envelope)
	if err != nil {
		return out
	}
	out.Kind, out.Reason, out.Vendor, out.Test = string(f.Kind), f.Reason, f.Vendor, f.Test
	out.Expires, out.Audience = stamp(f.Expires), audienceOf(&f)
	if r.Status != store.FixRevoked && !s.clock().Before(f.Expires) {
		out.Status = "expired"
	}
	for _, a := range f.Actions {
		out.Actions = append(out.Actions, a.String())
	}
	if len(f.Revokes) > 0 {
		out.Actions = append(out.Actions, "revoke "+strings.Join(f.Revokes, ", "))
	}
	for _, id := range f.RevokesKeys {
		out.Actions = append(out.Actions, "revoke the key "+id)
	}
	return out
}

// audienceOf says which machines get a fix.
func audienceOf(f *remediation.Fix) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("bundle", f.Bundle)
	add("signature", f.Symptom.Signature)
	add("provider", f.Symptom.Provider)
	add("engine", f.Symptom.Engine)
	add("content", f.Symptom.Content)
	if n := len(f.Machines.IDs); n > 0 {
		parts = append(parts, fmt.Sprintf("%d named machines", n))
	}
	return strings.Join(parts, ", ")
}

// CreateRemediation implements the service.
func (p people) CreateRemediation(
	ctx context.Context, req *connect.Request[fleetpb.CreateRemediationRequest],
) (*connect.Response[fleetpb.CreateRemediationResponse], error) {
	s, who := p.s, callerOf(ctx)
	f, err := s.verify(req.Msg.GetEnvelope())
	if err != nil {
		return nil, answer(err)
	}
	if vendor := vendorOf(ctx); vendor != "" && f.Vendor != vendor {
		return nil, refusal(connect.CodePermissionDenied, codeRole, "let the organisation sign it",
			"this token is for fixes of %s", vendor)
	}
	if !s.clock().Before(f.Expires) {
		return nil, invalid("fix %s has expired", f.ID)
	}
	if err := f.MayRevoke(f.signedBy); err != nil {
		return nil, fixRefusal(codeFixPerson, "keepout remediation approve ID --key KEY --yes --fleet", "%v", err)
	}
	r := store.Remediation{
		ID: f.ID, Status: store.FixWaiting, Envelope: req.Msg.GetEnvelope(), Signers: f.signers, CreatedBy: who.name(),
		Created: s.clock(),
	}
	if f.Kind == remediation.Revocation {
		r.Status = store.FixActive
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if _, err := tx.Remediation(f.ID); err == nil {
			return fixRefusal(codeFixStatus, "choose another id", "there is a fix %s already", f.ID)
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		for _, id := range f.Revokes {
			if err := s.withdraw(tx, id, who.name(), f.Reason); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return errors.Join(tx.PutRemediation(&r), s.note(tx, who.name(), "remediation.create", r.ID,
			map[string]any{"kind": f.Kind, "reason": f.Reason, "signers": f.signers}))
	})
	if err != nil {
		return nil, answer(err)
	}
	s.revocations.forget()
	return connect.NewResponse(&fleetpb.CreateRemediationResponse{Remediation: s.fixPB(&r)}), nil
}

// ApproveRemediation implements the service: another person, and, for the organisation's fixes, another key.
func (p people) ApproveRemediation(
	ctx context.Context, req *connect.Request[fleetpb.ApproveRemediationRequest],
) (*connect.Response[fleetpb.ApproveRemediationResponse], error) {
	s, who, id := p.s, callerOf(ctx).name(), req.Msg.GetId()
	if sealed := req.Msg.GetEnvelope(); len(sealed) > 0 {
		f, err := decodeFix(sealed)
		if err != nil || id != "" && id != f.ID {
			return nil, invalid("the envelope is no fix, or another one than is named")
		}
		id = f.ID
	}
	var r store.Remediation
	err := s.store.Update(ctx, func(tx store.Tx) (err error) {
		if r, err = tx.Remediation(id); err != nil {
			return err
		}
		if err := s.approve(&r, who, req.Msg.GetEnvelope()); err != nil {
			return err
		}
		return errors.Join(tx.PutRemediation(&r), s.note(tx, who, "remediation.approve", r.ID,
			map[string]any{"signers": r.Signers}))
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.ApproveRemediationResponse{Remediation: s.fixPB(&r)}), nil
}

// approve checks a second person's word and enters it.
func (s *Server) approve(r *store.Remediation, who string, sealed []byte) error {
	switch {
	case r.Status != store.FixWaiting:
		return fixRefusal(codeFixStatus, "keepout remediation list --fleet", "fix %s is %s", r.ID, r.Status)
	case r.CreatedBy == who:
		return refusal(connect.CodePermissionDenied, codeFixPerson, "ask somebody else",
			"%s brought fix %s, and somebody else must approve it", who, r.ID)
	}
	if len(sealed) == 0 {
		sealed = r.Envelope
	}
	if !samePayload(sealed, r.Envelope) {
		return invalid("this is another text than the fix %s that waits", r.ID)
	}
	f, err := s.verify(sealed)
	if err != nil {
		return err
	}
	if len(f.signers) < f.need {
		return refusal(connect.CodePermissionDenied, codeFixPerson,
			"keepout remediation approve ID --key KEY --yes --fleet",
			"fix %s has %d of %d signatures that count", r.ID, len(f.signers), f.need)
	}
	if !s.clock().Before(f.Expires) {
		return fixRefusal(codeFixStatus, "issue it again", "fix %s has expired", r.ID)
	}
	r.Status, r.Envelope, r.Signers, r.ApprovedBy, r.Approved = store.FixActive, sealed, f.signers, who, s.clock()
	return nil
}

func samePayload(a, b []byte) bool {
	kindA, textA, errA := sign.Peek(a)
	kindB, textB, errB := sign.Peek(b)
	return errA == nil && errB == nil && kindA == kindB && bytes.Equal(textA, textB)
}

// withdraw stops serving a fix.
func (s *Server) withdraw(tx store.Tx, id, who, reason string) error {
	r, err := tx.Remediation(id)
	if err != nil {
		return err
	}
	if r.Status == store.FixRevoked {
		return nil
	}
	r.Status, r.RevokedBy, r.Because = store.FixRevoked, who, reason
	return errors.Join(tx.PutRemediation(&r),
		s.note(tx, who, "remediation.revoke", id, map[string]any{"reason": reason}))
}

// RevokeRemediation implements the service.
func (p people) RevokeRemediation(
	ctx context.Context, req *connect.Request[fleetpb.RevokeRemediationRequest],
) (*connect.Response[fleetpb.RevokeRemediationResponse], error) {
	s, m := p.s, req.Msg
	if strings.TrimSpace(m.GetReason()) == "" || len(m.GetReason()) > maxText {
		return nil, invalid("say why, in at most %d bytes", maxText)
	}
	var r store.Remediation
	err := s.store.Update(ctx, func(tx store.Tx) (err error) {
		if err := s.withdraw(tx, m.GetId(), callerOf(ctx).name(), m.GetReason()); err != nil {
			return err
		}
		r, err = tx.Remediation(m.GetId())
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(&fleetpb.RevokeRemediationResponse{Remediation: s.fixPB(&r)}), nil
}

// ListRemediations implements the service.
func (p people) ListRemediations(
	ctx context.Context, _ *connect.Request[fleetpb.ListRemediationsRequest],
) (*connect.Response[fleetpb.ListRemediationsResponse], error) {
	out := &fleetpb.ListRemediationsResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		all, err := r.Remediations("", store.Page)
		for i := range all {
			out.Remediations = append(out.Remediations, p.s.fixPB(&all[i]))
		}
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}

// GetRemediation implements the service.
func (p people) GetRemediation(
	ctx context.Context, req *connect.Request[fleetpb.GetRemediationRequest],
) (*connect.Response[fleetpb.GetRemediationResponse], error) {
	out := &fleetpb.GetRemediationResponse{}
	err := p.s.store.View(ctx, func(r store.Reader) error {
		got, err := r.Remediation(req.Msg.GetId())
		out.Remediation, out.Envelope = p.s.fixPB(&got), slices.Clone(got.Envelope)
		return err
	})
	if err != nil {
		return nil, answer(err)
	}
	return connect.NewResponse(out), nil
}
