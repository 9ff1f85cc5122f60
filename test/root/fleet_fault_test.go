package root

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
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
	"github.com/keepout-security/keepout/internal/testenv"
)

// plane is a control plane: the real program, in a folder of its own.
type plane struct {
	t    *testing.T
	bin  string
	dir  string
	addr string
	api  fleetpbconnect.FleetServiceClient
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func newPlane(t *testing.T, dir string) *plane {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	p := &plane{t: t, bin: testenv.Build(t, "./cmd/keepout-fleet"), dir: dir, addr: l.Addr().String()}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of the control plane:\n%s", p.log.String())
		}
	})
	return p
}

// begin starts the program.
func (p *plane) begin() {
	p.t.Helper()
	p.cmd = exec.CommandContext(context.Background(), filepath.Join(p.bin, "keepout-fleet"), "--state-dir", p.dir,
		"--listen", p.addr, "--check-in", "2s", "--speed", "600")
	p.cmd.Stderr = &p.log
	must(p.t, p.cmd.Start())
}

// serves waits until it answers people.
func (p *plane) serves() {
	p.t.Helper()
	until(p.t, "the control plane serves", func() bool {
		login, err := client.LoadLogin(filepath.Join(p.dir, "admin.json"))
		if err != nil {
			return false
		}
		if p.api, err = login.Dial(); err != nil {
			return false
		}
		_, err = p.api.WhoAmI(p.t.Context(), connect.NewRequest(&fleetpb.WhoAmIRequest{}))
		return err == nil
	})
}

// kill ends it as a power cut would.
func (p *plane) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
}

// simulated is a host without a core: it says what one would.
type simulated struct {
	*client.Host

	key      ed25519.PublicKey
	runs     string
	orders   []*fleetpb.Order
	revision uint64
	serials  []uint64
}

func (p *plane) enrol(i int) *simulated {
	p.t.Helper()
	token, err := p.api.CreateEnrolToken(p.t.Context(), connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{}))
	must(p.t, err)
	id, err := client.Enrol(p.t.Context(), "https://"+p.addr, token.Msg.GetSecret(), client.About{
		MachineID: fmt.Sprint("machine-", i), Hostname: fmt.Sprint("host", i),
	}, nil)
	must(p.t, err)
	h, err := client.NewHostHTTP1(id)
	must(p.t, err)
	p.t.Cleanup(h.Close)
	return &simulated{Host: h, key: id.DirectorKey, runs: digestOf("old")}
}

func digestOf(name string) string {
	return "sha256:" + hex.EncodeToString([]byte(name + strings.Repeat("0", 32))[:32])
}

// checkIn says once how the host is, and does what it is told. An answer that does not come changes nothing.
func (s *simulated) checkIn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req := &fleetpb.CheckInRequest{
		Instance: "i-" + s.Identity().HostID, BootId: "b", Revision: s.revision,
		Installed: []*fleetpb.Installed{{
			Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: s.runs, Slot: "active", Healthy: true,
		}},
	}
	for _, o := range s.orders {
		nonce := make([]byte, 16)
		_, _ = rand.Read(nonce) // it never fails
		req.Asks = append(req.Asks, &fleetpb.Ask{Rollout: o.GetRollout(), Digest: o.GetRelease().GetDigest(), Nonce: nonce})
	}
	out, err := s.CheckIn(ctx, req)
	if err != nil {
		return err
	}
	s.revision, s.orders = out.GetRevision(), out.GetOrders()
	for _, g := range out.GetGrants() {
		said, err := statement.OpenGrant(s.key, g.GetSealed())
		if err != nil || said.Nonce != hex.EncodeToString(req.GetAsks()[0].GetNonce()) {
			return fmt.Errorf("a grant that no host believes: %+v, %w", said, err)
		}
		s.runs = string(said.Digest)
		s.serials = append(s.serials, said.Serial)
	}
	return nil
}

// rolledOut begins a rollout of new content.
func (p *plane) rolledOut() {
	p.t.Helper()
	_, err := p.api.CreateRollout(p.t.Context(), connect.NewRequest(&fleetpb.CreateRolloutRequest{
		Spec: &fleetpb.RolloutSpec{Name: "new", Release: &fleetpb.Release{
			Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: digestOf("new"), Counter: 2,
		}},
	}))
	must(p.t, err)
}

// within holds the invariant on W, and that nobody holds a grant that the control plane does not know of.
func (p *plane) within(hosts []*simulated) *fleetpb.Rollout {
	p.t.Helper()
	holders, serials := 0, map[uint64]bool{}
	for _, h := range hosts { // before the server is asked: it may know of more by then, and never of less
		if len(h.serials) > 0 {
			holders++
		}
		for _, s := range h.serials {
			if serials[s] {
				p.t.Errorf("two hosts hold grant %d", s)
			}
			serials[s] = true
		}
	}
	out, err := p.api.GetRollout(p.t.Context(), connect.NewRequest(&fleetpb.GetRolloutRequest{Id: "new"}))
	must(p.t, err)
	r, granted := out.Msg.GetRollout(), 0
	for _, ring := range r.GetRings() {
		granted += int(ring.GetGranted())
		if ring.GetOutstanding() > ring.GetWindow() {
			p.t.Errorf("ring %d: %d outstanding, W is %d", ring.GetRing(), ring.GetOutstanding(), ring.GetWindow())
		}
	}
	if holders > granted {
		p.t.Errorf("%d hosts hold a grant, the control plane knows of %d", holders, granted)
	}
	return r
}

// TestFleetKilledAnyMoment: the control plane is killed at random moments of a rollout while hosts check in, and
// started again. Whatever had just been written, W holds, no grant is unknown to it or given twice, the audit trail is
// whole, and the rollout goes on.
func TestFleetKilledAnyMoment(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := mrand.New(mrand.NewPCG(seed, 1))
	p := newPlane(t, filepath.Join(t.TempDir(), "fleet"))
	p.begin()
	p.serves()
	hosts := make([]*simulated, 24)
	for i := range hosts {
		hosts[i] = p.enrol(i)
		must(t, hosts[i].checkIn(t.Context()))
	}
	p.rolledOut()
	const kills = 15
	for range kills {
		ctx, stop := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		for _, h := range hosts {
			pause := time.Duration(10+rng.IntN(60)) * time.Millisecond
			busy.Go(func() {
				for ctx.Err() == nil {
					_ = h.checkIn(ctx) // it may be killed at this very moment
					time.Sleep(pause)
				}
			})
		}
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		p.kill()
		stop()
		busy.Wait()
		p.begin()
		p.serves()
		p.within(hosts)
	}
	p.goesOn(hosts)
	p.whole()
}

// goesOn lets hosts check in until every one of them that may in ring 0 is confirmed.
func (p *plane) goesOn(hosts []*simulated) {
	p.t.Helper()
	done := func() bool {
		r := p.within(hosts).GetRings()
		return len(r) > 0 && r[0].GetGranted() > 0 && r[0].GetConfirmed() == r[0].GetMembers()
	}
	for end := time.Now().Add(fleetPatience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("it does not go on: %v", p.within(hosts))
		}
		for _, h := range hosts {
			must(p.t, h.checkIn(p.t.Context()))
		}
	}
}

// whole checks the audit trail.
func (p *plane) whole() {
	p.t.Helper()
	out, err := p.api.VerifyAudit(p.t.Context(), connect.NewRequest(&fleetpb.VerifyAuditRequest{}))
	if err != nil || !out.Msg.GetIntact() {
		p.t.Errorf("the audit trail: %v, %v", out, err)
	}
}

// TestFleetDiskFull: a control plane without room on its disk says so, grants nothing, loses nothing of what it had
// said yes to, survives being killed like that, and goes on once there is room.
func TestFleetDiskFull(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	disk := testenv.Tmpfs(t, "24m")
	p := newPlane(t, filepath.Join(disk, "fleet"))
	p.begin()
	p.serves()
	hosts := make([]*simulated, 8)
	for i := range hosts {
		hosts[i] = p.enrol(i)
		must(t, hosts[i].checkIn(t.Context()))
	}
	p.rolledOut()
	fill := filepath.Join(disk, "fill")
	room, err := os.Create(fill)
	must(t, err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = room.Write(block)
	}
	must(t, room.Close())
	var refused error
	kept := 0
	until(t, "it has no room", func() bool {
		_, refused = p.api.CreateEnrolToken(t.Context(), connect.NewRequest(&fleetpb.CreateEnrolTokenRequest{
			Note: strings.Repeat("x", 1000),
		}))
		if refused == nil {
			kept++
		}
		return refused != nil
	})
	if !strings.Contains(refused.Error(), "KO-2218") || connect.CodeOf(refused) != connect.CodeUnavailable {
		t.Errorf("it says %v", refused)
	}
	for _, h := range hosts { // what needs no room may go on; what cannot be stored is not granted
		if err := h.checkIn(t.Context()); err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("a host hears %v", err)
		}
	}
	p.kill()
	p.begin() // it may not come up without room: then it must say why
	ended := make(chan error, 1)
	go func(c *exec.Cmd) { ended <- c.Wait() }(p.cmd)
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(p.log.String(), "full") {
			t.Errorf("it ended with %v and said %s", err, p.log.String())
		}
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
	}
	p.cmd = nil
	must(t, os.Remove(fill))
	p.begin()
	p.serves()
	p.within(hosts)
	tokens, err := p.api.ListEnrolTokens(t.Context(), connect.NewRequest(&fleetpb.ListEnrolTokensRequest{}))
	if must(t, err); len(tokens.Msg.GetTokens()) != kept+len(hosts) {
		t.Errorf("%d tokens, it had said yes to %d", len(tokens.Msg.GetTokens()), kept+len(hosts))
	}
	p.goesOn(hosts)
	p.whole()
}
