package bench

import (
	"crypto/rand"
	"os"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/preview"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/update"
)

// haltProcesses is a fleet of which 200 hosts are in ring 0, which runs the release, and in ring 1, which has it
// staged. The others, the control group, have not been told of it yet.
const haltProcesses = 268

// BenchmarkFleetHaltProcesses halts a rollout of which 200 keepout-fetch know, each a process in a network namespace
// of its own that holds a long-poll of the control plane: from the halt's request to the moment when the last of them
// has written down that the release is over. The ratio is to the median host.
func BenchmarkFleetHaltProcesses(b *testing.B) {
	testenv.Need(b, testenv.Root, testenv.MountNS, testenv.NetNS)
	f, digests := fetchers(b, haltProcesses)
	if err := f.RollOut(b.Context(), "halt", digests[1], 2); err != nil {
		b.Fatal(err)
	}
	wait := func(what string, cond func() bool) {
		b.Helper()
		if err := f.Until(b.Context(), what, 90*time.Second, cond); err != nil {
			b.Fatal(err)
		}
	}
	var told []*preview.Host
	wait("every host of two rings has staged the release", func() bool {
		told = slices.DeleteFunc(slices.Clone(f.Hosts), idle)
		return len(told) >= haltHosts
	})
	activate(b, f, told, digests, wait)
	wait("every host holds a long-poll", func() bool {
		out, err := f.API().GetSummary(b.Context(), connect.NewRequest(&fleetpb.GetSummaryRequest{}))
		return err == nil && out.Msg.GetConnected() >= haltProcesses
	})
	begin := time.Now()
	_, err := f.API().HaltRollout(b.Context(), connect.NewRequest(&fleetpb.HaltRolloutRequest{
		Id: "halt", Reason: "measured",
	}))
	if err != nil {
		b.Fatal(err)
	}
	took := heard(b, told, begin)
	last, median := took[len(took)-1], took[len(took)/2]
	b.ReportMetric(last.Seconds()*1000, "ms-to-last-host")
	b.ReportMetric(median.Seconds()*1000, "ms-to-median-host")
	b.ReportMetric(last.Seconds()/median.Seconds(), "ratio")
	b.ReportMetric(float64(len(took)), "processes")
}

// fetchers starts a control plane with two releases, and n hosts on the first; it returns the releases' digests.
func fetchers(b *testing.B, n int) (f *preview.Fleet, digests [2]string) {
	b.Helper()
	bin := testenv.Build(b, "./cmd/keepout", "./cmd/keepout-fetch", "./cmd/keepout-fleet",
		"./providers/hostile/channel291")
	dir, err := os.MkdirTemp("", "keepout-bench-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	if f, err = preview.New(b.Context(), preview.Options{Bin: bin, Dir: dir, Hosts: n, Speed: 1}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	})
	for i := range digests {
		if digests[i], err = f.Release(b.Context(), i+1, preview.ChannelLine("*/ransom", "*")); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.StartPlane(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := f.StartFetchers(b.Context(), coreReport(digests[0])); err != nil {
		b.Fatal(err)
	}
	return f, digests
}

// coreReport is what the core of a host says that runs a release.
func coreReport(digest string) update.Report {
	return update.Report{Core: "bench", Installed: []update.Installed{{
		Provider: preview.Provider, Part: rollback.Content, Slot: "active", Digest: digest, Healthy: true,
	}}}
}

// staged are the orders of a host to stage something.
func staged(h *preview.Host) (list []update.Order) {
	o, _, err := h.Orders()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(o.Orders, func(o update.Order) bool { return o.Act != update.Stage })
}

func idle(h *preview.Host) bool { return len(staged(h)) == 0 }

// activate has every host ask for a grant, as cores do, and those who get one run the release.
func activate(
	b *testing.B, f *preview.Fleet, told []*preview.Host, digests [2]string, wait func(string, func() bool),
) {
	b.Helper()
	for _, h := range told {
		r := coreReport(digests[0])
		for _, o := range staged(h) {
			nonce := make([]byte, 16)
			_, _ = rand.Read(nonce) // it never fails
			r.Asks = append(r.Asks, update.Ask{Rollout: o.Rollout, Digest: o.Digest, Nonce: nonce})
		}
		if err := h.Report(r); err != nil {
			b.Fatal(err)
		}
	}
	ring := func() *fleetpb.Ring { return f.Rollout(b.Context(), "halt").GetRings()[0] }
	granted := func() (list []*preview.Host) {
		for _, h := range told {
			if o, _, err := h.Orders(); err == nil && len(o.Grants) > 0 {
				list = append(list, h)
			}
		}
		return list
	}
	members := int(ring().GetMembers())
	wait("every host of ring 0 has a grant", func() bool { return len(granted()) == members })
	for _, h := range granted() {
		if err := h.Report(coreReport(digests[1])); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second) // for the reports to be noticed
}

// heard waits until every host has written down that there is nothing to stage any more, and returns when each did,
// in order.
func heard(b *testing.B, told []*preview.Host, begin time.Time) (took []time.Duration) {
	b.Helper()
	left := slices.Clone(told)
	for end := begin.Add(2 * time.Minute); len(left) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%d of %d hosts know nothing of the halt", len(left), len(told))
		}
		left = slices.DeleteFunc(left, func(h *preview.Host) bool {
			o, at, err := h.Orders()
			over := err == nil && !slices.ContainsFunc(o.Orders, func(o update.Order) bool { return o.Act == update.Stage })
			if over {
				took = append(took, at.Sub(begin))
			}
			return over
		})
	}
	slices.Sort(took)
	return took
}
