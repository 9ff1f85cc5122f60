package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/statement"
	"github.com/keepout-security/keepout/internal/rollout"
)

// patience is how long anything may take on a busy machine before a test gives up.
const patience = 30 * time.Second

// hands is a clock that a test moves.
type hands struct {
	mu  sync.Mutex
	now time.Time
}

func newHands() *hands { return &hands{now: time.Now().Truncate(time.Second)} }

func (h *hands) read() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hands) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// plane is a running control plane.
type plane struct {
	*Server

	t     testing.TB
	cfg   Config
	hands *hands
	stop  func()
	admin fleetpbconnect.FleetServiceClient
}

// small are the numbers of a rollout in a fleet of some dozen hosts.
func small(string) (rollout.Numbers, error) {
	n := rollout.Defaults()
	n.First, n.Growth, n.Soak, n.ControlMin = 3, 4, 3*time.Minute, 2
	return n, nil
}

// start runs a control plane in a folder of its own; change adapts the configuration.
func start(t testing.TB, change func(*Config)) *plane {
	t.Helper()
	h := newHands()
	cfg := Config{
		Listen: "127.0.0.1:0", StateDir: filepath.Join(t.TempDir(), "state"), Clock: h.read, Schedule: small,
		Tick: time.Hour, // tests say when time passes
	}
	if change != nil {
		change(&cfg)
	}
	p := &plane{t: t, cfg: cfg, hands: h}
	p.launch()
	t.Cleanup(func() { p.stop() })
	return p
}

// launch starts the server, again after stop.
func (p *plane) launch() {
	p.t.Helper()
	s, err := New(p.t.Context(), p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cfg.Listen = s.listener.Addr().String() // hosts find it there after a restart
	p.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("the server ends with %v", err)
		}
	})
	login, err := client.LoadLogin(s.AdminFile())
	if err != nil {
		p.t.Fatal(err)
	}
	login.Server = s.URL()
	p.admin = dial(p.t, login)
}

func dial(t testing.TB, login *client.Login) fleetpbconnect.FleetServiceClient {
	t.Helper()
	c, err := login.Dial()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// as makes a person with these roles and returns their client.
func (p *plane) as(person, vendor string, roles ...string) fleetpbconnect.FleetServiceClient {
	p.t.Helper()
	login, err := client.LoadLogin(p.AdminFile())
	if err != nil {
		p.t.Fatal(err)
	}
	login.Server, login.Token = p.URL(), p.secretOf(person, vendor, roles...)
	return dial(p.t, login)
}

// secretOf makes a token.
func (p *plane) secretOf(person, vendor string, roles ...string) string {
	p.t.Helper()
	out, err := p.admin.CreateAccessToken(p.t.Context(), connect.NewRequest(&fleetpb.CreateAccessTokenRequest{
		Person: person, Roles: roles, Vendor: vendor,
	}))
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Msg.GetSecret()
}

// token makes an enrolment token.
func (p *plane) token(labels map[string]string) string {
	p.t.Helper()
	out, err := p.admin.CreateEnrolToken(p.t.Context(), connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{
		Labels: labels,
	}))
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Msg.GetSecret()
}

// digest makes one from a name.
func digest(name string) string {
	return "sha256:" + hex.EncodeToString([]byte(name + strings.Repeat("0", 32))[:32])
}

// machine is a simulated host that does what a fetcher and a core would.
type machine struct {
	*client.Host

	t        testing.TB
	key      ed25519.PublicKey
	runs     string // the content's digest
	revision uint64
	granted  int  // grants that it got and that were good
	dead     bool // it says nothing any more
	crash    bool // the new content crashes its engine
	orders   []*fleetpb.Order
}

// enrolled makes n hosts that run the content old.
func (p *plane) enrolled(n int) []*machine {
	p.t.Helper()
	list := make([]*machine, n)
	for i := range list {
		id, err := client.Enrol(p.t.Context(), p.URL(), p.token(nil), client.About{
			MachineID: fmt.Sprintf("machine-%d-%p", i, list), Hostname: fmt.Sprintf("host%d", i),
			Labels: map[string]string{"kernel": "6.18", "distro": "debian"},
		}, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		list[i] = p.machine(id)
		list[i].checkIn(0)
	}
	return list
}

func (p *plane) machine(id *client.Identity) *machine {
	p.t.Helper()
	h, err := client.NewHost(id)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(h.Close)
	return &machine{Host: h, t: p.t, key: id.DirectorKey, runs: digest("old")}
}

// report is what the machine says.
func (m *machine) report() *fleetpb.CheckInRequest {
	req := &fleetpb.CheckInRequest{
		Instance: "i-" + m.Identity().HostID, BootId: "b", Revision: m.revision,
		Installed: []*fleetpb.Installed{{
			Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: m.runs, Slot: "active", Healthy: !m.crashes(),
		}},
	}
	for _, o := range m.orders {
		if o.GetAct() == fleetpb.Order_ACT_STAGE {
			nonce := make([]byte, 16)
			_, _ = rand.Read(nonce)
			req.Asks = append(req.Asks, &fleetpb.Ask{
				Rollout: o.GetRollout(), Digest: o.GetRelease().GetDigest(), Nonce: nonce,
			})
		}
	}
	if m.crashes() {
		req.Buckets = []*fleetpb.Bucket{{
			Signature: "parse_template+0x21", Kind: "crash", Provider: "acme", Digest: m.runs, Count: 1,
			Sample: "#0 parse_template",
		}}
	}
	return req
}

func (m *machine) crashes() bool { return m.crash && m.runs == digest("new") }

// checkIn reports once and does what it is told.
func (m *machine) checkIn(wait uint32) *fleetpb.CheckInResponse {
	m.t.Helper()
	out, err := m.try(m.t.Context(), wait)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) try(ctx context.Context, wait uint32) (*fleetpb.CheckInResponse, error) {
	if m.dead {
		return &fleetpb.CheckInResponse{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience+time.Duration(wait)*time.Second)
	defer cancel()
	req := m.report()
	req.WaitSeconds = wait
	out, err := m.CheckIn(ctx, req)
	if err != nil {
		return nil, err
	}
	m.revision, m.orders = out.GetRevision(), out.GetOrders()
	for _, o := range out.GetOrders() {
		if o.GetAct() == fleetpb.Order_ACT_ROLL_BACK {
			m.runs = o.GetRelease().GetDigest()
		}
	}
	for _, g := range out.GetGrants() {
		said, err := statement.OpenGrant(m.key, g.GetSealed())
		if err != nil || said.Host != m.Identity().HostID || said.Nonce != hex.EncodeToString(req.GetAsks()[0].GetNonce()) {
			return nil, fmt.Errorf("a grant that no host believes: %+v, %w", said, err)
		}
		m.runs = string(said.Digest)
		m.granted++
	}
	return out, nil
}

// round lets a minute pass and every machine check in.
func (p *plane) round(machines []*machine) {
	p.t.Helper()
	p.hands.move(time.Minute)
	for _, m := range machines {
		m.checkIn(0)
	}
	p.tick()
}

// tick makes the conductor look at silent hosts now.
func (p *plane) tick() {
	p.t.Helper()
	if err := p.conductor.Look(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// spec is a rollout of new content.
func newContent() *fleetpb.RolloutSpec {
	return &fleetpb.RolloutSpec{Name: "sigs-2", Release: &fleetpb.Release{
		Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digest("new"), Counter: 2, Version: "2",
	}}
}

func (p *plane) create(spec *fleetpb.RolloutSpec) *fleetpb.Rollout {
	p.t.Helper()
	out, err := p.admin.CreateRollout(p.t.Context(), connect.NewRequest(&fleetpb.CreateRolloutRequest{Spec: spec}))
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Msg.GetRollout()
}

func (p *plane) rollout(id string) *fleetpb.Rollout {
	p.t.Helper()
	out, err := p.admin.GetRollout(p.t.Context(), connect.NewRequest(&fleetpb.GetRolloutRequest{Id: id}))
	if err != nil {
		p.t.Fatal(err)
	}
	return out.Msg.GetRollout()
}

// within holds the invariant on W.
func within(t testing.TB, r *fleetpb.Rollout) {
	t.Helper()
	for _, ring := range r.GetRings() {
		if ring.GetOutstanding() > ring.GetWindow() {
			t.Fatalf("ring %d: %d outstanding, W is %d", ring.GetRing(), ring.GetOutstanding(), ring.GetWindow())
		}
	}
}
