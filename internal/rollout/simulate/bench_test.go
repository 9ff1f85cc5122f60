package simulate

import (
	"context"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/rollout"
)

// BenchmarkPlay plays a whole rollout over 8.5 M hosts, with everything that one command does: seconds in all, and
// how many times as long a call of the controller takes there as one in a row for the same host.
func BenchmarkPlay(b *testing.B) {
	o := options("healthy", 8_500_000)
	b.ReportAllocs()
	calls, took := 0, time.Duration(0)
	var state rollout.State
	for b.Loop() {
		begin := time.Now()
		res, err := Play(context.Background(), o)
		if err != nil {
			b.Fatal(err)
		}
		took += time.Since(begin)
		calls += res.Runs[0].Inputs
		state = res.Runs[0].State
	}
	in := rollout.Input{Kind: rollout.CheckIn, Report: rollout.Report{Running: state.Spec.Previous, Healthy: true}}
	in.Host.Row = rollout.Row{Known: true, Phase: rollout.Pending}
	const alone = 1_000_000
	begin := time.Now()
	for range alone {
		state.Apply(state.Seen, &in)
	}
	each := float64(time.Since(begin)) / alone
	b.ReportMetric(took.Seconds()/float64(b.N), "s/rollout")
	b.ReportMetric(float64(took)/float64(calls)/each, "times-alone")
}
