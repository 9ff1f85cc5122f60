package rollout

import "testing"

// members returns the hosts of each ring.
func (b *bench) members() [][]int {
	rings := make([][]int, len(b.s.Plan.Rings))
	dice := NewDice(b.s.Spec.Seed)
	for i := range b.hosts {
		_, ring := b.s.Plan.Find(dice, &b.hosts[i])
		rings[ring] = append(rings[ring], i)
	}
	return rings
}

// pass lets minutes pass in which nothing may stop.
func (b *bench) pass(minutes int) {
	b.t.Helper()
	for range minutes {
		b.minute()
		if b.s.Status == Stopped || b.s.Status == OnHold {
			b.t.Fatalf("%s: %s", b.s.Status, b.s.Because)
		}
	}
}

// TestConfirmedAtOnce: a few hosts of both sides fall silent while the soak of a crowd ends. They are not held against
// the few that are not confirmed yet.
func TestConfirmedAtOnce(t *testing.T) {
	t.Parallel()
	const crowd = 2
	b := newBench(t, 2000, func(_ *Spec, n *Numbers) { n.Crowd = 1000 })
	members := b.members()
	first := &b.hosts[members[crowd][0]].Row
	for first.Phase != Soaking || b.s.Clock-first.SoakingAt < b.s.Numbers.Soak-2*b.s.Numbers.CheckIn {
		b.pass(1)
	}
	for _, ring := range []int{crowd, b.s.Plan.Control()} {
		for k, i := range members[ring] {
			b.quiet[i] = k%12 == 1
		}
	}
	b.pass(15)
	if b.s.Rings[crowd].Confirmed < 1000 {
		t.Errorf("%d confirmed hosts: the crowd's soak did not end", b.s.Rings[crowd].Confirmed)
	}
}

// TestOneKindOfHosts: a ring of which only those hosts were granted that come and go more often than others is
// compared with such hosts.
func TestOneKindOfHosts(t *testing.T) {
	t.Parallel()
	b := newBench(t, 6000, func(_ *Spec, n *Numbers) { n.Growth, n.Acks = 40, 0.1 })
	b.say = func(i int, runs bool, r *Report) {
		if i%3 != 0 && !runs {
			r.Nonce = ""
		}
	}
	for b.s.Open < 2 {
		b.pass(1)
	}
	for minute := range 20 {
		for i := range b.hosts {
			if i%3 == 0 && i/3%25 == minute {
				b.quiet[i] = true
			}
		}
		b.pass(1)
	}
	if got := b.s.Rings[2].Granted; got < 1000 {
		t.Errorf("%d hosts granted in the large ring: too few to tell", got)
	}
}

// TestCrowdsSilence: the confirmed hosts of a crowd are heard of so seldom that the hour of the day alone makes their
// silence differ from the control group's, so it proves nothing; that of a smaller ring does, as long after the grant.
func TestCrowdsSilence(t *testing.T) {
	t.Parallel()
	const crowd = 2
	b := newBench(t, 2000, func(_ *Spec, n *Numbers) { n.Crowd, n.Acks = 1000, 1 })
	members := b.members()
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

// TestAfterTheControlGroup: when the control group has been granted but for hosts of one kind, hosts of another kind
// that come and go are compared with those of later rings; the earliest ring's silence is still found.
func TestAfterTheControlGroup(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1500, nil)
	members := b.members()
	stays := map[int]bool{}
	for _, i := range members[b.s.Plan.Control()] {
		stays[i] = i%3 == 1
	}
	b.say = func(i int, _ bool, r *Report) {
		if stays[i] {
			r.Nonce = ""
		}
	}
	b.until(Complete, 200)
	b.pass(int(2*b.s.Numbers.Soak.Minutes()) + 1)
	for minute := range 22 {
		for i := range b.hosts {
			b.quiet[i] = b.quiet[i] || i%3 == 0 && i/3%25 == minute
		}
		b.pass(1)
	}
	for _, i := range members[0] {
		b.quiet[i] = true
	}
	b.until(Stopped, 10)
	if b.s.Evidence.Gate != Silence {
		t.Errorf("evidence %+v", b.s.Evidence)
	}
}
