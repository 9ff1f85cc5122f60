package rollout

import "testing"

// TestCrowdsSilence: the confirmed hosts of a crowd are heard of so seldom that the hour of the day alone makes their
// silence differ from the control group's, so it proves nothing; that of a smaller ring does, as long after the grant.
func TestCrowdsSilence(t *testing.T) {
	t.Parallel()
	const crowd = 2
	b := newBench(t, 2000, func(_ *Spec, n *Numbers) { n.Crowd, n.Acks = 1000, 1 })
	members := [4][]int{}
	dice := NewDice(b.s.Spec.Seed)
	for i := range b.hosts {
		_, ring := b.s.Plan.Find(dice, &b.hosts[i])
		members[ring] = append(members[ring], i)
	}
	// One host that is not well keeps the control group's ring from being opened.
	b.say = func(i int, runs bool, r *Report) { r.Healthy = !runs || i != members[crowd][0] }
	for range 200 {
		b.minute()
		if b.s.Rings[crowd].Confirmed > 1000 {
			break
		}
	}
	silent := 0
	for k, i := range members[crowd] {
		b.quiet[i] = k%2 == 1 && b.hosts[i].Row.Phase == Confirmed
	}
	for range 20 {
		b.minute()
	}
	for _, i := range members[crowd] {
		if b.quiet[i] && b.hosts[i].Row.Silent {
			silent++
		}
	}
	if silent < 500 {
		t.Fatalf("%d confirmed hosts are silent after they said nothing for 20 minutes, want more than 500", silent)
	}
	if b.s.Status != Running {
		t.Fatalf("%s: %s", b.s.Status, b.s.Because)
	}
	for _, i := range members[1] {
		b.quiet[i] = true
	}
	b.until(Stopped, 5)
	if b.s.Evidence.Gate != Silence {
		t.Errorf("evidence %+v", b.s.Evidence)
	}
}
