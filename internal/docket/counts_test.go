package docket

import (
	"testing"
	"time"
)

// TestLap: what was slow before the last lap says nothing about this one.
func TestLap(t *testing.T) {
	t.Parallel()
	l := NewLatency()
	for range 100 {
		l.Add(time.Second)
	}
	if got := l.Lap(); got.P99 < 900_000 {
		t.Errorf("the first lap: %+v", got)
	}
	for range 10 {
		l.Add(time.Millisecond)
	}
	if got := l.Lap(); got.P50 > 2000 || got.P99 > 2000 {
		t.Errorf("the second lap: %+v, all took 1 ms", got)
	}
	if got := l.Lap(); got != (Quantiles{}) {
		t.Errorf("a lap without votes: %+v", got)
	}
	if got := l.Quantiles(); got.P50 < 900_000 {
		t.Errorf("in all: %+v", got)
	}
}
