package remediation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sign"
)

// keyFrom makes a key that is the same in every run.
func keyFrom(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

var (
	day    = time.Date(2026, 7, 19, 6, 0, 0, 0, time.UTC)
	bundle = strings.Repeat("ab", 32)
	me     = strings.Repeat("c", 32)
	other  = strings.Repeat("d", 32)
)

func trust() Trust {
	return Trust{
		Organisation: sign.Role{Keys: PublicKeys(keyFrom("ada"), keyFrom("bob"), keyFrom("cyd")), Threshold: 2},
		Vendors: map[string]sign.Role{
			"acme-av": {Keys: PublicKeys(keyFrom("acme")), Threshold: 1},
			"zeta":    {Keys: PublicKeys(keyFrom("zeta")), Threshold: 1},
		},
	}
}

func machine() Machine {
	return Machine{
		ID: me, Bundle: bundle, Signature: "0123456789abcdef", Now: day.Add(time.Hour),
		Providers: []Provider{{ID: "acme-av", Engine: "7.2", Content: "291"}, {ID: "zeta"}},
	}
}

func campaign() Fix {
	return Fix{
		Format: Format, ID: "2026-07-19.1", Kind: Campaign, Sequence: 7, Issued: day, Expires: day.Add(72 * time.Hour),
		Reason: "content 291 ends machines", Symptom: Symptom{Provider: "acme-av", Content: "291"},
		Actions: []Action{{Verb: RollbackContent, Provider: "acme-av"}},
	}
}

func targeted() Fix {
	f := campaign()
	f.Kind, f.Sequence, f.Symptom, f.Bundle = Targeted, 0, Symptom{}, bundle
	return f
}

func byVendor() Fix {
	f := campaign()
	f.Vendor = "acme-av"
	return f
}

func revocation() Fix {
	f := campaign()
	f.ID, f.Kind, f.Symptom, f.Actions, f.Sequence = "r.1", Revocation, Symptom{}, nil, 0
	f.Revokes = []string{"2026-07-19.1"}
	return f
}

// seal signs without the checks of Encode, as somebody with a key and bad intentions could.
func seal(t testing.TB, f Fix, names ...string) []byte {
	t.Helper()
	payload, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var keys []ed25519.PrivateKey
	for _, n := range names {
		keys = append(keys, keyFrom(n))
	}
	sealed, err := sign.Seal(keys, PayloadType, payload)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func changed(f Fix, change func(*Fix)) Fix {
	f.Actions = slices.Clone(f.Actions)
	change(&f)
	return f
}

// attempt is one row of the tables: a fix, who signed it, and what else is unlike the usual.
type attempt struct {
	fix     Fix
	signers []string
	machine func(*Machine)
	state   State
	trust   func(*Trust)
	edit    func([]byte) []byte
	code    string // empty: believed
}

func (a *attempt) judge(t *testing.T) (Plan, error) {
	t.Helper()
	m, tr := machine(), trust()
	if a.machine != nil {
		a.machine(&m)
	}
	if a.trust != nil {
		a.trust(&tr)
	}
	sealed := seal(t, a.fix, a.signers...)
	if a.edit != nil {
		sealed = a.edit(sealed)
	}
	return Judge(tr, a.state, m, sealed)
}

func codeOf(err error) string {
	var p health.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	if err != nil {
		return "no code: " + err.Error()
	}
	return ""
}

func run(t *testing.T, table map[string]attempt) {
	t.Helper()
	for name, a := range table {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan, err := a.judge(t)
			if got := codeOf(err); got != a.code {
				t.Fatalf("code %q (%v), want %q", got, err, a.code)
			}
			if err != nil && !reflect.DeepEqual(plan, Plan{}) {
				t.Error("a refused fix has a plan")
			}
		})
	}
}

var two = []string{"ada", "bob"}

func TestForgery(t *testing.T) {
	t.Parallel()
	run(t, map[string]attempt{
		"two keys":             {fix: campaign(), signers: two},
		"two other keys":       {fix: targeted(), signers: []string{"cyd", "ada"}},
		"one key":              {fix: campaign(), signers: []string{"ada"}, code: CodeSignature},
		"one key twice":        {fix: campaign(), signers: []string{"ada", "ada"}, code: CodeSignature},
		"nobody":               {fix: campaign(), code: CodeSignature},
		"strangers":            {fix: campaign(), signers: []string{"eve", "mallory"}, code: CodeSignature},
		"one key and a vendor": {fix: campaign(), signers: []string{"ada", "acme"}, code: CodeSignature},
		"a careless threshold": {
			fix: campaign(), signers: []string{"ada"}, code: CodeSignature,
			trust: func(t *Trust) { t.Organisation.Threshold = 1 },
		},
		"trust nobody": {fix: campaign(), signers: two, code: CodeSignature, trust: func(t *Trust) { *t = Trust{} }},
		"no envelope": {
			fix: campaign(), signers: two, code: CodeSignature,
			edit: func([]byte) []byte { return []byte("{}") },
		},
		"torn": {
			fix: campaign(), signers: two, code: CodeSignature,
			edit: func(b []byte) []byte { return b[:len(b)/2] },
		},
		"endless": {
			fix: campaign(), signers: two, code: CodeMalformed,
			edit: func(b []byte) []byte { return append(b, make([]byte, MaxEnvelope)...) },
		},
		"signed as another type": {fix: campaign(), signers: two, code: CodeSignature, edit: func(b []byte) []byte {
			return bytes.Replace(b, []byte("remediation.v1"), []byte("remediation.v2"), 1)
		}},
	})
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	table := map[string]attempt{}
	for name, change := range map[string]func(*Fix){
		"format":                func(f *Fix) { f.Format = 2 },
		"id":                    func(f *Fix) { f.ID = "../x" },
		"kind":                  func(f *Fix) { f.Kind = "script" },
		"verb":                  func(f *Fix) { f.Actions = []Action{{Verb: "run"}} },
		"no action":             func(f *Fix) { f.Actions = nil },
		"too many actions":      func(f *Fix) { f.Actions = slices.Repeat(f.Actions, MaxActions+1) },
		"never expires":         func(f *Fix) { f.Expires = time.Time{} },
		"expires in ten years":  func(f *Fix) { f.Expires = day.AddDate(10, 0, 0) },
		"expires before":        func(f *Fix) { f.Expires = day.Add(-1) },
		"no reason":             func(f *Fix) { f.Reason = "" },
		"reason with an escape": func(f *Fix) { f.Reason = "\x1b[2J" },
		"no sequence":           func(f *Fix) { f.Sequence = 0 },
		"sequence past all":     func(f *Fix) { f.Sequence = 1 << 63 },
		"no symptom":            func(f *Fix) { f.Symptom = Symptom{} },
		"version, no provider":  func(f *Fix) { f.Symptom = Symptom{Content: "291"} },
		"campaign and bundle":   func(f *Fix) { f.Bundle = bundle },
		"disable nobody":        func(f *Fix) { f.Actions = []Action{{Verb: DisableProvider}} },
		"safe mode with a path": func(f *Fix) { f.Actions = []Action{{Verb: SafeMode, Path: "config/x"}} },
		"safe and not safe":     func(f *Fix) { f.Actions = []Action{{Verb: SafeMode}, {Verb: UnsetSafeMode}} },
		"hold and start":        func(f *Fix) { f.Actions = []Action{{Verb: Hold}, {Verb: SafeMode}} },
		"a test that acts":      func(f *Fix) { f.Test = true },
		"file of the system": func(f *Fix) {
			f.Actions = []Action{{
				Verb: RestoreFile, Path: "/etc/passwd",
				SHA256: bundle,
			}}
		},
		"file out of the tree": func(f *Fix) {
			f.Actions = []Action{{Verb: RestoreFile, Path: "state/../../etc/passwd", SHA256: bundle}}
		},
		"file with two slashes": func(f *Fix) {
			f.Actions = []Action{{
				Verb: RestoreFile, Path: "state//x",
				SHA256: bundle,
			}}
		},
		"a tree itself": func(f *Fix) { f.Actions = []Action{{Verb: RestoreFile, Path: "state/", SHA256: bundle}} },
		"another tree": func(f *Fix) {
			f.Actions = []Action{{
				Verb: RestoreFile, Path: "usr/bin/x",
				SHA256: bundle,
			}}
		},
		"file without digest":    func(f *Fix) { f.Actions = []Action{{Verb: RestoreFile, Path: "state/x"}} },
		"campaign that revokes":  func(f *Fix) { f.Revokes = []string{"x"} },
		"machine by its name":    func(f *Fix) { f.Machines.IDs = []string{"pc-of-bob"} },
		"vendor with odd letter": func(f *Fix) { f.Vendor = "a/b" },
	} {
		table[name] = attempt{fix: changed(campaign(), change), signers: two, code: CodeMalformed}
	}
	table["unknown field"] = attempt{fix: campaign(), signers: two, code: CodeMalformed, edit: func([]byte) []byte {
		sealed, err := sign.Seal([]ed25519.PrivateKey{keyFrom("ada"), keyFrom("bob")}, PayloadType,
			[]byte(`{"format":1,"exec":"rm -rf /"}`))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}}
	run(t, table)
}

func TestForeignMachine(t *testing.T) {
	t.Parallel()
	forMe := func(f *Fix) { f.Machines.IDs = []string{other, me} }
	forOther := func(f *Fix) { f.Machines.IDs = []string{other} }
	run(t, map[string]attempt{
		"selected":               {fix: changed(campaign(), forMe), signers: two},
		"not selected":           {fix: changed(campaign(), forOther), signers: two, code: CodeForeign},
		"targeted, not selected": {fix: changed(targeted(), forOther), signers: two, code: CodeForeign},
		"revocation for others":  {fix: changed(revocation(), forOther), signers: two, code: CodeForeign},
		"another bundle": {
			fix: targeted(), signers: two, code: CodeForeign,
			machine: func(m *Machine) { m.Bundle = strings.Repeat("ef", 32) },
		},
		"no bundle": {
			fix: targeted(), signers: two, code: CodeForeign,
			machine: func(m *Machine) { m.Bundle = "" },
		},
		"the symptom's signature": {fix: changed(campaign(),
			func(f *Fix) { f.Symptom = Symptom{Signature: "0123456789abcdef"} }), signers: two},
		"another signature": {
			fix:     changed(campaign(), func(f *Fix) { f.Symptom.Signature = "ffffffffffffffff" }),
			signers: two, code: CodeForeign,
		},
		"another version": {
			fix: campaign(), signers: two, code: CodeForeign,
			machine: func(m *Machine) { m.Providers[0].Content = "290" },
		},
		"another engine": {
			fix: changed(campaign(), func(f *Fix) { f.Symptom.Engine = "7.3" }), signers: two,
			code: CodeForeign,
		},
		"no such provider": {
			fix:     changed(campaign(), func(f *Fix) { f.Symptom = Symptom{Provider: "x"} }),
			signers: two, code: CodeForeign,
		},
		"a rehearsal's fix": {
			fix: changed(campaign(), func(f *Fix) { f.Test, f.Actions = true, []Action{{Verb: Collect}} }), signers: two,
			code: CodeTestOnly,
		},
		"in a rehearsal": {fix: campaign(), signers: two, code: CodeTestOnly, machine: func(m *Machine) { m.Test = true }},
		"a rehearsal's fix in one": {
			fix:     changed(campaign(), func(f *Fix) { f.Test, f.Actions = true, []Action{{Verb: Collect}} }),
			signers: two, machine: func(m *Machine) { m.Test = true },
		},
	})
}

func TestReplay(t *testing.T) {
	t.Parallel()
	run(t, map[string]attempt{
		"newer":                    {fix: campaign(), signers: two, state: State{Sequence: 6}},
		"the same":                 {fix: campaign(), signers: two, state: State{Sequence: 7}, code: CodeReplay},
		"older":                    {fix: campaign(), signers: two, state: State{Sequence: 8}, code: CodeReplay},
		"targeted after campaigns": {fix: targeted(), signers: two, state: State{Sequence: 99}},
		"targeted twice": {
			fix: targeted(), signers: two, state: State{Applied: []string{bundle}},
			code: CodeReplay,
		},
		"revoked": {
			fix: campaign(), signers: two, state: State{Revoked: []string{"2026-07-19.1"}},
			code: CodeRevoked,
		},
		"targeted, revoked": {
			fix: targeted(), signers: two, state: State{Revoked: []string{"2026-07-19.1"}},
			code: CodeRevoked,
		},
		"vendor's own count": {fix: byVendor(), signers: []string{"acme"}, state: State{
			Sequence: 99,
			Vendors:  map[string]uint64{"zeta": 99},
		}},
		"vendor again": {
			fix: byVendor(), signers: []string{"acme"},
			state: State{Vendors: map[string]uint64{"acme-av": 7}}, code: CodeReplay,
		},
		"revocation by one key": {fix: revocation(), signers: []string{"cyd"}},
		"revocation again": {
			fix: revocation(), signers: two, state: State{Revoked: []string{"2026-07-19.1"}},
			code: CodeReplay,
		},
		"revocation by a vendor": {fix: revocation(), signers: []string{"acme"}, code: CodeSignature},
	})
}

func TestClock(t *testing.T) {
	t.Parallel()
	at := func(now time.Time) func(*Machine) { return func(m *Machine) { m.Now = now } }
	late := day.AddDate(1, 0, 0)
	run(t, map[string]attempt{
		"in time":             {fix: campaign(), signers: two},
		"expired":             {fix: campaign(), signers: two, machine: at(late), code: CodeExpired},
		"expired for certain": {fix: campaign(), signers: two, state: State{Floor: late}, code: CodeExpired},
		"clock at 1970":       {fix: campaign(), signers: two, machine: at(time.Unix(0, 0))},
		"clock at 1970, expired for certain": {
			fix: campaign(), signers: two, machine: at(time.Unix(0, 0)),
			state: State{Floor: late}, code: CodeExpired,
		},
		"clock in 2099, campaign": {
			fix: campaign(), signers: two, machine: at(day.AddDate(73, 0, 0)),
			code: CodeExpired,
		},
		"clock in 2099, targeted": {fix: targeted(), signers: two, machine: at(day.AddDate(73, 0, 0))},
		"clock in 2099 all the time, targeted": {fix: targeted(), signers: two, machine: func(m *Machine) {
			m.Now, m.Noted = day.AddDate(73, 0, 0), day.AddDate(73, 0, 0).Add(-time.Hour)
		}},
		"targeted, in time when noted": {fix: targeted(), signers: two, code: CodeExpired, machine: func(m *Machine) {
			m.Now, m.Noted = late, day.Add(-time.Hour)
		}},
		"targeted, in time": {fix: targeted(), signers: two, machine: func(m *Machine) {
			m.Noted = day.Add(-time.Hour)
		}},
		"targeted, expired for certain":  {fix: targeted(), signers: two, state: State{Floor: late}, code: CodeExpired},
		"issued in the machine's future": {fix: campaign(), signers: two, machine: at(day.AddDate(0, -3, 0))},
	})
}

func TestVendor(t *testing.T) {
	t.Parallel()
	acme := []string{"acme"}
	do := func(actions ...Action) Fix { return changed(byVendor(), func(f *Fix) { f.Actions = actions }) }
	table := map[string]attempt{
		"rolls itself back": {fix: byVendor(), signers: acme},
		"disables itself":   {fix: do(Action{Verb: DisableProvider, Provider: "acme-av"}), signers: acme},
		"rolls a rival back": {
			fix: do(Action{Verb: RollbackContent, Provider: "zeta"}), signers: acme,
			code: CodeOverreach,
		},
		"itself and a rival": {fix: do(Action{Verb: DisableProvider, Provider: "acme-av"},
			Action{Verb: DisableProvider, Provider: "zeta"}), signers: acme, code: CodeOverreach},
		"speaks for a rival": {
			fix: changed(byVendor(), func(f *Fix) { f.Vendor = "zeta" }), signers: acme,
			code: CodeSignature,
		},
		"speaks for the operator":  {fix: campaign(), signers: acme, code: CodeSignature},
		"signs for itself, zeta's": {fix: byVendor(), signers: []string{"zeta"}, code: CodeSignature},
	}
	for _, v := range []Verb{SafeMode, UnsetSafeMode, Hold, Collect} {
		table[string(v)] = attempt{fix: do(Action{Verb: v}), signers: acme, code: CodeOverreach}
	}
	table["restores a file"] = attempt{
		fix: do(Action{Verb: RestoreFile, Path: "config/keepout.yaml", SHA256: bundle}), signers: acme, code: CodeOverreach,
	}
	run(t, table)
}

func TestPlanAndState(t *testing.T) {
	t.Parallel()
	plan, err := Judge(trust(), State{Sequence: 3, Floor: day.AddDate(0, -1, 0)}, machine(), seal(t, campaign(), two...))
	if err != nil {
		t.Fatal(err)
	}
	want := State{Sequence: 7, Floor: day}
	if !reflect.DeepEqual(plan.State, want) || !slices.Equal(plan.Effects, campaign().Actions) || len(plan.Signers) != 2 {
		t.Errorf("plan %+v", plan)
	}
	vendor, err := Judge(trust(), State{}, machine(), seal(t, byVendor(), "acme"))
	if err != nil || !vendor.State.Floor.IsZero() || vendor.State.Sequence != 0 || vendor.State.Vendors["acme-av"] != 7 {
		t.Errorf("a vendor moved the organisation's time or count: %+v, %v", vendor.State, err)
	}
	far := changed(campaign(), func(f *Fix) { f.Issued, f.Expires = day.AddDate(50, 0, 0), day.AddDate(50, 0, 3) })
	leapt, err := Judge(trust(), State{}, machine(), seal(t, far, two...))
	if err != nil || !leapt.State.Floor.IsZero() {
		t.Errorf("one fix from a wrong clock moved the time to %v, %v", leapt.State.Floor, err)
	}
	revoked, err := Judge(trust(), State{Sequence: 3}, machine(), seal(t, revocation(), "ada"))
	if err != nil || !slices.Equal(revoked.State.Revoked, []string{"2026-07-19.1"}) || revoked.State.Sequence != 3 {
		t.Errorf("after a revocation %+v, %v", revoked.State, err)
	}
	data, err := json.Marshal(revoked.State)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Remember(data); err != nil || !reflect.DeepEqual(again, revoked.State) {
		t.Errorf("remembered %+v, %v", again, err)
	}
}

// TestNothingTwice: whatever fixes come in whatever order, none is believed twice, sequences only rise, the floor never
// falls, and the state stays one that can be remembered.
func TestNothingTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		state := State{}
		believed := map[string]bool{}
		for range rapid.IntRange(1, 40).Draw(rt, "fixes") {
			f, signers := campaign(), two
			m := machine()
			m.Now = day.AddDate(0, 0, rapid.IntRange(-400, 400).Draw(rt, "days"))
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				f = targeted()
				f.Bundle = strings.Repeat(rapid.StringMatching(`[0-9a-f]`).Draw(rt, "bundle"), 64)
				m.Bundle = f.Bundle
			case 1:
				f, signers = byVendor(), []string{"acme"}
			case 2:
				f = revocation()
				f.Revokes = []string{rapid.StringMatching(`[ab][0-9]`).Draw(rt, "revoked")}
			}
			if f.Kind == Campaign {
				f.Sequence = rapid.Uint64Range(1, 12).Draw(rt, "sequence")
			}
			f.ID = rapid.StringMatching(`[ab][0-9]`).Draw(rt, "id")
			f.Issued = day.AddDate(0, 0, rapid.IntRange(-800, 800).Draw(rt, "issued"))
			f.Expires = f.Issued.Add(48 * time.Hour)
			before, _ := json.Marshal(state)
			plan, err := Judge(trust(), state, m, seal(t, f, signers...))
			if after, _ := json.Marshal(state); !bytes.Equal(before, after) {
				rt.Fatal("judging changed the state it was given")
			}
			if err != nil {
				continue
			}
			name := string(f.Kind) + f.Vendor + f.Bundle + strings.Join(f.Revokes, ",")
			if f.Kind == Campaign {
				name += string(rune(f.Sequence))
			}
			if believed[name] {
				rt.Fatalf("%s was believed twice", name)
			}
			believed[name] = true
			if plan.State.Sequence < state.Sequence || plan.State.Floor.Before(state.Floor) {
				rt.Fatalf("from %+v to %+v", state, plan.State)
			}
			data, err := json.Marshal(plan.State)
			if err != nil {
				rt.Fatal(err)
			}
			if state, err = Remember(data); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

// TestVendorsAreBounded: campaigns of ever more vendors do not make a machine forget what it took, and never keep the
// organisation's away.
func TestVendorsAreBounded(t *testing.T) {
	t.Parallel()
	full := State{Vendors: map[string]uint64{"acme-av": 5}}
	for i := len(full.Vendors); i < maxVendors; i++ {
		full.Vendors[strings.Repeat("v", i+1)] = 5
	}
	zeta := changed(byVendor(), func(f *Fix) {
		f.Vendor, f.Symptom = "zeta", Symptom{Provider: "zeta"}
		f.Actions = []Action{{Verb: DisableProvider, Provider: "zeta"}}
	})
	answer := changed(zeta, func(f *Fix) { f.Kind, f.Sequence, f.Symptom, f.Bundle = Targeted, 0, Symptom{}, bundle })
	run(t, map[string]attempt{
		"one more vendor":       {fix: zeta, signers: []string{"zeta"}, state: full, code: CodeFull},
		"a known one":           {fix: byVendor(), signers: []string{"acme"}, state: full},
		"an answer of one more": {fix: answer, signers: []string{"zeta"}, state: full},
		"the organisation":      {fix: campaign(), signers: two, state: full},
	})
}

// recorder is a Target that remembers what it was told.
type recorder struct {
	did  []string
	fail string
}

func (r *recorder) do(what string) error {
	r.did = append(r.did, what)
	if what == r.fail {
		return errors.New("broken")
	}
	return nil
}

func (r *recorder) DisableProvider(id string) error  { return r.do("disable " + id) }
func (r *recorder) RollbackContent(id string) error  { return r.do("rollback " + id) }
func (r *recorder) RestoreFile(path, _ string) error { return r.do("restore " + path) }
func (r *recorder) Hold() error                      { return r.do("hold") }
func (r *recorder) Collect() error                   { return r.do("collect") }
func (r *recorder) Keep(State) error                 { return r.do("keep") }
func (r *recorder) SafeMode(on bool) error {
	if on {
		return r.do("safe")
	}
	return r.do("unsafe")
}

func TestApply(t *testing.T) {
	t.Parallel()
	plan := Plan{Effects: []Action{
		{Verb: DisableProvider, Provider: "a"},
		{Verb: RollbackContent, Provider: "b"},
		{Verb: RestoreFile, Path: "state/x"},
		{Verb: SafeMode},
		{Verb: UnsetSafeMode},
		{Verb: Hold},
		{Verb: Collect},
	}}
	want := []string{"disable a", "rollback b", "restore state/x", "safe", "unsafe", "hold", "collect", "keep"}
	for _, fail := range append([]string{""}, want...) {
		r := recorder{fail: fail}
		err := Apply(&plan, &r)
		if !slices.Equal(r.did, want) || (err != nil) != (fail != "") {
			t.Errorf("with %q broken: did %q, error %v", fail, r.did, err)
		}
	}
	if got := len(Verbs()); got != len(plan.Effects) {
		t.Errorf("%d verbs, of which %d are tried here", got, len(plan.Effects))
	}
}

func FuzzJudge(f *testing.F) {
	payload, err := json.Marshal(campaign())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seal(f, campaign(), two...), payload)
	f.Add([]byte(`{}`), []byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, sealed, payload []byte) {
		if _, err := Judge(trust(), State{}, machine(), sealed); err != nil && codeOf(err)[:3] != "KO-" {
			t.Fatalf("an error without a code: %v", err)
		}
		fix, err := Decode(payload)
		if err != nil {
			return
		}
		encoded, err := Encode(&fix)
		if err != nil {
			t.Fatalf("a fix that was read cannot be written: %v", err)
		}
		if again, err := Decode(encoded); err != nil || !reflect.DeepEqual(again, fix) {
			t.Fatalf("%+v became %+v, %v", fix, again, err)
		}
		_, _ = Remember(payload)
	})
}
