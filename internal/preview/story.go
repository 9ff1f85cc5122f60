package preview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

const (
	openEvery    = time.Second            // on each host
	redrawEvery  = 400 * time.Millisecond // at most
	rolloutTime  = 4 * time.Minute        // for one rollout
	reportTime   = 20 * time.Second       // for a host to say that it is back
	provider291  = "a replica of the engine of July 2024"
	goodRelease  = 2
	worseRelease = 3
)

// story is a preview being told.
type story struct {
	*screen

	opt    Show
	dir    string
	fleet  *Fleet
	off    []*Host // that are off the network
	result Result
}

// tell goes through the steps and stops at the first that does not show what it says.
func (s *story) tell(ctx context.Context) error {
	head := fmt.Sprintf("Keepout: a fleet of %d hosts on this machine, and how a release reaches it", s.opt.Hosts)
	s.line(s.paint(bold, head))
	s.line(s.paint(grey, "Every host is a guard, a core, an engine and keepout-fetch, with a file system and a network"))
	s.line(s.paint(grey, "namespace of its own. Nothing else on this machine is touched. Ctrl-C ends it."))
	if err := s.prepare(ctx); err != nil {
		return err
	}
	stop := s.fleet.KeepBusy(openEvery)
	defer stop()
	if err := s.reaches(ctx); err != nil {
		return err
	}
	switch s.opt.Scenario {
	case ChannelFile:
		return s.stops(ctx, "Release 3 is the content of July 2024, and vendor and operator have signed it",
			ChannelLine("*/good-*", "evil-pipe"), "crash", nil)
	case Silent:
		return s.stops(ctx, "Release 3 takes its hosts off the network: they do not crash, they fall silent",
			ChannelLine("*/other-*", "*"), "silen", s.cutOff)
	}
	return nil
}

// prepare makes keys, a release, a control plane and the hosts.
func (s *story) prepare(ctx context.Context) (err error) {
	s.title("Keys of a vendor and an operator, and a first release")
	s.fleet, err = New(ctx, Options{
		Bin: filepath.Dir(s.opt.Exe), Dir: s.dir, Hosts: s.opt.Hosts, Speed: speed, Ran: s.command,
	})
	if err != nil {
		return err
	}
	digest, err := s.fleet.Release(ctx, 1, ChannelLine("*/ransom", "*"))
	if err != nil {
		return err
	}
	s.good("both signed release 1, %.19s…: without the two, no host takes it", digest)
	s.title(fmt.Sprintf("A control plane, and %d hosts that enrol with one-time tokens", s.opt.Hosts))
	if err := s.fleet.StartPlane(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.fleet.StartHosts(ctx); err != nil {
		return err
	}
	s.good("%d hosts after %.0f s, each with its own certificate, on release 1 of %s", len(s.fleet.Hosts),
		time.Since(began).Seconds(), provider291)
	s.note("a file is opened on each host every second; times of rollouts are divided by %d", speed)
	return nil
}

// reaches shows a release that is well.
func (s *story) reaches(ctx context.Context) error {
	s.title("Release 2 is good: each ring opens when the one before it has proved that it is well")
	digest, err := s.fleet.Release(ctx, goodRelease, ChannelLine("*/ransom-*", "*"))
	if err != nil {
		return err
	}
	a := s.act("release-2", goodRelease, false)
	err = a.play(ctx, digest, func(v *view) bool {
		return v.rollout.GetStatus() == complete && v.all(goodRelease) && v.proven(goodRelease)
	})
	s.result.Rollouts = append(s.result.Rollouts, a.outcome())
	if err != nil {
		return err
	}
	if status := a.last.rollout.GetStatus(); status != complete {
		return fmt.Errorf("the good release is %s: %s", status, a.last.rollout.GetReason())
	}
	s.good("all %d hosts run release 2 after %.0f s, and it is their last-known-good now", len(s.fleet.Hosts),
		a.ended.Seconds())
	return nil
}

// stops shows a release that must not get beyond ring 0, and why it did not. each looks at every view, if it is there.
func (s *story) stops(ctx context.Context, title, text, evidence string, each func(*view) error) error {
	s.title(title)
	if s.opt.Scenario == ChannelFile {
		s.note("these hosts do without the schema, the trial load and the trial, which would each refuse it")
	}
	digest, err := s.fleet.Release(ctx, worseRelease, text)
	if err != nil {
		return err
	}
	a := s.act("release-3", worseRelease, true)
	a.each = each
	err = a.play(ctx, digest, func(v *view) bool {
		return v.rollout.GetStatus() == halted && v.all(goodRelease) && a.known(v)
	})
	o := a.outcome()
	s.result.Rollouts = append(s.result.Rollouts, o)
	if err != nil {
		return err
	}
	return s.judge(a, &o, evidence)
}

// judge says what a halted rollout showed, or what it should have.
func (s *story) judge(a *act, o *Outcome, evidence string) error {
	if !strings.Contains(o.Reason, evidence) {
		return fmt.Errorf("the evidence is %q, and that names no %s", o.Reason, evidence)
	}
	for _, r := range o.Rings[1:] {
		if r.Granted > 0 {
			return fmt.Errorf("%d hosts beyond ring 0 were granted release 3", r.Granted)
		}
	}
	s.good("halted by itself %.1f s after the start, because of %s", o.Seconds, o.Reason)
	s.good("%d of %d hosts ever had leave to run it, all of ring 0; nobody else was granted", o.Rings[0].Granted,
		len(a.last.hosts))
	s.good("all %d hosts are back on release 2, %.1f s after the halt", len(a.last.hosts), o.BackIn)
	return nil
}

// act is one rollout being shown.
type act struct {
	*story

	name    string
	release int
	isBad   bool
	each    func(*view) error

	began   time.Time
	ended   time.Duration // when it was complete or halted; 0 before
	back    time.Duration // when all hosts were back
	last    *view
	touched map[string]bool // hosts that ran the release
}

func (s *story) act(name string, release int, isBad bool) *act {
	return &act{story: s, name: name, release: release, isBad: isBad, touched: map[string]bool{}}
}

// play begins the rollout and shows it until done accepts what it sees, or until it is over in another way.
func (a *act) play(ctx context.Context, digest string, done func(*view) bool) error {
	a.last = a.fleet.look(ctx, a.name, nil)
	if err := a.fleet.RollOut(ctx, a.name, digest, a.release); err != nil {
		return err
	}
	a.began = time.Now()
	ctx, cancel := context.WithTimeout(ctx, rolloutTime)
	defer cancel()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		v := a.fleet.look(ctx, a.name, a.last)
		if ctx.Err() == nil {
			a.see(v)
			if a.each != nil {
				if err := a.each(v); err != nil {
					return err
				}
			}
		}
		over := done(v) || !a.isBad && v.rollout.GetStatus() == halted
		if over || ctx.Err() != nil {
			a.leave(rows(a.last, a.release, a.isBad, a.paint))
			a.line("")
		}
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not come to its end: %w", a.name, ctx.Err())
		case <-tick.C:
		}
	}
}

// see takes a view and shows what is new.
func (a *act) see(v *view) {
	since := time.Since(a.began)
	news := remarks(a.last, v, a.release)
	lines := make([]string, 0, len(news))
	for _, r := range news {
		lines = append(lines, a.remark(since, r))
	}
	for i, h := range v.hosts {
		if h.release == a.release || h.restarts > a.last.hosts[i].restarts {
			a.touched[h.name] = true
		}
	}
	if status := v.rollout.GetStatus(); a.ended == 0 && (status == halted || status == complete) {
		a.ended = since
	}
	a.last = v
	a.show(lines, rows(v, a.release, a.isBad, a.paint))
}

// known reports whether the control plane has heard that all hosts are back, or has had the time to.
func (a *act) known(v *view) bool {
	if a.back == 0 {
		a.back = time.Since(a.began)
	}
	outstanding := func(r *fleetpb.Ring) bool { return r.GetSoaking()+r.GetSilent() > 0 }
	return !slices.ContainsFunc(v.rollout.GetRings(), outstanding) || time.Since(a.began) > a.back+reportTime
}

// outcome is the act as data.
func (a *act) outcome() Outcome {
	r := a.last.rollout
	o := Outcome{
		Name: a.name, Status: r.GetStatus(), Reason: r.GetReason(), Evidence: json.RawMessage(r.GetEvidence()),
		Seconds: a.ended.Seconds(),
	}
	if len(o.Evidence) == 0 {
		o.Evidence = nil
	}
	if o.Status == halted {
		o.BackIn = (a.back - a.ended).Seconds()
	}
	for i, ring := range r.GetRings() {
		out := RingOutcome{
			Ring: i, Role: ring.GetRole(), Hosts: int(ring.GetMembers()), Granted: int(ring.GetGranted()),
			Confirmed: int(ring.GetConfirmed()), Activated: []string{},
		}
		for _, h := range a.last.hosts {
			if h.ring == i && a.touched[h.name] {
				out.Activated = append(out.Activated, h.name)
			}
		}
		o.Rings = append(o.Rings, out)
	}
	return o
}

// cutOff takes hosts off the network as soon as they run the bad release, and puts them back once it is halted.
func (s *story) cutOff(v *view) error {
	var errs []error
	isHalted := v.rollout.GetStatus() == halted
	for i, h := range v.hosts {
		host := s.fleet.Hosts[i]
		was := slices.Contains(s.off, host)
		switch {
		case isHalted && was:
			errs = append(errs, s.fleet.Heal(host))
			s.off = slices.DeleteFunc(s.off, func(c *Host) bool { return c == host })
		case !isHalted && !was && h.release == worseRelease:
			errs = append(errs, s.fleet.Cut(host))
			s.off = append(s.off, host)
		}
	}
	return errors.Join(errs...)
}
