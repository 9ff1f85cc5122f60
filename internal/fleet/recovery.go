package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/diagnostics"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// recoveryRetry is what a machine in recovery is told when there is no fix for it yet. Its own settings win.
const recoveryRetry = 5 * time.Minute

// recovery answers recovery environments. Nobody has proved who they are: a bundle is sealed, a fix is signed, and a
// beacon counts only under the pseudonym of an enrolled host, which only that host and this server know.
func (s *Server) recovery() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+protocol.BundlePath, plainly(s.takeBundle))
	mux.Handle("POST "+protocol.FixPath, plainly(s.giveFix))
	mux.Handle("POST "+protocol.ReportPath, plainly(s.takeReport))
	return mux
}

// plainly answers without Connect: a recovery environment speaks plain HTTP.
func plainly(do func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		err := do(w, r)
		var long *http.MaxBytesError
		var refused *connect.Error
		switch {
		case err == nil:
		case errors.As(err, &long):
			http.Error(w, codeBundle+": the request is too long", http.StatusRequestEntityTooLarge)
		case errors.As(err, &refused) && refused.Code() == connect.CodeInvalidArgument:
			http.Error(w, refused.Message(), http.StatusBadRequest)
		default:
			http.Error(w, health.Unadvised(answer(err)), http.StatusServiceUnavailable)
		}
	})
}

func malformed(code, what string, args ...any) error {
	return refusal(connect.CodeInvalidArgument, code, "see that machine and server are of versions that fit", what,
		args...)
}

// takeBundle keeps a sealed bundle. Sent again, it is the same one.
func (s *Server) takeBundle(w http.ResponseWriter, r *http.Request) error {
	parcel, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxBundle+1))
	if err != nil {
		return err
	}
	h, _, err := diagnostics.DecodeHeader(parcel)
	if err != nil {
		return malformed(codeBundle, "%v", err)
	}
	for name, want := range map[string]string{
		protocol.DigestHeader: h.Digest, protocol.MachineHeader: h.Machine,
	} {
		if said := r.Header.Get(name); said != "" && said != want {
			return malformed(codeBundle, "the request says %.80q, the bundle %q", said, want)
		}
	}
	b := store.Bundle{
		Digest: h.Digest, Machine: h.Machine, Signature: h.Signature, Level: string(h.Level), Test: h.Test,
		Received: s.clock(), Size: len(parcel),
	}
	b.Host, b.Versions = s.sender(h.Machine)
	err = s.store.Update(r.Context(), func(tx store.Tx) error {
		_, err := tx.PutBundle(&b, parcel)
		return err
	})
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// sender is the enrolled host with a pseudonym, and what was active on it when it was last heard of.
func (s *Server) sender(machine string) (host string, versions []store.BundleVersion) {
	m := s.roll.alias(machine)
	if m == nil {
		return "", nil
	}
	h := m.snapshot()
	proven := map[string]string{}
	for _, i := range h.Installed {
		if i.Slot == slotProven {
			proven[i.Provider+" "+i.Channel] = i.Digest
		}
	}
	for _, i := range h.Installed {
		if i.Slot == slotActive {
			part := i.Provider + " " + i.Channel
			versions = append(versions, store.BundleVersion{
				Version: part + " " + i.Digest, Changed: proven[part] != "" && proven[part] != i.Digest,
			})
		}
	}
	return h.ID, versions
}

// giveFix answers a machine that asks for a fix. That it asks says that it is in recovery.
func (s *Server) giveFix(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxRequest+1))
	if err != nil {
		return err
	}
	q, err := protocol.DecodeRequest(body)
	if err != nil {
		return malformed(codeAsked, "%v", err)
	}
	if len(q.Suspect) > maxLabel {
		return malformed(codeAsked, "the suspect's id has more than %d bytes", maxLabel)
	}
	bundle, first, err := s.noteQuestion(r.Context(), &q)
	if err != nil {
		return err
	}
	if m := s.roll.alias(q.Machine); first && m != nil && !q.Test {
		if err := s.beacon(r.Context(), m, &bundle); err != nil {
			return err
		}
	}
	out := protocol.FixResponse{Version: 1, Status: protocol.NoFix, Retry: int(recoveryRetry / time.Second)}
	fix, err := s.fixFor(r.Context(), &q, &bundle)
	if err != nil {
		return err
	}
	if fix != nil {
		out.Status, out.Envelope, out.Retry = protocol.HasFix, fix, 0
	}
	if out.Revocations, _, err = s.inForce(r.Context()); err != nil {
		return err
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", protocol.ContentType)
	_, _ = w.Write(text) // the machine has gone, there is nobody to tell
	return nil
}

// noteQuestion remembers that a machine asked about a bundle, and reports whether that was the first time. A machine
// that sends no diagnostics asks, too.
func (s *Server) noteQuestion(ctx context.Context, q *protocol.FixRequest) (b store.Bundle, first bool, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		b, err = tx.Bundle(q.Digest)
		if errors.Is(err, store.ErrNotFound) {
			b = store.Bundle{
				Digest: q.Digest, Machine: q.Machine, Level: string(diagnostics.Off), Test: q.Test, Received: s.clock(),
			}
			b.Host, b.Versions = s.sender(q.Machine)
			_, err = tx.PutBundle(&b, nil)
		}
		if err != nil {
			return err
		}
		if b.Machine != q.Machine || b.Test != q.Test {
			b = store.Bundle{} // somebody asks with another one's digest: what is known of it is not for them
			return nil
		}
		if first = !b.Asked; first {
			b.Asked, b.Suspect = true, q.Suspect
			return tx.MarkBundle(q.Digest, q.Suspect)
		}
		return nil
	})
	return b, first, err
}

// beacon tells rollouts that a host came up in its recovery environment.
func (s *Server) beacon(ctx context.Context, m *member, b *store.Bundle) error {
	h := m.snapshot()
	err := s.store.Update(ctx, func(tx store.Tx) error {
		for _, i := range h.Installed {
			if i.Slot != slotActive {
				continue
			}
			err := tx.PutBeacon(store.Beacon{
				Host: h.ID, Digest: i.Digest, At: s.clock(), Signature: b.Signature, Detail: "bundle " + b.Digest,
			})
			if err != nil {
				return err
			}
		}
		return s.note(tx, "host:"+h.ID, "host.beacon", b.Digest,
			map[string]any{"signature": b.Signature, "suspect": b.Suspect})
	})
	if err != nil {
		return err
	}
	return s.conductor.InRecovery(ctx, m.facts(), cmp.Or(b.Signature, "no diagnostics"))
}

// takeReport puts into the audit trail what became of a visit, for machines that are enrolled and asked.
func (s *Server) takeReport(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, protocol.MaxRequest+1))
	if err != nil {
		return err
	}
	var said protocol.Report
	if err := json.Unmarshal(body, &said); err != nil || len(body) > protocol.MaxRequest || said.Version != 1 {
		return malformed(codeAsked, "this is no report of a recovery environment")
	}
	sources := []string{"server", "local", "person", "test"}
	if !slices.Contains(sources, said.Source) || len(said.Fix) > maxLabel || len(said.Remedy) > maxText ||
		len(said.Trouble) > maxText {
		return malformed(codeAsked, "the report is out of bounds")
	}
	m := s.roll.alias(said.Machine)
	if m != nil {
		err = s.store.Update(r.Context(), func(tx store.Tx) error {
			b, err := tx.Bundle(said.Digest)
			if errors.Is(err, store.ErrNotFound) || err == nil && (b.Machine != said.Machine || !b.Asked) {
				return nil
			}
			return errors.Join(err, s.note(tx, "host:"+m.id, "host.recovered", said.Digest, map[string]any{
				"source": said.Source, "fix": said.Fix, "remedy": said.Remedy, "trouble": said.Trouble, "test": said.Test,
			}))
		})
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// hasProvider reports whether a host may have a provider: one that never said what it has, may.
func (s *Server) hasProvider(machine, provider string) bool {
	m := s.roll.alias(machine)
	if m == nil {
		return true
	}
	h := m.snapshot()
	return len(h.Installed) == 0 ||
		slices.ContainsFunc(h.Installed, func(i store.Installed) bool { return i.Provider == provider })
}
