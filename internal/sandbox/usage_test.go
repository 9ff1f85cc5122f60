package sandbox

import (
	"testing"
	"time"
)

// TestUsage: what a provider uses is read while it runs, and stands still after its end; with a control group, and
// from the process alone.
func TestUsage(t *testing.T) {
	t.Parallel()
	for name, groups := range map[string]*Groups{"alone": nil, "group": NewGroups(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, Spec{Groups: groups, Limits: Limits{Processes: 90}, Slot: 7}, program(t))
			receive(t, p)
			before := p.Usage()
			if before.Memory == 0 {
				t.Error("it runs and has no memory")
			}
			must(t, p.Control.Send([]byte("spin"), -1))
			eventually(t, "it has used a processor", func() bool { return p.Usage().CPU >= before.CPU+200*time.Millisecond })
			running := p.Usage()
			p.Kill()
			wait(t, p)
			last := p.Usage()
			if last.CPU < running.CPU-10*time.Millisecond || last.Memory == 0 || last.Ran < running.Ran {
				t.Errorf("running %+v, in all %+v", running, last)
			}
			if again := p.Usage(); again != last {
				t.Errorf("after its end it used more: %+v, %+v", last, again)
			}
		})
	}
	sum := Usage{CPU: 1, Memory: 5, Ran: 2}.Add(Usage{CPU: 2, Memory: 3, Ran: 2})
	if sum != (Usage{CPU: 3, Memory: 5, Ran: 4}) {
		t.Errorf("summed up: %+v", sum)
	}
}
