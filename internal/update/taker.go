package update

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/artifact/layout"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/sign"
)

// Host is what the rest of the core does for updates.
type Host interface {
	// Import takes the files of a package into the store; Release lets go of them.
	Import(part rollback.Part, name string, tar io.Reader) (rollback.Digest, error)
	Release(d rollback.Digest)
	// State is what is known of a provider's versions; false for one that is not configured.
	State(provider string) (rollback.State, bool)
	// Offer makes a version of the store a candidate.
	Offer(provider string, part rollback.Part, v rollback.Version) error
	// Back goes back to a version that is in a slot or was imported; to the version before where that is none. It lets go
	// of the import.
	Back(provider string, part rollback.Part, to rollback.Version, cause string) error
	// Withdraw ends the trial of a candidate, or forgets it.
	Withdraw(provider string, part rollback.Part, d rollback.Digest, cause string) error
}

// Config says how a Taker works. All but ControlPlane is required.
type Config struct {
	Dir          string // of what is remembered; it exists
	Staging      string // folder that the fetcher writes
	Root         []byte // the operator's root file
	Hardware     string // "linux/amd64"
	ControlPlane bool   // nothing is used without a grant
	Host         Host
	Now          func() time.Time // nil for time.Now
}

// Times of a nonce: it is replaced often, so that a grant has most of its life before it; one that was made before
// nonceLife is worth nothing, whatever the grant says, so that a halt is in force everywhere after that time.
const (
	nonceFresh = time.Minute
	nonceLife  = 5 * time.Minute
	nonceSize  = 16
)

// wish is a package that waits for a grant.
type wish struct {
	order  Order
	nonces []nonce // newest last
}

type nonce struct {
	bytes []byte
	made  time.Time // with the monotonic clock: the host's time of day plays no part
}

// Taker looks at what is staged and offers what may be used. It is not safe for concurrent use.
type Taker struct {
	c      Config
	mem    memory
	trust  sign.State
	wishes map[string]*wish  // by package digest
	why    map[string]string // what is refused now, by package digest
	backed map[string]bool   // roll-backs that were carried out, by rollout and part
	stray  map[string]stray  // roll-backs that led elsewhere than ordered, by provider and part
	vexed  []Trouble         // what the fetcher could not bring
	last   error             // of reading the staging folder, or of keeping what is remembered
}

// New recalls what the host knows. The error is a health.Problem.
func New(c Config) (*Taker, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	t := &Taker{
		c: c, wishes: map[string]*wish{}, why: map[string]string{}, backed: map[string]bool{}, stray: map[string]stray{},
	}
	var err error
	t.mem, t.trust, err = recall(c.Dir)
	return t, err
}

// Look carries out what the staging folder asks for, as far as it is allowed. All that time the fetcher removes nothing
// there.
func (t *Taker) Look() {
	t.noteUsed()
	t.forgetStrays()
	dir, err := folder.Open(t.c.Staging)
	if err != nil {
		t.last = err
		return
	}
	defer func() { _ = dir.Close() }() // only read
	hold, err := dir.Reading()
	if errors.Is(err, folder.ErrHeld) {
		return // the fetcher removes what no order needs: that is soon done, and looked at then
	}
	if err == nil { // without locks nothing is removed, and so nothing to be kept from
		defer func() { _ = hold.Close() }() // it ends with the process at the latest
	}
	orders, err := ReadOrders(dir)
	if t.last = err; err != nil {
		return
	}
	t.vexed = orders.Troubles
	wanted := map[string]bool{}
	for i := range orders.Orders {
		o := &orders.Orders[i]
		switch o.Act {
		case Stage:
			wanted[o.Digest] = true
			t.stage(dir, o, orders.Grants)
		case RollBack:
			t.goBack(dir, o)
		}
	}
	for d := range t.wishes {
		if !wanted[d] {
			delete(t.wishes, d)
		}
	}
	for d := range t.why {
		if !wanted[d] {
			delete(t.why, d)
		}
	}
}

// stage takes one package as far as it gets.
func (t *Taker) stage(dir fs.FS, o *Order, grants [][]byte) {
	err := t.consider(dir, o, grants)
	if err != nil {
		t.why[o.Digest] = err.Error()
		delete(t.wishes, o.Digest)
		return
	}
	delete(t.why, o.Digest)
}

var errNotHere = errors.New("this provider is not configured here")

// consider is stage with a reason. nil says that nothing is wrong: it waits, or was offered.
func (t *Taker) consider(dir fs.FS, o *Order, grants [][]byte) error {
	st, configured := t.c.Host.State(o.Provider)
	if !configured || o.Part != rollback.Engine && o.Part != rollback.Content {
		return errNotHere
	}
	slots := st.Slots(o.Part)
	if d, k, ok := t.find(o.Digest); ok {
		if r, refused := slots.Refusal(d); refused {
			return fmt.Errorf("it was refused on this host: %s", r.Cause)
		}
		if slots.Active.Digest == d || slots.Candidate.Digest == d {
			delete(t.wishes, o.Digest)
			return nil // it is in force, or tried
		}
		if k.Offered && !t.c.ControlPlane {
			return nil // once; somebody has gone back since
		}
	}
	if t.c.ControlPlane {
		granted, err := t.granted(o, grants)
		if err != nil || !granted && t.wishes[o.Digest] != nil {
			return err // it was verified when the wish was made, and will be again
		}
		return t.take(dir, o, granted)
	}
	return t.take(dir, o, true)
}

// take verifies a package. With use, it is offered; without, it waits for a grant.
func (t *Taker) take(dir fs.FS, o *Order, use bool) error {
	target, err := t.verify(dir, o)
	if err != nil {
		return err
	}
	if target.Digest != o.Digest || target.Provider != o.Provider || string(target.Kind) != string(o.Part) {
		return fmt.Errorf("vendor and operator sign another package under %s", o.Path)
	}
	if !t.newer(target) {
		return fmt.Errorf("release %d is not newer than what this host has used", target.Counter)
	}
	pkg, err := layout.Verify(dir, target)
	if err != nil {
		return err
	}
	if !use {
		t.wishes[o.Digest] = &wish{order: *o}
		return nil
	}
	v, err := t.admit(pkg, target, o.Rollout)
	if err != nil {
		return err
	}
	delete(t.wishes, o.Digest)
	return t.c.Host.Offer(o.Provider, o.Part, v)
}

// admit takes a package into the store, and remembers it.
func (t *Taker) admit(pkg *layout.Package, target sign.Target, rollout string) (v rollback.Version, err error) {
	files, err := pkg.Tar()
	if err != nil {
		return v, err
	}
	digest, err := t.c.Host.Import(rollback.Part(target.Kind), target.Path, files)
	err = errors.Join(err, files.Close())
	if err != nil {
		return v, err
	}
	t.mem.Packages[digest] = known{
		Release: target.Release, Package: target.Digest, Path: target.Path, Vendor: target.Vendor, Length: target.Length,
		Offered: true, Rollout: rollout, Used: t.mem.Packages[digest].Used,
	}
	t.prune()
	if err := t.keep(); err != nil {
		t.c.Host.Release(digest)
		return v, err
	}
	return rollback.Version{Digest: digest, Label: target.Version, Origin: target.Path}, nil
}

// verify asks internal/sign, and keeps what it learned whatever it says.
func (t *Taker) verify(dir fs.FS, o *Order) (sign.Target, error) {
	if !fs.ValidPath(path.Join(VendorsDir, o.Vendor)) || path.Base(o.Vendor) != o.Vendor {
		return sign.Target{}, fmt.Errorf("%q is no vendor's name", o.Vendor)
	}
	operator, err := fs.Sub(dir, OperatorDir)
	if err != nil {
		return sign.Target{}, err
	}
	vendor, err := fs.Sub(dir, path.Join(VendorsDir, o.Vendor))
	if err != nil {
		return sign.Target{}, err
	}
	before, err := t.trust.Encode()
	if err != nil {
		return sign.Target{}, err
	}
	target, state, refused := sign.Verify(
		sign.Trust{OperatorRoot: t.c.Root, Vendor: o.Vendor, Hardware: t.c.Hardware}, t.trust, t.c.Now(), vendor, operator,
		o.Path)
	t.trust = state
	if after, err := state.Encode(); err != nil || !bytes.Equal(before, after) {
		if err := errors.Join(err, t.keep()); err != nil {
			return sign.Target{}, err
		}
	}
	return target, refused
}

// newer reports whether a release lies above all that this host has used of its line.
func (t *Taker) newer(target sign.Target) bool {
	for _, k := range t.mem.Packages {
		if k.Used && k.Provider == target.Provider && k.Kind == target.Kind && k.Counter > target.Counter {
			return t.c.ControlPlane // the operator's grant may lead to an older one that is above the floor
		}
	}
	return true
}

// grantType is what grants are sealed as; internal/fleet/statement has the same.
const grantType = "application/vnd.keepout.grant.v1+json"

// grant is what the director signs; rollout.Grant.
type grant struct {
	Rollout  string        `json:"rollout"`
	Digest   string        `json:"digest"`
	Nonce    string        `json:"nonce"`
	Epoch    uint64        `json:"epoch"`
	Lifetime time.Duration `json:"lifetime"`
}

// granted looks for a good grant for a package that waits, and uses it up.
func (t *Taker) granted(o *Order, grants [][]byte) (bool, error) {
	w := t.wishes[o.Digest]
	if w == nil {
		return false, nil
	}
	for _, sealed := range grants {
		text, _, err := t.trust.Opens(sign.RoleDirector, grantType, sealed)
		if err != nil {
			continue // of another director, or none: what is not signed is not there
		}
		var g grant
		if json.Unmarshal(text, &g) != nil || g.Digest != o.Digest || !w.fresh(g.Nonce, g.Lifetime, t.c.Now()) {
			continue
		}
		if g.Epoch < t.mem.Epochs[g.Rollout] {
			return false, fmt.Errorf("the grant is of epoch %d, and %d was seen: of a controller that was replaced",
				g.Epoch, t.mem.Epochs[g.Rollout])
		}
		if len(t.mem.Epochs) >= maxEpochs {
			clear(t.mem.Epochs)
		}
		t.mem.Epochs[g.Rollout] = g.Epoch
		w.nonces = nil // for one use
		return true, nil
	}
	return false, nil
}

// fresh reports whether a nonce was made here, recently enough for a grant with this life.
func (w *wish) fresh(hexNonce string, life time.Duration, now time.Time) bool {
	b, err := hex.DecodeString(hexNonce)
	return err == nil && slices.ContainsFunc(w.nonces, func(n nonce) bool {
		return bytes.Equal(n.bytes, b) && now.Sub(n.made) < min(life, nonceLife)
	})
}

// Asks lists what waits for a grant, with the nonce for it.
func (t *Taker) Asks() (out []Ask) {
	now := t.c.Now()
	for d, w := range t.wishes {
		w.nonces = slices.DeleteFunc(w.nonces, func(n nonce) bool { return now.Sub(n.made) >= nonceLife })
		if n := len(w.nonces); n == 0 || now.Sub(w.nonces[n-1].made) >= nonceFresh {
			b := make([]byte, nonceSize)
			if _, err := rand.Read(b); err != nil {
				continue // no luck, no nonce; the next look tries again
			}
			w.nonces = append(w.nonces, nonce{bytes: b, made: now})
		}
		out = append(out, Ask{Rollout: w.order.Rollout, Digest: d, Nonce: w.nonces[len(w.nonces)-1].bytes})
	}
	slices.SortFunc(out, func(a, b Ask) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) })
	return out
}

// find looks a package up among those in the store.
func (t *Taker) find(pkg string) (rollback.Digest, known, bool) {
	for d, k := range t.mem.Packages {
		if k.Package == pkg {
			return d, k, true
		}
	}
	return "", known{}, false
}

// packageOf is what the fleet calls a version: its package's digest, or that of its files.
func (t *Taker) packageOf(d rollback.Digest) string {
	if k, ok := t.mem.Packages[d]; ok {
		return k.Package
	}
	if d == "" {
		return ""
	}
	return "sha256:" + string(d)
}

// noteUsed remembers what became active: the next content is compared with its size.
func (t *Taker) noteUsed() {
	changed := false
	for d, k := range t.mem.Packages {
		st, ok := t.c.Host.State(k.Provider)
		if k.Used || !ok || st.Slots(rollback.Part(k.Kind)).Active.Digest != d {
			continue
		}
		k.Used = true
		t.mem.Packages[d] = k
		t.trust = t.trust.Activated(sign.Target{
			Path: k.Path, Digest: k.Package, Length: k.Length, Vendor: k.Vendor, Release: k.Release,
		})
		changed = true
	}
	if changed {
		t.last = t.keep()
	}
}

// prune forgets packages that no slot names, when there are too many.
func (t *Taker) prune() {
	for d, k := range t.mem.Packages {
		if len(t.mem.Packages) <= maxKnown {
			return
		}
		st, ok := t.c.Host.State(k.Provider)
		if !ok || !slices.Contains(st.Digests(), d) {
			delete(t.mem.Packages, d)
		}
	}
}

func (t *Taker) keep() error {
	if err := t.mem.keep(t.c.Dir, t.trust); err != nil {
		return health.Problem{
			Code: CodeLocked, Severity: health.Warning,
			Title: fmt.Sprintf("what was learned from signatures could not be kept: %v", err), Fix: "make room on the disk",
		}
	}
	return nil
}

// Problems lists what a person should know.
func (t *Taker) Problems() (out []health.Problem) {
	var p health.Problem
	switch {
	case t.last == nil || errors.Is(t.last, fs.ErrNotExist):
	case errors.As(t.last, &p):
		out = append(out, p)
	default:
		out = append(out, health.Problem{
			Code: CodeStaging, Severity: health.Warning, Title: fmt.Sprintf("what was fetched cannot be read: %v", t.last),
			Fix: "look at the log of keepout-fetch; what runs goes on",
		})
	}
	for _, r := range t.refusals() {
		out = append(out, health.Problem{
			Code: CodeRefused, Severity: health.Warning,
			Title: fmt.Sprintf("the package %.19s is not used: %s", r.Digest, r.Why),
			Fix:   "keepout package verify says more; what runs goes on",
		})
	}
	for _, v := range t.vexed {
		out = append(out, health.Problem{
			Code: CodeVendor, Severity: health.Warning, Subject: fmt.Sprintf("%.64q", v.Vendor),
			Title: fmt.Sprintf("not all of what the vendor %.64q publishes could be fetched: %.256q", v.Vendor, v.Why),
			Fix:   "tell the vendor, or copy its folder again, whole; what runs goes on, and other vendors' packages come",
		})
	}
	return append(out, t.strays()...)
}

func (t *Taker) refusals() (out []Refused) {
	for d, why := range t.why {
		out = append(out, Refused{Digest: d, Why: why})
	}
	slices.SortFunc(out, func(a, b Refused) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) })
	return out
}

// Fill adds to a report what waits, what is refused, and what the fleet calls the versions in it.
func (t *Taker) Fill(r *Report) {
	for i := range r.Installed {
		d := rollback.Digest(r.Installed[i].Digest)
		r.Installed[i].Digest, r.Installed[i].Release = t.packageOf(d), t.mem.Packages[d].Counter
	}
	for i := range r.Buckets {
		r.Buckets[i].Digest = t.packageOf(rollback.Digest(r.Buckets[i].Digest))
	}
	for i := range r.Counters {
		c := &r.Counters[i]
		c.Engine, c.Content = t.packageOf(rollback.Digest(c.Engine)), t.packageOf(rollback.Digest(c.Content))
	}
	r.Asks, r.Refused = t.Asks(), t.refusals()
	for _, s := range t.stray {
		r.Refused = append(r.Refused, Refused{Digest: s.named, Why: s.why})
	}
	slices.SortFunc(r.Refused, func(a, b Refused) int {
		return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Why, b.Why))
	})
}
