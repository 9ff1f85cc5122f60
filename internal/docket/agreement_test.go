package docket

import (
	"testing"

	"github.com/keepout-security/keepout/event"
)

// TestAgreement: an object on which two versions differ counts once, and there is a bound to what is remembered.
func TestAgreement(t *testing.T) {
	t.Parallel()
	var a Agreement
	for i := range uint64(3 * maxDiffering) {
		a.add(event.Version{Ino: i % 3}, i%3 == 0)
	}
	if samples, differing := a.Count(); samples != 3*maxDiffering || differing != 1 {
		t.Errorf("%d of %d differ, want one object", differing, samples)
	}
	for i := range uint64(2 * maxDiffering) {
		a.add(event.Version{Ino: i}, true)
	}
	if _, differing := a.Count(); differing != 2*maxDiffering || len(a.objects) != maxDiffering {
		t.Errorf("%d differ, %d remembered", differing, len(a.objects))
	}
}
