package drill

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/playground"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/supervisor"
)

// refused is why a live drill is not possible.
func refused(fix, format string, args ...any) error {
	return health.Problem{
		Code: "KO-2013", Severity: health.Failure, Title: "no live drill: " + fmt.Sprintf(format, args...), Fix: fix,
	}
}

// live reports whether the fault needs nothing that this host's daemon does not have: it is a signal.
func (d *Drill) live() bool { return d.Update == nil }

// liveNames lists the drills that can be live.
func liveNames() (names []string) {
	for _, d := range Catalogue() {
		if d.live() {
			names = append(names, d.Name)
		}
	}
	return names
}

// SelectLive finds the drills that names stand for, as Select does; without names, all that can be live. One that
// cannot is refused.
func SelectLive(names []string) ([]Drill, error) {
	if len(names) == 0 {
		names = liveNames()
	}
	drills, err := Select(names)
	for _, d := range drills {
		if !d.live() {
			return nil, refused("keepout drill "+d.Name+", which has a platform of its own; live ones are "+
				strings.Join(liveNames(), ", "), "%s needs an engine or content of its own, and this host's daemon takes no "+
				"provider that its configuration does not name", d.Name)
		}
	}
	return drills, err
}

// aim is what is known of the daemon before it is hit.
type aim struct {
	status  *control.Status
	checkup *control.Checkup
	id      string // of the provider that is hit, or only looked at when the core is; "": none runs
}

// choose fixes the provider: the one that is asked for, or else the first audit provider that runs, or else the first
// that runs.
func (a *aim) choose(asked string) error {
	if asked != "" && playground.Find(a.status, asked) == nil {
		return health.Problem{
			Code: "KO-2003", Title: "no provider " + asked, Severity: health.Failure, Fix: "keepout provider list",
		}
	}
	if a.id = asked; asked != "" {
		return nil
	}
	for _, audit := range []bool{true, false} {
		for i := range a.status.Providers {
			p := &a.status.Providers[i]
			if a.id == "" && p.State == supervisor.Running && (!audit || p.Mode == event.Audit) {
				a.id = p.ID
			}
		}
	}
	return nil
}

// others lists the providers that run beside the one that is hit.
func (a *aim) others() (ids []string) {
	for i := range a.status.Providers {
		if p := &a.status.Providers[i]; p.ID != a.id && p.State == supervisor.Running {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// of returns what the checkup says of a provider; the zero value when nothing.
func (a *aim) of(id string) control.CheckupProvider {
	for _, p := range a.checkup.Providers {
		if p.ID == id {
			return p
		}
	}
	return control.CheckupProvider{}
}

// counts reports whether a provider's denial denies.
func (a *aim) counts(p *roster.Status) bool {
	return a.status.Mode == event.Enforce && p.Mode == event.Enforce && p.Demoted == nil
}

// poisoners lists the providers whose self-test objects should be denied now; the one that is hit comes last.
func (a *aim) poisoners() (ids []string) {
	for i := range a.status.Providers {
		p := &a.status.Providers[i]
		if p.State == supervisor.Running && a.counts(p) && len(a.of(p.ID).Selftest) > 0 {
			ids = append(ids, p.ID)
		}
	}
	slices.SortStableFunc(ids, func(x, y string) int {
		return map[bool]int{x == a.id: 1}[true] - map[bool]int{y == a.id: 1}[true]
	})
	return ids
}

// possible says why a drill must not be live on this daemon, or nil.
func (a *aim) possible(d *Drill) error {
	var errs []error
	for i := range a.status.Providers {
		p := &a.status.Providers[i]
		switch {
		case !d.Core && p.ID != a.id:
		case !d.Core && p.State != supervisor.Running:
			errs = append(errs, refused("choose one that runs: --provider ID", "%s does not run (%s)", p.ID, p.State))
		case a.counts(p) && a.of(p.ID).FailClosed:
			errs = append(errs, refused("run it on a playground: keepout drill "+d.Name, "%s has on_failure: deny, so that "+
				"every open would be denied until it votes again", p.ID))
		case d.Core && p.State == supervisor.Disabled:
			errs = append(errs, refused("disable it in the configuration, then keepout config reload",
				"%s was disabled by hand, and a new core would start it", p.ID))
		}
	}
	if c := a.checkup.Config; d.Core && (c.Changed || c.Wrong != "" || c.Mode != a.status.Mode) {
		errs = append(errs, refused("keepout config reload, when it is as it should be",
			"a new core reads the configuration, which is not what is in force"))
	}
	if a.id == "" && !d.Core {
		errs = append(errs, refused("keepout provider list", "no provider runs"))
	}
	return errors.Join(errs...)
}

// here makes of a drill on a playground one on this daemon: its numbers, and what can be seen of it here.
func (a *aim) here(d Drill) Drill {
	d.Engine, d.Content = a.id, nil
	if d.Core {
		d.Rule = time.Duration(a.checkup.StallMS) * time.Millisecond
		return d
	}
	d.Rule = time.Duration(a.checkup.ContentMS) * time.Millisecond * 8 / 10
	again := Expectation{What: "it votes again", See: Sight{Kind: seeState, Text: string(supervisor.Running)}}
	d.Expect = []Expectation{restarted(), again}
	p := playground.Find(a.status, a.id)
	if d.Signal == unix.SIGSTOP && p != nil && a.counts(p) { // nobody waits for an audit provider
		d.Expect = append([]Expectation{missed(), bypassed()}, d.Expect...)
	}
	return d
}

// cost says for how long at most protection is interrupted, should all go as promised.
func (a *aim) cost(d *Drill) string {
	if d.Core {
		return fmt.Sprintf("%s (%v to the core): opens below watched paths wait for up to %v, and no provider is asked "+
			"until a new core serves, within %v", d.Name, unix.SignalName(d.Signal), d.Rule, recovery)
	}
	return fmt.Sprintf("%s (%v to %s): opens below watched paths wait for up to %v, and %s does not vote until it runs "+
		"again, within %v", d.Name, unix.SignalName(d.Signal), a.id, d.Rule, a.id, patience)
}
