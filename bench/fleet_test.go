package bench

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// fleetSize is how many hosts the benchmarks of the control plane have.
var fleetSize = flag.Int("fleet", 15_000, "hosts in the benchmarks of the control plane")

// fleetHTTP1 makes the hosts speak HTTP/1.1.
var fleetHTTP1 = flag.Bool("fleet-http1", false, "hosts of the control plane speak HTTP/1.1 instead of HTTP/2")

func newFleetHost(id *client.Identity) (*client.Host, error) {
	if *fleetHTTP1 {
		return client.NewHostHTTP1(id)
	}
	return client.NewHost(id)
}

// controlPlane is keepout-fleet in a process of its own, with hosts that enrolled before it started.
type controlPlane struct {
	b      testing.TB
	binary string
	state  string
	listen string
	cmd    *exec.Cmd
	ids    []client.Identity
}

// startFleet builds keepout-fleet, writes n hosts into its database, and starts it.
func startFleet(b *testing.B, n int) *controlPlane {
	b.Helper()
	dir := b.TempDir()
	p := &controlPlane{
		b: b, binary: filepath.Join(dir, "keepout-fleet"), state: filepath.Join(dir, "state"),
		listen: "127.0.0.1:0",
	}
	build := exec.CommandContext(b.Context(), "go", "build", "-o", p.binary, "../cmd/keepout-fleet")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	if err := os.MkdirAll(p.state, 0o700); err != nil {
		b.Fatal(err)
	}
	p.populate(n)
	p.launch()
	b.Cleanup(p.kill)
	return p
}

// populate makes hosts as enrolment would: their keys are one, which nobody minds here.
func (p *controlPlane) populate(n int) {
	p.b.Helper()
	authority, err := identity.OpenAuthority(p.state, time.Now())
	key, err2 := client.NewKey()
	if err := errors.Join(err, err2); err != nil {
		p.b.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	csr, err2 := x509.CreateCertificateRequest(crand.Reader, &x509.CertificateRequest{}, key)
	if err := errors.Join(err, err2); err != nil {
		p.b.Fatal(err)
	}
	s, err := store.OpenSQLite(p.b.Context(), filepath.Join(p.state, "fleet.db"))
	if err != nil {
		p.b.Fatal(err)
	}
	err = s.Update(p.b.Context(), func(tx store.Tx) error {
		for i := range n {
			id := fmt.Sprintf("h-%06d", i)
			issued, err := authority.IssueHost(csr, id, time.Now())
			if err != nil {
				return err
			}
			p.ids = append(p.ids, client.Identity{
				HostID: id, Key: der, Certificate: issued.DER, Authority: authority.Root.Raw, DirectorKey: authority.DirectorKey(),
			})
			err = tx.PutHost(store.Host{
				ID: id, State: store.Active, Serial: issued.Serial, KeyHash: issued.KeyHash, CertEnds: issued.NotAfter,
				Labels: map[string]string{"kernel": "6.18", "distro": "debian"},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		p.b.Fatal(err)
	}
}

// launch starts the process and waits until it says where it listens.
func (p *controlPlane) launch(more ...string) {
	p.b.Helper()
	p.cmd = exec.Command(p.binary, append([]string{"--state-dir", p.state, "--listen", p.listen}, more...)...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.b.Fatal(err)
	}
	url := line[strings.LastIndex(line, " ")+1 : len(line)-1]
	p.listen = strings.TrimPrefix(url, "https://")
	for i := range p.ids {
		p.ids[i].Server = url
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

func (p *controlPlane) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// rss is the process's memory in bytes.
func (p *controlPlane) rss() float64 {
	p.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		p.b.Fatal(err)
	}
	return kb * 1024
}

// cpu is the processor time that the process has used. Linux counts it in hundredths of a second here.
func (p *controlPlane) cpu() time.Duration {
	p.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.b.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err, err2); err != nil {
		p.b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// fleetReport is a check-in of usual size: two packages and their counters.
func fleetReport(id string) *fleetpb.CheckInRequest {
	d := "sha256:" + strings.Repeat("ab", 32)
	return &fleetpb.CheckInRequest{
		Instance: "instance-" + id, BootId: "b7c0a5c2-6c55-4a4c-9d8e-0d4b9a6f4a11",
		Installed: []*fleetpb.Installed{
			{Provider: "clamav", Channel: fleetpb.Channel_CHANNEL_ENGINE, Digest: d, Slot: "active", Counter: 7, Healthy: true},
			{Provider: "clamav", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: d, Slot: "active", Counter: 9, Healthy: true},
		},
		Counters: []*fleetpb.Counters{{
			Provider: "clamav", Minutes: 5, Verdicts: 12_000, CpuSeconds: 3, MemoryBytes: 1 << 28,
		}},
	}
}

// BenchmarkFleetCheckIn is the server's processor time for one check-in on a connection that is there, with TLS,
// HTTP/2, the host's certificate and the batched write.
func BenchmarkFleetCheckIn(b *testing.B) {
	p := startFleet(b, 64)
	hosts := make([]*client.Host, len(p.ids))
	for i := range hosts {
		h, err := newFleetHost(&p.ids[i])
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(h.Close)
		hosts[i] = h
		if _, err := h.CheckIn(b.Context(), fleetReport(p.ids[i].HostID)); err != nil {
			b.Fatal(err)
		}
	}
	const each = 500
	round := func(call func(i int, h *client.Host) error) (cost time.Duration, n int) {
		begin := p.cpu()
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() {
				for range each {
					if err := call(i, h); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return p.cpu() - begin, each * len(hosts)
	}
	var checkIns, bare time.Duration
	n := 0
	for b.Loop() {
		cost, calls := round(func(i int, h *client.Host) error {
			_, err := h.CheckIn(b.Context(), fleetReport(p.ids[i].HostID))
			return err
		})
		least, _ := round(func(_ int, h *client.Host) error { // nothing but TLS and HTTP/2
			body, err := h.Fetch(b.Context(), "../healthz", 0)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, body)
			return errors.Join(err, body.Close())
		})
		checkIns, bare, n = checkIns+cost, bare+least, n+calls
	}
	b.ReportMetric(float64(checkIns.Microseconds())/float64(n), "server-µs/check-in")
	b.ReportMetric(float64(bare.Microseconds())/float64(n), "server-µs/empty-request")
	b.ReportMetric(float64(checkIns)/float64(max(bare, 1)), "ratio")
}

// returning is many hosts that hold long-polls and come back when they break, as hosts do.
type returning struct {
	p        *controlPlane
	polling  atomic.Int64 // that have been answered once since the last start, and wait
	tried    atomic.Int64
	failed   atomic.Int64
	counting atomic.Bool
	ctx      context.Context //nolint:containedctx // it ends with the benchmark
}

// run is one host's life. Every start of the server begins a new generation.
func (c *returning) run(i int, gate chan struct{}) {
	h, err := newFleetHost(&c.p.ids[i])
	if err != nil {
		c.p.b.Error(err)
		return
	}
	defer h.Close()
	spread := time.Second
	var revision uint64
	for c.ctx.Err() == nil {
		req := fleetReport(c.p.ids[i].HostID)
		req.Revision = revision
		gate <- struct{}{} // only the ramp: a storm has no gate
		c.try()
		out, err := h.CheckIn(c.ctx, req)
		<-gate
		if err == nil {
			revision, spread = out.GetRevision(), time.Duration(out.GetSpreadMs())*time.Millisecond
			req.Revision, req.WaitSeconds, req.Counters = revision, 600, nil
			c.polling.Add(1)
			_, err = h.CheckIn(c.ctx, req)
			c.polling.Add(-1)
		} else if c.counting.Load() && c.ctx.Err() == nil {
			if c.failed.Add(1) <= 5 {
				c.p.b.Logf("host %d: %v", i, err)
			}
		}
		if err != nil {
			select {
			case <-time.After(rand.N(spread)):
			case <-c.ctx.Done():
			}
		}
	}
}

func (c *returning) try() {
	if c.counting.Load() {
		c.tried.Add(1)
	}
}

// settle waits until so many hosts wait.
func (c *returning) settle(n int) {
	c.p.b.Helper()
	for end := time.Now().Add(10 * time.Minute); int(c.polling.Load()) < n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.p.b.Fatalf("%d of %d hosts wait", c.polling.Load(), n)
		}
	}
}

// BenchmarkFleetLongPolls holds a long-poll of each host on one process: its memory for each; then it kills the
// process, starts it again, and counts what goes wrong until all hosts are back.
func BenchmarkFleetLongPolls(b *testing.B) {
	n := *fleetSize
	p := startFleet(b, n)
	before := p.rss()
	ctx, cancel := context.WithCancel(b.Context())
	c := &returning{p: p, ctx: ctx}
	var wg sync.WaitGroup
	gate := make(chan struct{}, n)
	for i := range n {
		wg.Go(func() {
			select { // nobody switches on a whole fleet at once
			case <-time.After(rand.N(time.Duration(n) * 2 * time.Millisecond)):
			case <-ctx.Done():
			}
			c.run(i, gate)
		})
	}
	c.settle(n)
	time.Sleep(5 * time.Second)
	full := p.rss()
	p.kill()
	down := time.Now()
	for c.polling.Load() > 0 && time.Since(down) < time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	p.launch()
	c.counting.Store(true)
	up := time.Now()
	c.settle(n)
	c.counting.Store(false)
	b.ReportMetric((full-before)/1024/float64(n), "KB/long-poll")
	b.ReportMetric(time.Since(up).Seconds(), "s-to-settle")
	b.ReportMetric(100*float64(c.failed.Load())/float64(max(c.tried.Load(), 1)), "%errors")
	b.ReportMetric(float64(n), "hosts")
	cancel()
	p.kill()
	wg.Wait()
}
