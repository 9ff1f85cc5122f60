package rollout

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestEarlyRingsCoverEachStratum: whatever the fleet, each ring but the last has hosts of each stratum as long as the
// stratum has any left, the sizes are those of the plan, and nobody is in two rings or in none.
func TestEarlyRingsCoverEachStratum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		strata := rapid.IntRange(1, 12).Draw(t, "strata")
		var hosts []Host
		for s := range strata {
			for range rapid.IntRange(1, 300).Draw(t, "hosts") {
				hosts = append(hosts, Host{ID: fmt.Sprint("h", len(hosts)), Stratum: fmt.Sprint("s", s)})
			}
		}
		seed := rapid.SliceOfN(rapid.Byte(), minSeed, minSeed).Draw(t, "seed")
		plan, err := Draw(seed, Defaults(), slices.Values(hosts))
		if err != nil {
			t.Fatal(err)
		}
		members := make([]map[int]int, len(plan.Rings))
		left := map[int]int{}
		for r := range members {
			members[r] = map[int]int{}
		}
		for i := range hosts {
			stratum, ring := plan.Find(NewDice(seed), &hosts[i])
			members[ring][stratum]++
			left[stratum]++
		}
		for r := range plan.Rings {
			sum := 0
			for stratum, n := range left {
				sum += members[r][stratum]
				if n > 0 && members[r][stratum] == 0 && r < plan.Control() {
					t.Fatalf("ring %d has nobody of stratum %d, which has %d hosts left", r, stratum, n)
				}
				left[stratum] -= members[r][stratum]
			}
			if sum != plan.Rings[r].Members {
				t.Fatalf("ring %d has %d members, the plan says %d", r, sum, plan.Rings[r].Members)
			}
		}
	})
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for hosts, want := range map[int][]int{
		1: {1, 0}, 3: {3, 0}, 20: {3, 12, 5}, 200: {10, 140, 50}, 8_500_000: {
			20, 160, 1280, 10240, 81920, 655360, 7326020, 425000,
		},
	} {
		if got := ringSizes(Defaults(), hosts); !slices.Equal(got, want) {
			t.Errorf("%d hosts: %v, want %v", hosts, got, want)
		}
	}
}

// TestSeedsDiffer: the same hosts are not always the first.
func TestSeedsDiffer(t *testing.T) {
	t.Parallel()
	var hosts []Host
	for i := range 2000 {
		hosts = append(hosts, Host{ID: fmt.Sprint("h", i), Stratum: "s"})
	}
	var first [2][]string
	for k := range first {
		seed := fmt.Appendf(nil, "a seed of 16 bytes, %d", k)
		plan, err := Draw(seed, Defaults(), slices.Values(hosts))
		if err != nil {
			t.Fatal(err)
		}
		dice := NewDice(seed)
		for i := range hosts {
			if _, ring := plan.Find(dice, &hosts[i]); ring == 0 {
				first[k] = append(first[k], hosts[i].ID)
			}
		}
		if len(first[k]) != 20 {
			t.Fatalf("ring 0 has %d hosts", len(first[k]))
		}
	}
	same := 0
	for _, id := range first[0] {
		if slices.Contains(first[1], id) {
			same++
		}
	}
	if same > 5 {
		t.Errorf("%d of 20 hosts are first twice", same)
	}
}

// TestUnknownStratum: hosts of a kind that the plan does not know are late.
func TestUnknownStratum(t *testing.T) {
	t.Parallel()
	plan, err := Draw([]byte("0123456789abcdef"), Defaults(), slices.Values([]Host{{ID: "a", Stratum: "s"}}))
	if err != nil {
		t.Fatal(err)
	}
	stratum, ring := plan.Find(NewDice([]byte("0123456789abcdef")), &Host{ID: "b", Stratum: "new"})
	if plan.Strata[stratum].Label != Others || ring < plan.Control()-1 {
		t.Errorf("stratum %d, ring %d", stratum, ring)
	}
}

// TestRareIsPoisson holds the test of new signatures against the Poisson distribution.
func TestRareIsPoisson(t *testing.T) {
	t.Parallel()
	for _, expected := range []float64{1e-8, 1e-4, 0.3, 2, 15, 80} {
		for k := 1; k < 200; k++ {
			below := 0.0
			for i := range k {
				lg, _ := math.Lgamma(float64(i + 1))
				below += math.Exp(float64(i)*math.Log(expected) - expected - lg)
			}
			alpha := 1e-3
			limit := alpha * 6 / (math.Pi * math.Pi * float64(k*k))
			tail := 1 - below
			if math.Abs(tail-limit) < 1e-9 {
				continue // too near to tell with this formula
			}
			if got := rare(k, expected, alpha); got != (tail < limit) {
				t.Errorf("%d events, %v expected: rare %v, the tail is %v, the limit %v", k, expected, got, tail, limit)
			}
		}
	}
}

// TestRatioIsFair: for a release that is as good as the one before, the likelihood ratio of the tests is 1 on
// average, whatever the sizes of both sides. Ville's inequality needs no more.
func TestRatioIsFair(t *testing.T) {
	t.Parallel()
	for _, n := range [][2]int{{20, 400_000}, {5, 5}, {5_000_000, 400_000}} {
		for k, ratio := range Defaults().Ratios {
			mean := 0.0
			p0 := float64(n[0]) / float64(n[0]+n[1])
			for treated := range 2 { // one hit, on either side
				s, err := New(testSpec(), Defaults(), onePlan())
				if err != nil {
					t.Fatal(err)
				}
				s.Strata[0].Watched = n
				c := s.contest(Crash, 0)
				c.Block[1-treated] = 1
				s.weigh(Crash, 1, s.Seen, &Effects{})
				p := p0
				if treated == 0 {
					p = 1 - p0
				}
				// A score is never below 0: take the ratio from the formula where it would be.
				score := c.Scores[k]
				if score == 0 {
					score = math.Log(float64(n[0]+n[1]) / (ratio*float64(n[0]) + float64(n[1])))
				}
				mean += p * math.Exp(score)
			}
			if math.Abs(mean-1) > 1e-9 {
				t.Errorf("%v hosts, ratio %v: the mean is %v", n, ratio, mean)
			}
		}
	}
}

func onePlan() Plan {
	return Plan{
		Rings:  []RingPlan{{1, 1}, {1, 1}},
		Strata: []StratumPlan{{Label: "s", Upto: []uint64{1, math.MaxUint64}}},
	}
}
