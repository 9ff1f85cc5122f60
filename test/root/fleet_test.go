package root

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// fleetPatience bounds what a whole fleet does.
const fleetPatience = 90 * time.Second

// fleetHosts are few, so that two processors can run them: a ring 0, and two in the control group.
const fleetHosts = 8

// preview is a control plane and hosts, all of them real processes.
type preview struct {
	t     *testing.T
	bin   string
	dir   string
	port  int
	api   fleetpbconnect.FleetServiceClient
	plane *exec.Cmd
	hosts []*fleetHost
}

// fleetHost is one host of it.
type fleetHost struct {
	*testhost.Host

	fetch  *exec.Cmd
	log    bytes.Buffer
	frozen bool
}

// TestFleetStopsBadContent: content that vendor and operator both signed, and that ends its engine on the first event,
// stops in ring 0; the hosts go back by themselves. Then a release whose hosts fall silent stops there as well. The
// control plane is killed during both.
func TestFleetStopsBadContent(t *testing.T) {
	need(t)
	p := newPreview(t)
	old := p.release(1, channelLine("*/ransom", "*"))
	p.startPlane()
	p.startHosts(fleetHosts)
	p.confined()
	first := p.running()

	bad := p.release(2, channelLine("*/good-*", "evil-pipe"))
	p.rollOut("channel-file-291", bad, 2)
	p.until("a host of ring 0 has it", func() bool { p.touch(); return p.granted("channel-file-291", 0) > 0 })
	p.killPlane()
	p.startPlane()
	p.until("the rollout is halted", func() bool { p.touch(); return p.status("channel-file-291") == "halted" })
	r := p.rollout("channel-file-291")
	if !strings.Contains(r.GetReason(), "crash") {
		t.Errorf("the evidence is %q, want a crash", r.GetReason())
	}
	p.onlyRing0(r)
	p.until("every host runs what it ran", func() bool { return slices.Equal(p.running(), first) })
	t.Logf("halted: %s\nold %s", r.GetReason(), old)

	fine := p.release(3, channelLine("*/other", "*"))
	p.rollOut("silence", fine, 3)
	p.until("two hosts of ring 0 run it and fall silent", func() bool { return p.freeze(first) >= 2 })
	p.killPlane()
	p.startPlane()
	p.until("the rollout is halted", func() bool { p.freeze(first); return p.status("silence") == "halted" })
	r = p.rollout("silence")
	if !strings.Contains(r.GetReason(), "silen") {
		t.Errorf("the evidence is %q, want silence", r.GetReason())
	}
	p.onlyRing0(r)
	p.thaw()
	p.until("every host runs what it ran", func() bool { return slices.Equal(p.running(), first) })
}

// channelLine is a channel file of 21 fields.
func channelLine(path, last string) string {
	fields := strings.Split(strings.Repeat("*,", 20)+last, ",")
	fields[1] = path
	return "# template instances of type 291\n" + strings.Join(fields, ",") + "\n"
}

func newPreview(t *testing.T) *preview {
	t.Helper()
	p := &preview{t: t, bin: testenv.Build(t, "./cmd/keepoutd", "./cmd/keepout-core", "./cmd/keepout",
		"./cmd/keepout-fetch", "./cmd/keepout-fleet", "./providers/hostile/channel291")}
	dir, err := os.MkdirTemp("", "keepout-fleet-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = dir
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.port = l.Addr().(*net.TCPAddr).Port
	must(t, l.Close())
	p.keepout("keys", "init", "acme", "--as", "vendor", "--no-passphrase")
	p.keepout("keys", "init", "ops", "--as", "operator", "--no-passphrase")
	p.keepout("keys", "vendor", "ops", "acme", "--root", "acme/metadata/1.root.json", "--provider", "channel291")
	must(t, os.MkdirAll(p.in("fleet"), 0o700))
	key, err := os.ReadFile(p.in("ops/keys/director-1.key"))
	must(t, err)
	must(t, os.WriteFile(p.in("fleet/director-key.pem"), key, 0o600))
	return p
}

func (p *preview) in(name string) string { return filepath.Join(p.dir, name) }

// keepout runs the command as a person would.
func (p *preview) keepout(args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.bin, "keepout"), args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "KEEPOUT_FLEET_LOGIN="+p.in("fleet/admin.json"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("keepout %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// release builds, signs and publishes content, and returns its digest.
func (p *preview) release(counter int, text string) string {
	p.t.Helper()
	name := fmt.Sprintf("content-%d", counter)
	must(p.t, os.MkdirAll(p.in(name), 0o755))
	must(p.t, os.WriteFile(p.in(fmt.Sprintf("%s/c-00000291-%08d.channel", name, counter)), []byte(text), 0o644))
	var b struct {
		Package struct {
			Digest string `json:"digest"`
		} `json:"package"`
	}
	engine := p.engineWithoutSchema()
	must(p.t, json.Unmarshal([]byte(p.keepout("-o", "json", "package", "build", name, "--provider", engine, "--version",
		strconv.Itoa(counter), "--counter", strconv.Itoa(counter), "--to", name+".oci")), &b))
	for _, home := range []string{"acme", "ops"} {
		p.keepout("package", "sign", name+".oci", "--home", home)
	}
	packages := p.in("fleet/packages")
	must(p.t, os.MkdirAll(packages, 0o755))
	for from, to := range map[string]string{
		"ops/metadata": "operator", "acme/metadata": "vendors/acme", name + ".oci/blobs": "blobs",
	} {
		run(p.t, "mkdir", "-p", filepath.Join(packages, to))
		run(p.t, "cp", "-r", p.in(from)+"/.", filepath.Join(packages, to))
	}
	return b.Package.Digest
}

// engineWithoutSchema is the provider as a vendor has it who forgot what July 2024 was about.
func (p *preview) engineWithoutSchema() string {
	to := p.in("engines/channel291")
	if _, err := os.Stat(to); err == nil {
		return to
	}
	run(p.t, "mkdir", "-p", p.in("engines"))
	run(p.t, "cp", "-r", filepath.Join(p.bin, "hostile", "channel291"), to)
	file := filepath.Join(to, "provider.yaml")
	text, err := os.ReadFile(file)
	must(p.t, err)
	before, rest, _ := bytes.Cut(text, []byte("content_schema:"))
	if i := bytes.Index(rest, []byte("\nexecutable_sha256")); i >= 0 {
		before = append(before, rest[i+1:]...)
	}
	must(p.t, os.WriteFile(file, before, 0o644))
	p.keepout("provider", "seal", to)
	return to
}

func (p *preview) startPlane() {
	p.t.Helper()
	cmd := exec.CommandContext(context.Background(), filepath.Join(p.bin, "keepout-fleet"), "--state-dir", p.in("fleet"),
		"--listen", fmt.Sprintf("127.0.0.1:%d", p.port), "--check-in", "2s", "--speed", "60")
	var log bytes.Buffer
	cmd.Stderr = &log
	must(p.t, cmd.Start())
	p.plane = cmd
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("log of the control plane:\n%s", log.String())
		}
	})
	p.until("the control plane serves", func() bool {
		login, err := client.LoadLogin(p.in("fleet/admin.json"))
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

func (p *preview) killPlane() {
	p.t.Helper()
	must(p.t, p.plane.Process.Kill())
	_ = p.plane.Wait() // it was killed
}

// startHosts starts n hosts, each with a core, a provider and a fetcher of its own, and waits until all are heard of.
func (p *preview) startHosts(n int) {
	p.t.Helper()
	for i := range n {
		token := p.in(fmt.Sprintf("token-%d", i))
		must(p.t, os.WriteFile(token, []byte(p.keepout("fleet", "enroll")), 0o600))
		opt := testhost.Options{
			Life: 10 * time.Minute, Wait: true,
			Updates: "trial: 0s, trial_idle: 0s, samples: 0, settle: 0s, soak: 1s, schema: false, load: false, trust: " +
				p.in("ops/metadata/1.root.json"),
			Extra: "budgets: {metadata: 10s, content: 10s}\nproviders:\n  - {id: channel291, mode: enforce, content: " +
				p.in("content-1") + "}",
		}
		h := &fleetHost{Host: testhost.Prepare(p.t, opt)}
		h.Providers = p.in("engines")
		h.Launch(opt)
		p.hosts = append(p.hosts, h)
		h.fetch = exec.CommandContext(context.Background(), filepath.Join(p.bin, "keepout-fetch"), "--state-dir", h.State,
			"--server", fmt.Sprintf("https://127.0.0.1:%d", p.port), "--token-file", token,
			"--machine-id", fmt.Sprintf("machine-%d", i), "--hostname", fmt.Sprintf("host%d", i))
		h.fetch.Stderr = &h.log
		p.until("the core of a host works", func() bool { return p.runs(h) != "" })
		must(p.t, h.fetch.Start())
		p.t.Cleanup(func() {
			_ = h.fetch.Process.Signal(syscall.SIGCONT)
			_ = h.fetch.Process.Kill()
			_ = h.fetch.Wait()
			if p.t.Failed() {
				p.t.Logf("log of a fetcher:\n%s", h.log.String())
			}
		})
	}
	p.until("every host has reported", func() bool {
		out, err := p.api.ListHosts(p.t.Context(), connect.NewRequest(&fleetpb.ListHostsRequest{}))
		return err == nil && len(out.Msg.GetHosts()) == n && !slices.ContainsFunc(out.Msg.GetHosts(),
			func(h *fleetpb.Host) bool { return len(h.GetInstalled()) == 0 })
	})
}

// confined checks that the fetchers, which alone have the network, have no right besides.
func (p *preview) confined() {
	p.t.Helper()
	for _, h := range p.hosts {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.fetch.Process.Pid))
		must(p.t, err)
		for _, want := range []string{
			"Uid:\t64900\t64900", "Gid:\t64900\t64900", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
		} {
			if !strings.Contains(string(text), want) {
				p.t.Errorf("a fetcher has not %q:\n%s", want, text)
			}
		}
	}
}

// runs is the version of the content that a host's engine has loaded.
func (p *preview) runs(h *fleetHost) string {
	s, err := h.TryStatus()
	if err != nil || len(s.Providers) == 0 {
		return ""
	}
	return s.Providers[0].Content
}

func (p *preview) running() (out []string) {
	for _, h := range p.hosts {
		out = append(out, p.runs(h))
	}
	return out
}

// touch opens a file on every host.
func (p *preview) touch() {
	for _, h := range p.hosts {
		path := filepath.Join(h.Dir, "good-morning")
		_ = os.WriteFile(path, []byte("x"), 0o644) // whatever the verdict is
		_ = open(path)
	}
}

func (p *preview) rollOut(name, digest string, counter int) {
	p.t.Helper()
	p.keepout("rollout", "create", "--name", name, "--provider", "channel291", "--digest", digest, "--counter",
		strconv.Itoa(counter))
}

func (p *preview) rollout(name string) *fleetpb.Rollout {
	out, err := p.api.GetRollout(p.t.Context(), connect.NewRequest(&fleetpb.GetRolloutRequest{Id: name}))
	if err != nil {
		return nil
	}
	return out.Msg.GetRollout()
}

func (p *preview) status(name string) string { return p.rollout(name).GetStatus() }

func (p *preview) granted(name string, ring int) uint32 {
	rings := p.rollout(name).GetRings()
	if len(rings) <= ring {
		return 0
	}
	return rings[ring].GetGranted()
}

// onlyRing0 checks that nobody else was ever granted.
func (p *preview) onlyRing0(r *fleetpb.Rollout) {
	p.t.Helper()
	for i, ring := range r.GetRings() {
		if i > 0 && ring.GetGranted() > 0 {
			p.t.Errorf("%d hosts of ring %d were granted", ring.GetGranted(), i)
		}
	}
	if len(r.GetRings()) < 2 || r.GetRings()[0].GetGranted() < 2 {
		p.t.Errorf("rings %v: want hosts in ring 0 that were granted", r.GetRings())
	}
}

// freeze stops the fetchers of the hosts that run something new, and returns how many are stopped.
func (p *preview) freeze(first []string) (n int) {
	for i, h := range p.hosts {
		if now := p.runs(h); !h.frozen && now != "" && now != first[i] {
			must(p.t, h.fetch.Process.Signal(syscall.SIGSTOP))
			h.frozen = true
		}
		if h.frozen {
			n++
		}
	}
	return n
}

func (p *preview) thaw() {
	for _, h := range p.hosts {
		must(p.t, h.fetch.Process.Signal(syscall.SIGCONT))
	}
}

func (p *preview) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(fleetPatience); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if cond() {
			return
		}
	}
	p.t.Fatalf("waited in vain until %s\nthe hosts run %q\n%v", what, p.running(), errors.Join(p.trouble()...))
}

// trouble is what the cores say, for a test that fails.
func (p *preview) trouble() (out []error) {
	for _, h := range p.hosts {
		if s, err := h.TryStatus(); err == nil {
			for _, problem := range s.Problems {
				out = append(out, problem)
			}
		}
	}
	return out
}
