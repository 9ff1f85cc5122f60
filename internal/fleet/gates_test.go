package fleet

import (
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/rollout"
)

// TestReportsReachTheGates: each thing that a host can report changes what the gates look at, and nothing else does.
func TestReportsReachTheGates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		counters *fleetpb.Counters
		bucket   string
		see      func(*rollout.Report) bool
	}{
		"denies":   {&fleetpb.Counters{Denies: 1}, "", func(r *rollout.Report) bool { return r.Denied && !r.Vital }},
		"critical": {&fleetpb.Counters{CriticalDenies: 1}, "", func(r *rollout.Report) bool { return r.Vital }},
		"timeouts": {&fleetpb.Counters{VerdictTimeouts: 1}, "", func(r *rollout.Report) bool { return r.Timeouts }},
		"load": {
			&fleetpb.Counters{Minutes: 2, CpuSeconds: 60, MemoryBytes: 1 << 20, LatencyP99Ms: 50}, "",
			func(r *rollout.Report) bool { return *r.Load == rollout.Load{CPU: 0.5, Memory: 1 << 20, Latency: 0.05} },
		},
		"crash":    {nil, "crash", incidentOf(rollout.Crash)},
		"watchdog": {nil, "watchdog", incidentOf(rollout.Watchdog)},
		"boot":     {nil, "boot", incidentOf(rollout.Boot)},
		"recovery": {nil, "recovery", incidentOf(rollout.Recovery)},
		"deny":     {nil, "deny", incidentOf(rollout.Denials)},
	} {
		m := &fleetpb.CheckInRequest{Installed: []*fleetpb.Installed{
			{Provider: "p", Channel: fleetpb.Channel_CHANNEL_CONTENT, Slot: slotActive, Digest: "d", Healthy: true},
			{Provider: "p", Channel: fleetpb.Channel_CHANNEL_CONTENT, Slot: slotCandidate, Digest: "e"},
			{Provider: "q", Channel: fleetpb.Channel_CHANNEL_CONTENT, Slot: slotActive, Digest: "f", Healthy: true},
		}}
		if c.counters != nil {
			c.counters.Provider = "p"
			m.Counters = append(m.Counters, c.counters)
		} else {
			m.Buckets = append(m.Buckets, &fleetpb.Bucket{Provider: "p", Kind: c.bucket, Signature: "s"})
		}
		if err := checkReport(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all := saidIn(m)
		if len(all) != 2 {
			t.Fatalf("%s: %+v", name, all)
		}
		if p := &all[0]; !c.see(&p.Report) || p.Candidate != "e" || !p.Report.Healthy {
			t.Errorf("%s is not seen: %+v", name, p)
		}
		q := &all[1].Report
		if q.Denied || q.Vital || q.Timeouts || q.Load != nil || len(q.Incidents) > 0 || all[1].Candidate != "" {
			t.Errorf("%s is seen at another provider: %+v", name, q)
		}
	}
}

func incidentOf(g rollout.Gate) func(*rollout.Report) bool {
	return func(r *rollout.Report) bool {
		return len(r.Incidents) == 1 && r.Incidents[0] == rollout.Incident{Gate: g, Signature: "s"}
	}
}

// TestDenialsComeLast: of many incidents only a few are looked at; a provider's denials do not hide its crash.
func TestDenialsComeLast(t *testing.T) {
	t.Parallel()
	m := &fleetpb.CheckInRequest{}
	for range 30 {
		m.Buckets = append(m.Buckets, &fleetpb.Bucket{Provider: "p", Kind: "deny", Signature: "d"})
	}
	m.Buckets = append(m.Buckets, &fleetpb.Bucket{Provider: "p", Kind: "crash", Signature: "c"})
	if all := incidents(m, "p"); len(all) != 31 || all[0].Gate != rollout.Crash {
		t.Errorf("the first of %d is %v", len(all), all[0])
	}
}
