package bench

import (
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// haltHosts is the size of the fleet of which a halt must reach everybody within two seconds.
const haltHosts = 200

// BenchmarkFleetHalt begins a rollout in a fleet whose hosts hold long-polls, halts it once its first ring runs it, and
// measures from the halt's request to the last activation anywhere, and to the last host that is back.
func BenchmarkFleetHalt(b *testing.B) {
	p := startFleet(b, haltHosts)
	login, err := client.LoadLogin(p.state + "/admin.json")
	if err != nil {
		b.Fatal(err)
	}
	login.Server = p.ids[0].Server
	admin, err := login.Dial()
	if err != nil {
		b.Fatal(err)
	}
	f := &obedient{b: b, changed: make(chan struct{}, 1)}
	hosts := make([]*client.Host, haltHosts)
	for i := range hosts {
		h, err := client.NewHost(&p.ids[i])
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(h.Close)
		hosts[i] = h
		if _, err := h.CheckIn(b.Context(), contentReport(p.ids[i].HostID, digestOf('a'))); err != nil {
			b.Fatal(err)
		}
	}
	out, err := admin.CreateRollout(b.Context(), connect.NewRequest(&fleetpb.CreateRolloutRequest{
		Spec: &fleetpb.RolloutSpec{Name: "halt", Release: &fleetpb.Release{
			Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digestOf('b'), Counter: 2,
		}},
	}))
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { f.live(h, p.ids[i].HostID) })
	}
	for f.running.Load() < 5 {
		<-f.changed
	}
	begin := time.Now()
	_, err = admin.HaltRollout(b.Context(), connect.NewRequest(&fleetpb.HaltRolloutRequest{
		Id: out.Msg.GetRollout().GetId(), Reason: "measured",
	}))
	if err != nil {
		b.Fatal(err)
	}
	for f.running.Load() > 0 {
		<-f.changed
	}
	back := time.Since(begin)
	f.ended.Store(true)
	b.ReportMetric(max(0, time.Unix(0, f.last.Load()).Sub(begin).Seconds()*1000), "ms-to-last-activation")
	b.ReportMetric(back.Seconds()*1000, "ms-to-last-host-back")
	b.ReportMetric(float64(f.activated.Load()), "activated")
	p.kill()
	wg.Wait()
}

func digestOf(c byte) string {
	text := make([]byte, 64)
	for i := range text {
		text[i] = c
	}
	return "sha256:" + string(text)
}

func contentReport(id, digest string) *fleetpb.CheckInRequest {
	return &fleetpb.CheckInRequest{Instance: "i-" + id, Installed: []*fleetpb.Installed{{
		Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digest, Slot: "active", Healthy: true,
	}}}
}

// obedient are hosts that do at once what they are told.
type obedient struct {
	b         *testing.B
	running   atomic.Int64 // that run the release now
	activated atomic.Int64
	last      atomic.Int64 // when the last one activated it
	ended     atomic.Bool
	changed   chan struct{}
}

func (f *obedient) live(h *client.Host, id string) {
	runs := digestOf('a')
	var last *fleetpb.CheckInResponse
	for !f.ended.Load() {
		req := contentReport(id, runs)
		req.Revision, req.WaitSeconds = last.GetRevision(), 60
		for _, o := range last.GetOrders() {
			if o.GetAct() == fleetpb.Order_ACT_STAGE {
				nonce := make([]byte, 16)
				_, _ = rand.Read(nonce)
				req.Asks = append(req.Asks, &fleetpb.Ask{
					Rollout: o.GetRollout(), Digest: o.GetRelease().GetDigest(), Nonce: nonce,
				})
			}
		}
		out, err := h.CheckIn(f.b.Context(), req)
		if err != nil {
			if !f.ended.Load() {
				f.b.Error(err)
			}
			return
		}
		last = out
		before := runs
		for _, g := range out.GetGrants() {
			runs = g.GetDigest()
			f.last.Store(time.Now().UnixNano())
			f.activated.Add(1)
			f.running.Add(1)
		}
		for _, o := range out.GetOrders() {
			if o.GetAct() == fleetpb.Order_ACT_ROLL_BACK && runs != o.GetRelease().GetDigest() {
				runs = o.GetRelease().GetDigest()
				f.running.Add(-1)
			}
		}
		if runs != before {
			select {
			case f.changed <- struct{}{}:
			default:
			}
		}
	}
}
