package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// desk is a control plane that answers check-ins with out or an error, and does as renew does.
type desk struct {
	postbox

	out   *fleetpb.CheckInResponse
	err   error
	renew func(ctx context.Context) error
}

func (d *desk) CheckIn(context.Context, *fleetpb.CheckInRequest) (*fleetpb.CheckInResponse, error) {
	return d.out, d.err
}

func (d *desk) Renew(ctx context.Context, _ func(*client.Identity) error) error { return d.renew(ctx) }

// TestRenewalKeepsNothingFromHappening: a control plane that wants a certificate renewed and then says nothing more is
// obeyed before, and asked again soon.
func TestRenewalKeepsNothingFromHappening(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir()}
	o.complete()
	if err := os.MkdirAll(o.Staging, 0o750); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fetcher{o: o, turn: time.Minute}
		var before []string
		f.host = &desk{
			out: &fleetpb.CheckInResponse{Renew: true, Revision: 7, Orders: []*fleetpb.Order{backOrder("")}},
			renew: func(ctx context.Context) error {
				before = toldCore(t, f)
				<-ctx.Done()
				return ctx.Err()
			},
		}
		begin := time.Now()
		if _, err := f.once(t.Context()); err != nil || f.revision != 7 {
			t.Errorf("revision %d, %v", f.revision, err)
		}
		if took := time.Since(begin); took > renewLimit {
			t.Errorf("it checks in again after %v", took)
		}
		if len(before) != 1 || before[0] != "roll-back " {
			t.Errorf("before the renewal the core is told %q", before)
		}
	})
}

// TestEndedCertificateIsRenewed: a machine that was off until its certificate had ended has it renewed before it checks
// in; whatever else keeps it from checking in renews nothing.
func TestEndedCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	o := &Options{StateDir: t.TempDir()}
	o.complete()
	if err := os.MkdirAll(o.Staging, 0o750); err != nil {
		t.Fatal(err)
	}
	d := &desk{err: fmt.Errorf("check in: %w", client.ErrCertificate), out: &fleetpb.CheckInResponse{Revision: 7}}
	asked := 0
	d.renew = func(context.Context) error {
		asked++
		d.err = nil
		return nil
	}
	f := &fetcher{o: o, host: d, turn: time.Minute}
	if _, err := f.once(t.Context()); !errors.Is(err, client.ErrCertificate) || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	if _, err := f.once(t.Context()); err != nil || asked != 1 || f.revision != 7 {
		t.Errorf("asked %d times, revision %d, %v", asked, f.revision, err)
	}
	d.err = errors.New("no route to host")
	if _, err := f.once(t.Context()); !errors.Is(err, d.err) || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
