package fetch

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// desk is a control plane that answers check-ins with out, and does as renew does.
type desk struct {
	postbox

	out   *fleetpb.CheckInResponse
	renew func(ctx context.Context) error
}

func (d *desk) CheckIn(context.Context, *fleetpb.CheckInRequest) (*fleetpb.CheckInResponse, error) {
	return d.out, nil
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
