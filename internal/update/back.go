package update

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
)

// goBack leaves a version that a rollout brought and that was halted; once. While that is still on trial, it goes no
// further.
func (t *Taker) goBack(dir fs.FS, o *Order) {
	st, configured := t.c.Host.State(o.Provider)
	if !configured || o.Part != rollback.Engine && o.Part != rollback.Content {
		return
	}
	slots, cause := st.Slots(o.Part), "the rollout was halted: "+Redact(o.Reason)
	key := o.Rollout + "/" + o.Provider + "/" + string(o.Part)
	switch brought := t.mem.Packages[slots.Candidate.Digest]; {
	case brought.Rollout != "" && brought.Rollout == o.Rollout:
		t.once(key+"/withdraw", func() { // should it have become active meanwhile, it is left as well
			if err := t.c.Host.Withdraw(o.Provider, o.Part, slots.Candidate.Digest, cause); err != nil {
				t.astray(o, slots, "its trial was not ended: "+err.Error())
			}
		})
	case slots.Active.None() || t.packageOf(slots.Active.Digest) == o.Digest || t.spared(o, slots.Active.Digest):
	default:
		if o.Lacking != "" {
			key += "/lacking" // once more should it be had after all
		}
		t.once(key, func() { t.leave(dir, o, slots, cause) })
	}
}

// once does what was not done yet.
func (t *Taker) once(key string, do func()) {
	if t.backed[key] {
		return
	}
	if len(t.backed) > maxEpochs {
		clear(t.backed)
	}
	t.backed[key] = true
	do()
}

// spared reports whether what is active is something else than what the rollout brought: this host only tried that, or
// has left it.
func (t *Taker) spared(o *Order, active rollback.Digest) bool {
	had := false
	for d, k := range t.mem.Packages {
		if o.Rollout == "" || k.Rollout != o.Rollout || k.Provider != o.Provider || string(k.Kind) != string(o.Part) {
			continue
		}
		if d == active {
			return false
		}
		had = true
	}
	return had
}

// leave goes back to what the order names; where that cannot be, to the version before.
func (t *Taker) leave(dir fs.FS, o *Order, slots *rollback.Slots, cause string) {
	to, err := t.destination(dir, o, slots)
	if err == nil {
		if err = t.c.Host.Back(o.Provider, o.Part, to, cause); err == nil {
			delete(t.stray, o.Provider+"/"+string(o.Part))
			return
		}
	}
	why, before := err.Error(), slots.Goal(rollback.Version{})
	if before.None() {
		t.astray(o, slots, why+"; there is nothing else to go back to, so what was halted goes on")
		return
	}
	if err := t.allows(before.Digest); err != nil {
		t.astray(o, slots, why+"; nor was "+before.String()+" gone back to: "+err.Error())
		return
	}
	t.astray(o, slots, why+"; this host went back to "+before.String()+" instead")
	if err := t.c.Host.Back(o.Provider, o.Part, rollback.Version{}, cause+"; not to what was named: "+why); err != nil {
		t.astray(o, slots, why+"; nor was "+before.String()+" gone back to: "+err.Error())
	}
}

// destination is what an order names: a version in a slot, or one that was brought for it.
func (t *Taker) destination(dir fs.FS, o *Order, slots *rollback.Slots) (rollback.Version, error) {
	if o.Digest == "" {
		return rollback.Version{}, t.allows(slots.Goal(rollback.Version{}).Digest)
	}
	for _, v := range []rollback.Version{slots.LKG, slots.Former, slots.Factory} {
		if !v.None() && t.packageOf(v.Digest) == o.Digest {
			return v, t.allows(v.Digest)
		}
	}
	if o.Lacking != "" {
		return rollback.Version{}, fmt.Errorf("it is not here, and could not be fetched: %s", Redact(o.Lacking))
	}
	target, err := t.older(dir, o, slots)
	if err != nil {
		return rollback.Version{}, err
	}
	pkg, err := layout.Verify(dir, target)
	if err != nil {
		return rollback.Version{}, err
	}
	return t.admit(pkg, target, "")
}

// older finds out what vendor and operator say of a package that is in no slot. What this host took before was verified
// then, and needs no metadata that is still good; the security floor holds for it, too. What it never ran must be older
// than what it leaves: an order to go back is no grant.
func (t *Taker) older(dir fs.FS, o *Order, slots *rollback.Slots) (target sign.Target, err error) {
	d, k, had := t.find(o.Digest)
	if had {
		if r, refused := slots.Refusal(d); refused {
			return target, fmt.Errorf("it was refused on this host: %s", r.Cause)
		}
		target = sign.Target{Path: k.Path, Digest: k.Package, Length: k.Length, Vendor: k.Vendor, Release: k.Release}
		err = t.trust.Allows(k.Release)
	} else {
		if o.Path == "" {
			return target, errors.New("it is not here, and the operator's metadata does not name it")
		}
		target, err = t.verify(dir, o)
	}
	switch active := t.mem.Packages[slots.Active.Digest]; {
	case err != nil:
		return target, err
	case target.Digest != o.Digest || target.Provider != o.Provider || string(target.Kind) != string(o.Part):
		return target, errors.New("it is another package than what is named")
	case !k.Used && target.Counter >= active.Counter:
		return target, fmt.Errorf("release %d is not older than what is active, and has never run here", target.Counter)
	}
	return target, nil
}

// allows is nil for what is not below the security floor. What came in no package has no place in that order.
func (t *Taker) allows(d rollback.Digest) error {
	if k, ok := t.mem.Packages[d]; ok {
		return t.trust.Allows(k.Release)
	}
	return nil
}

// stray is a roll-back that led elsewhere than its order says.
type stray struct {
	provider string
	part     rollback.Part
	named    string
	why      string
	seen     [2]rollback.Digest // what was active, and what may be in its place
}

func (t *Taker) astray(o *Order, slots *rollback.Slots, why string) {
	t.stray[o.Provider+"/"+string(o.Part)] = stray{
		provider: o.Provider, part: o.Part, named: o.Digest, why: "an order to go back to it was not followed: " + why,
		seen: [2]rollback.Digest{slots.Active.Digest, slots.Goal(rollback.Version{}).Digest},
	}
}

// forgetStrays forgets those after which something else became active.
func (t *Taker) forgetStrays() {
	for key, s := range t.stray {
		st, ok := t.c.Host.State(s.provider)
		if !ok || !slices.Contains(s.seen[:], st.Slots(s.part).Active.Digest) {
			delete(t.stray, key)
		}
	}
}

// strays tells them to a person.
func (t *Taker) strays() (out []health.Problem) {
	for _, s := range t.stray {
		out = append(out, health.Problem{
			Code: CodeStray, Severity: health.Warning, Provider: s.provider,
			Title: fmt.Sprintf("%s %s %.19s: %s", s.provider, s.part, s.named, s.why),
			Fix:   "keepout provider versions shows what runs; a rollout, or keepout provider rollback, changes it",
		})
	}
	return out
}
