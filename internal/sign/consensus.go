package sign

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// What the operator's repository calls its roles. The vendor's are named as the class.
const catalogPrefix = "catalog-"

// VendorPath is the target under which the operator's repository names a vendor's root file.
func VendorPath(vendor string) string { return "vendors/" + vendor }

// VendorEntry is what the operator says of a vendor beside the digest of its root file: the "custom" of that target.
// The operator's root keys sign it.
type VendorEntry struct {
	RootVersion int64    `json:"root_version"`
	Providers   []string `json:"providers"` // whose releases the vendor may name
}

// verification is one run of Verify.
type verification struct {
	trust Trust
	state State
	now   time.Time

	entry VendorEntry
}

func (v *verification) run(vendorDir, operatorDir fs.FS, path string) (Target, error) {
	operator, err := v.operator(operatorDir)
	var expired error
	if CodeOf(err) == CodeExpired {
		expired, err = err, nil // go on: what is old still says what must not be believed
	}
	if err != nil {
		return Target{}, err
	}
	vendor, err := v.vendor(vendorDir, operator)
	if err != nil {
		return Target{}, err
	}
	target, both, err := v.agree(vendor, operator, path)
	v.raiseFloors(both)
	v.raiseTime(vendor, operator)
	if err != nil {
		return Target{}, err
	}
	for _, r := range []*repository{operator, vendor} {
		if err := v.current(r); err != nil {
			return Target{}, err
		}
	}
	if expired != nil {
		return Target{}, expired
	}
	if err := v.permits(target); err != nil {
		return Target{}, err
	}
	return target, nil
}

// operator verifies the operator's repository up to its targets file, and takes over the roles of that.
func (v *verification) operator(dir fs.FS) (*repository, error) {
	pin := digestOf(v.trust.OperatorRoot)
	seen := v.state.Operator
	if seen.Pin != pin {
		seen = Seen{Pin: pin, Root: v.trust.OperatorRoot, Files: map[string]int64{}}
	}
	r := &repository{who: "the operator", dir: dir, seen: &seen}
	err := r.load(seen.Root)
	v.state.Operator = seen
	if err != nil {
		return nil, err
	}
	v.state.Roles = map[string]Role{}
	for _, d := range r.targets.Delegations.Roles {
		v.state.Roles[d.Name] = role(d.tufRole, r.targets.Delegations.Keys)
	}
	return r, v.current(r)
}

// vendor verifies the vendor's repository up to its targets file. Trust begins with the root file that the operator
// names, and starts anew when that is another one.
func (v *verification) vendor(dir fs.FS, operator *repository) (*repository, error) {
	name := v.trust.Vendor
	who := "the vendor " + name
	named, ok := operator.targets.Targets[VendorPath(name)]
	if !ok {
		return nil, refuse(CodeVendor, "ask the operator; if the vendor was removed on purpose, remove its providers",
			"the operator does not name %s", who)
	}
	if err := decodeStrict(named.Custom, &v.entry); err != nil {
		return nil, refuse(CodeVendor, "the operator signs the entry again", "what the operator says of %s is no entry: %v",
			who, err)
	}
	pin := "sha256:" + named.Hashes["sha256"]
	seen := v.state.Vendors[name]
	if seen.Root != nil && digestOf(seen.Root) == pin {
		seen.Pin = pin // the operator caught up with the vendor's rotations
	}
	r := &repository{who: who, dir: dir, seen: &seen}
	if seen.Pin != pin {
		root, err := r.readFile(rootName(v.entry.RootVersion), maxRoot)
		if err != nil {
			return nil, err
		}
		if err := (fileMeta{Length: named.Length, Hashes: named.Hashes}).matches(root); err != nil {
			return nil, r.refuse(CodeMixed, rootName(v.entry.RootVersion), "it is not the root that the operator names: %v", err)
		}
		seen = Seen{Pin: pin, Root: root, Files: map[string]int64{}}
	}
	err := r.load(seen.Root)
	v.state.Vendors[name] = seen
	if err != nil {
		return nil, err
	}
	return r, nil
}

// time is the time by which expiry is judged: the clock, but never earlier than what was shown to be past.
func (v *verification) time() time.Time {
	if v.now.Before(v.state.TimeFloor) {
		return v.state.TimeFloor
	}
	return v.now
}

func (v *verification) current(r *repository) error {
	now := v.time()
	for _, e := range r.expiries {
		if !now.Before(e.at) {
			return r.expired(e, now)
		}
	}
	return nil
}

// raiseTime takes the earlier of what both repositories say about when they were signed: one stolen key alone cannot
// push the floor beyond what the other repository says.
func (v *verification) raiseTime(a, b *repository) {
	earlier := a.timestamp.SignedAt
	if b.timestamp.SignedAt.Before(earlier) {
		earlier = b.timestamp.SignedAt
	}
	v.state = v.state.Witness(earlier)
}

// agree finds the release in both repositories, under the role of its class, and compares. It also returns all other
// releases on which both agree.
func (v *verification) agree(vendor, operator *repository, path string) (Target, []Release, error) {
	class, err := classOf(path)
	if err != nil {
		return Target{}, nil, err
	}
	var theirs, ours targetsFile
	if err := vendor.loadTargets(string(class), vendor.targets.delegated(string(class), path), &theirs); err != nil {
		return Target{}, nil, err
	}
	catalog := catalogPrefix + string(class)
	if err := operator.loadTargets(catalog, operator.targets.delegated(catalog, path), &ours); err != nil {
		return Target{}, nil, err
	}
	var both []Release
	for p, t := range theirs.Targets {
		if target, err := v.match(p, t, ours.Targets[p]); err == nil {
			both = append(both, target.Release)
		}
	}
	t, named := theirs.Targets[path]
	o, countersigned := ours.Targets[path]
	switch {
	case !named && !countersigned:
		return Target{}, both, refuse(CodeNotVendor, "keepout package verify without a name lists what there is",
			"neither %s nor the operator names %s", vendor.who, path)
	case !named:
		return Target{}, both, refuse(CodeNotVendor, "have the vendor sign it; an operator cannot make releases",
			"%s does not name %s, only the operator does", vendor.who, path)
	case !countersigned:
		return Target{}, both, refuse(CodeNotBoth, "keepout package sign --as operator, once it is to be used here",
			"the operator does not name %s, only %s does", path, vendor.who)
	}
	target, err := v.match(path, t, o)
	return target, both, err
}

// match compares what both say about one path.
func (v *verification) match(path string, vendor, operator targetMeta) (Target, error) {
	const next = "do not use it: one of the two names something else. Compare with keepout package inspect"
	digest := vendor.Hashes["sha256"]
	switch {
	case len(digest) != 64 || digest != operator.Hashes["sha256"]:
		return Target{}, refuse(CodeDiffer, next, "vendor and operator name different bytes for %s: sha256:%.12s… and "+
			"sha256:%.12s…", path, digest, operator.Hashes["sha256"])
	case vendor.Length != operator.Length || vendor.Length < 1:
		return Target{}, refuse(CodeDiffer, next, "vendor and operator name different lengths for %s: %d and %d", path,
			vendor.Length, operator.Length)
	}
	theirs, err := v.release(path, vendor.Custom, "the vendor")
	if err != nil {
		return Target{}, err
	}
	ours, err := v.release(path, operator.Custom, "the operator")
	if err != nil {
		return Target{}, err
	}
	if field := theirs.difference(ours); field != "" {
		return Target{}, refuse(CodeDiffer, next, "vendor and operator disagree about %s: its %s differs", path, field)
	}
	return Target{
		Path: path, Digest: "sha256:" + digest, Length: vendor.Length, Vendor: v.trust.Vendor, Release: theirs,
	}, nil
}

func (v *verification) release(path string, custom json.RawMessage, who string) (Release, error) {
	r, err := decodeRelease(custom)
	switch {
	case err != nil:
		return Release{}, refuse(CodeRelease, "sign it again", "what %s says of %s is no release: %v", who, path, err)
	case r.TargetPath() != path:
		return Release{}, refuse(CodeRelease, "sign it under the name that belongs to it",
			"%s names %s, which describes itself as %s", who, path, r.TargetPath())
	case !slices.Contains(v.entry.Providers, r.Provider):
		return Release{}, refuse(CodeVendor, "ask the operator: keepout keys vendor says who may release what",
			"the vendor %s may not make releases of %s", v.trust.Vendor, r.Provider)
	}
	return r, nil
}

// raiseFloors takes over each security floor on which both agree.
func (v *verification) raiseFloors(both []Release) {
	for _, r := range both {
		line := v.state.Lines[r.line()]
		line.Floor = max(line.Floor, r.Floor)
		v.state.Lines[r.line()] = line
	}
}

// permits applies what the host itself knows: hardware, floor, and what content it had.
func (v *verification) permits(t Target) error {
	if !t.runsOn(v.trust.Hardware) {
		return refuse(CodeHardware, "use the release for this machine", "%s is for %s; this machine is %q", t.Path,
			listed(t.Hardware), v.trust.Hardware)
	}
	if err := v.state.Allows(t.Release); err != nil {
		return err
	}
	last := v.state.Lines[t.line()].Size
	if t.Kind == Content && !t.Shrinks && (t.Size == 0 || t.Size < last-last/2) {
		return refuse(CodeShrunk, "if it is meant so, vendor and operator sign it with --shrinks",
			"the content %s has %d bytes, after %d: it is empty or less than half of what it was", t.Path, t.Size, last)
	}
	return nil
}

// classOf reads the class out of a target's path.
func classOf(path string) (Class, error) {
	parts := strings.Split(path, "/")
	if len(parts) == 3 && (parts[1] == string(Engine) || parts[1] == string(Content)) {
		return Class(parts[1]), nil
	}
	return "", refuse(CodeRelease, "name it as acme-edr/engine/4.2.0",
		"%q is no release: want PROVIDER/CLASS/VERSION", path)
}

func rootName(version int64) string { return fmt.Sprintf("%d.root.json", version) }

func listed(names []string) string { return strings.Join(names, ", ") }
