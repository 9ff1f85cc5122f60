package root

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/preview"
	"github.com/keepout-security/keepout/internal/testenv"
)

// fleetPatience bounds what a whole fleet does.
const fleetPatience = 90 * time.Second

// fleet is a control plane and hosts, all of them real processes in network namespaces of their own.
type fleet struct {
	*preview.Fleet

	t   *testing.T
	cut []*preview.Host // that are off the network
}

// TestFleetStopsBadContent: content that vendor and operator both signed, and that ends its engine on the first event,
// stops in ring 0; the hosts go back by themselves. Then a release whose hosts fall silent stops there as well. The
// control plane is killed during both.
func TestFleetStopsBadContent(t *testing.T) {
	f := newFleet(t, preview.MinHosts)
	f.confined()
	f.apart()
	first := f.running()
	defer f.KeepBusy(time.Second)()

	f.rollOut("channel-file-291", 2, preview.ChannelLine("*/good-*", "evil-pipe"))
	f.until("a host of ring 0 has it", func() bool { return f.granted("channel-file-291", 0) > 0 })
	f.restartPlane()
	f.until("the rollout is halted", func() bool { return f.status("channel-file-291") == "halted" })
	f.stoppedBy("channel-file-291", "crash")
	f.until("every host runs what it ran", func() bool { return slices.Equal(f.running(), first) })

	f.rollOut("silence", 3, preview.ChannelLine("*/other", "*"))
	f.until("two hosts of ring 0 run it and fall silent", func() bool { return f.cutOff(first) >= 2 })
	f.restartPlane()
	f.until("the rollout is halted", func() bool { f.cutOff(first); return f.status("silence") == "halted" })
	f.stoppedBy("silence", "silen")
	for _, h := range f.cut {
		must(t, f.Heal(h))
	}
	f.until("every host runs what it ran", func() bool { return slices.Equal(f.running(), first) })
}

// newFleet starts a control plane and n hosts on release 1.
func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	need(t, testenv.NetNS)
	bin := testenv.Build(t, "./cmd/keepoutd", "./cmd/keepout-core", "./cmd/keepout", "./cmd/keepout-fetch",
		"./cmd/keepout-fleet", "./providers/hostile/channel291")
	dir, err := os.MkdirTemp("", "keepout-fleet-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	inner, err := preview.New(t.Context(), preview.Options{Bin: bin, Dir: dir, Hosts: n, Speed: 120})
	must(t, err)
	f := &fleet{Fleet: inner, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			f.tell()
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = f.Release(t.Context(), 1, preview.ChannelLine("*/ransom", "*"))
	must(t, err)
	must(t, f.StartPlane(t.Context()))
	must(t, f.StartHosts(t.Context()))
	return f
}

// tell shows the logs.
func (f *fleet) tell() {
	f.t.Logf("log of the control plane:\n%s", f.PlaneLog())
	for _, h := range f.Hosts {
		f.t.Log(h.Log())
	}
}

// confined checks that the fetchers, which alone have the network, have no right besides.
func (f *fleet) confined() {
	f.t.Helper()
	for _, h := range f.Hosts {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.FetchPID()))
		must(f.t, err)
		for _, want := range []string{
			"Uid:\t64900\t64900", "Gid:\t64900\t64900", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
		} {
			if !strings.Contains(string(text), want) {
				f.t.Errorf("a fetcher has not %q:\n%s", want, text)
			}
		}
	}
}

// apart checks that each host has a network namespace of its own, and that none is the test's.
func (f *fleet) apart() {
	f.t.Helper()
	ours, err := os.Readlink("/proc/self/ns/net")
	must(f.t, err)
	seen := []string{ours}
	for _, h := range f.Hosts {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.FetchPID()))
		must(f.t, err)
		if slices.Contains(seen, ns) {
			f.t.Errorf("%s shares its network %s", h.Name, ns)
		}
		seen = append(seen, ns)
	}
}

func (f *fleet) running() []string { return f.Running(f.t.Context()) }

// rollOut publishes a release and begins its rollout.
func (f *fleet) rollOut(name string, counter int, text string) {
	f.t.Helper()
	digest, err := f.Release(f.t.Context(), counter, text)
	must(f.t, err)
	must(f.t, f.RollOut(f.t.Context(), name, digest, counter))
}

func (f *fleet) rollout(name string) *fleetpb.Rollout { return f.Rollout(f.t.Context(), name) }

func (f *fleet) status(name string) string { return f.rollout(name).GetStatus() }

func (f *fleet) granted(name string, ring int) uint32 {
	rings := f.rollout(name).GetRings()
	if len(rings) <= ring {
		return 0
	}
	return rings[ring].GetGranted()
}

// stoppedBy checks the evidence of a halted rollout, and that nobody beyond ring 0 was ever granted.
func (f *fleet) stoppedBy(name, evidence string) {
	f.t.Helper()
	r := f.rollout(name)
	if !strings.Contains(r.GetReason(), evidence) {
		f.t.Errorf("the evidence is %q, want %s", r.GetReason(), evidence)
	}
	for i, ring := range r.GetRings() {
		if i > 0 && ring.GetGranted() > 0 {
			f.t.Errorf("%d hosts of ring %d were granted", ring.GetGranted(), i)
		}
	}
	if len(r.GetRings()) < 2 || r.GetRings()[0].GetGranted() < 2 {
		f.t.Errorf("rings %v: want hosts in ring 0 that were granted", r.GetRings())
	}
}

// cutOff takes the hosts that run something new off the network, and returns how many are off.
func (f *fleet) cutOff(first []string) int {
	f.t.Helper()
	for i, now := range f.running() {
		if h := f.Hosts[i]; now != "" && now != first[i] && !slices.Contains(f.cut, h) {
			must(f.t, f.Cut(h))
			f.cut = append(f.cut, h)
		}
	}
	return len(f.cut)
}

// restartPlane ends the control plane without a word, and starts it again.
func (f *fleet) restartPlane() {
	f.t.Helper()
	f.KillPlane()
	must(f.t, f.StartPlane(f.t.Context()))
}

func (f *fleet) until(what string, cond func() bool) {
	f.t.Helper()
	must(f.t, f.Until(f.t.Context(), what, fleetPatience, cond))
}
