package tidy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// The layers, from the bottom. A package imports what lies in a lower layer; in its own layer only what its
// place names.
const (
	base = iota
	core
	runtime
	shell
	program
	tests
)

var layerNames = []string{"base", "core", "runtime", "shell", "program", "tests"}

// place is where a package stands.
type place struct {
	pkg   string // from the module's root; a last element "*" stands for any one name
	layer int
	peers []string // what it may import in its own layer
	only  []string // when set, it may import nothing else of this module, wherever that lies
}

// What an engine may use: the public packages, and what the shipped engines share. A vendor has no more.
var public = []string{"event", "provider", "wire", "wire/keepoutpb"}

// places is the shape of the program: every package has a line.
var places = []place{
	{pkg: "event", layer: base},
	{pkg: "wire/keepoutpb", layer: base},
	{pkg: "wire", layer: base, peers: []string{"event", "wire/keepoutpb"}},
	{pkg: "provider", layer: base, peers: []string{"event", "internal/beat", "wire", "wire/keepoutpb"}},
	{pkg: "provider/conformance", layer: base, peers: []string{"event", "wire", "wire/keepoutpb", "provider"}},
	{pkg: "internal/health", layer: base},
	{pkg: "internal/durable", layer: base},
	{pkg: "internal/sign", layer: base, peers: []string{"internal/health"}},
	{pkg: "internal/folder", layer: base},
	{pkg: "internal/artifact/layout", layer: base, peers: []string{"internal/health", "internal/sign"}},
	{pkg: "docs", layer: base},
	{pkg: "internal/unit", layer: base},
	{pkg: "internal/content", layer: base, peers: []string{"internal/health", "internal/unit"}},
	{pkg: "internal/config", layer: base, peers: []string{
		"event", "internal/content", "internal/health", "internal/unit",
	}},

	{pkg: "internal/recovery/initramfs", layer: base},
	{pkg: "internal/recovery/modindex", layer: base},
	{pkg: "internal/recovery/uki", layer: base},
	{pkg: "internal/recovery/protocol", layer: base},
	{pkg: "internal/recovery/settings", layer: base},

	{pkg: "internal/arbiter", layer: core},
	{pkg: "internal/supervisor", layer: core},
	{pkg: "internal/rollback", layer: core},
	{pkg: "internal/rescue/plan", layer: core, peers: []string{"internal/boot"}},
	{pkg: "internal/boot", layer: core},
	{pkg: "internal/rollout", layer: core},
	{pkg: "internal/rollout/simulate", layer: runtime},

	{pkg: "internal/memexec", layer: base},
	{pkg: "internal/guard/link", layer: runtime},
	{pkg: "internal/guard", layer: runtime, peers: []string{"internal/guard/link", "internal/sensor/fanotify"}},
	{pkg: "internal/sensor/fanotify", layer: runtime},
	{pkg: "internal/sensor/lease", layer: runtime},
	{pkg: "internal/sensor", layer: runtime, peers: []string{"internal/sensor/fanotify"}},
	{pkg: "internal/session", layer: runtime},
	{pkg: "internal/offheap", layer: runtime},
	{pkg: "internal/beat", layer: base},
	{pkg: "internal/verdictcache", layer: runtime, peers: []string{"internal/offheap"}},
	{pkg: "internal/digest", layer: runtime, peers: []string{"internal/offheap"}},
	{pkg: "internal/docket", layer: runtime, peers: []string{
		"internal/digest", "internal/sensor", "internal/session", "internal/verdictcache",
	}},
	{pkg: "internal/sandbox", layer: runtime},
	{pkg: "internal/journal", layer: runtime},
	{pkg: "internal/trail", layer: runtime, peers: []string{"internal/journal"}},
	{pkg: "internal/pardon", layer: runtime},
	{pkg: "internal/store", layer: runtime},
	{pkg: "internal/update", layer: runtime},
	{pkg: "internal/recovery/esp", layer: runtime},
	{pkg: "internal/recovery/loader", layer: runtime, peers: []string{"internal/recovery/esp"}},
	{pkg: "internal/recovery/copies", layer: runtime},
	{pkg: "internal/recovery/rehearsal", layer: runtime, peers: []string{
		"internal/recovery/esp", "internal/recovery/loader",
	}},
	{pkg: "internal/recovery/bootguard", layer: runtime, peers: []string{
		"internal/recovery/copies", "internal/recovery/esp", "internal/recovery/loader", "internal/recovery/rehearsal",
	}},
	{pkg: "internal/recovery/arming", layer: runtime, peers: []string{
		"internal/recovery/esp", "internal/recovery/intent", "internal/recovery/loader",
	}},
	{pkg: "packaging", layer: base},
	{pkg: "internal/owned", layer: runtime},
	{pkg: "internal/crash", layer: base, peers: []string{"internal/health"}},
	{pkg: "internal/crashscreen", layer: runtime},
	{pkg: "internal/recovery/remediation", layer: core},
	{pkg: "internal/recovery/diagnostics", layer: runtime, peers: []string{"internal/journal"}},
	{pkg: "internal/roster", layer: runtime, peers: []string{
		"internal/digest", "internal/docket", "internal/journal", "internal/sandbox", "internal/session", "internal/store",
	}},

	{pkg: "internal/artifact", layer: runtime},
	{pkg: "internal/issuer", layer: runtime},
	{pkg: "internal/recovery/intent", layer: runtime, peers: []string{
		"internal/recovery/esp", "internal/recovery/remediation",
	}},
	{pkg: "internal/recovery/image", layer: shell},
	{pkg: "internal/rescue", layer: shell},

	{pkg: "internal/control", layer: shell},
	{pkg: "internal/fleet/fleetpb", layer: base},
	{pkg: "internal/fleet/fleetpb/fleetpbconnect", layer: base, peers: []string{"internal/fleet/fleetpb"}},
	{pkg: "internal/fleet/openapi", layer: base},
	{pkg: "internal/fleet/openapi/write", layer: program},
	{pkg: "internal/fleet/audit", layer: base},
	{pkg: "internal/fleet/access", layer: base, peers: []string{"internal/recovery/protocol"}},
	{pkg: "internal/fleet/bus", layer: base},
	{pkg: "internal/fleet/bus/bustest", layer: tests},
	{pkg: "internal/fleet/statement", layer: runtime},
	{pkg: "internal/fleet/identity", layer: runtime},
	{pkg: "internal/fleet/spec", layer: runtime},
	{pkg: "internal/fleet/store", layer: runtime},
	{pkg: "internal/fleet/store/storetest", layer: tests},
	{pkg: "internal/fleet/client", layer: runtime, peers: []string{"internal/fleet/identity"}},
	{pkg: "internal/fleet/conductor", layer: runtime, peers: []string{
		"internal/fleet/identity", "internal/fleet/spec", "internal/fleet/statement", "internal/fleet/store",
	}},
	{pkg: "internal/fleet", layer: shell},
	{pkg: "internal/fetch", layer: shell},
	{pkg: "internal/daemon", layer: shell, peers: []string{"internal/control"}},
	{pkg: "internal/playground", layer: shell, peers: []string{"internal/control"}},
	{pkg: "internal/netlab", layer: runtime},
	{pkg: "internal/preview", layer: shell, peers: []string{"internal/control", "internal/playground"}},
	{pkg: "internal/demo", layer: shell, peers: []string{"internal/control", "internal/playground"}},
	{pkg: "internal/doctor", layer: shell, peers: []string{"internal/control"}},
	{pkg: "internal/drill", layer: shell, peers: []string{"internal/control", "internal/playground"}},
	{pkg: "internal/cli", layer: shell, peers: []string{
		"internal/control", "internal/demo", "internal/doctor", "internal/drill", "internal/playground",
		"internal/preview", "internal/recovery/image",
	}},

	{pkg: "cmd/*", layer: program},
	{pkg: "providers/internal/*", layer: program, only: public},
	{pkg: "providers/hostile/*", layer: program, only: public},
	{pkg: "providers/*/*", layer: program, only: public}, // an engine's own parts
	{pkg: "providers/*", layer: program, only: append([]string{"providers/*/*"}, public...)},

	{pkg: "examples/*", layer: program, only: public},

	{pkg: "internal/testenv", layer: tests},
	{pkg: "internal/simdisk", layer: tests},
	{pkg: "internal/testvm", layer: tests, peers: []string{"internal/testenv"}},
	{pkg: "internal/sim", layer: tests, peers: []string{"internal/simdisk"}},
	{pkg: "internal/tally", layer: tests},
	{pkg: "internal/tidy", layer: tests},
	{pkg: "bench/*", layer: tests},
	{pkg: "bench", layer: tests, peers: []string{"bench/*"}},
	{pkg: "test/testhost", layer: tests, peers: []string{"internal/testenv"}},
	{pkg: "test/*", layer: tests},
	{pkg: "test/*/*", layer: tests},
}

func placeOf(pkg string) *place {
	for i := range places {
		if match(places[i].pkg, pkg) {
			return &places[i]
		}
	}
	return nil
}

func match(pattern, pkg string) bool {
	ok, err := path.Match(pattern, pkg)
	return ok && err == nil
}

// judge says what is wrong with one import, or "".
func judge(pkg, imported string) string {
	from, to := placeOf(pkg), placeOf(imported)
	named := func(pattern string) bool { return match(pattern, imported) }
	switch {
	case from == nil || to == nil:
		return "" // TestEveryPackageHasAPlace says so
	case from.only != nil && !slices.ContainsFunc(from.only, named):
		return fmt.Sprintf("%s imports %s; it may use %s only: a vendor's engine has no more",
			pkg, imported, strings.Join(from.only, ", "))
	case from.only != nil || to.layer < from.layer || slices.ContainsFunc(from.peers, named):
		return ""
	case from.layer == to.layer:
		return fmt.Sprintf("%s imports %s, its peer in the %s layer: move what they share down, or name it in "+
			"its place in layers_test.go", pkg, imported, layerNames[to.layer])
	default:
		return fmt.Sprintf("%s (%s) imports %s (%s): imports point down; pass a function or an interface instead",
			pkg, layerNames[from.layer], imported, layerNames[to.layer])
	}
}

func TestEveryPackageHasAPlace(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./...") {
		if pkg, ok := local(p.ImportPath); ok && placeOf(pkg) == nil {
			t.Errorf("%s: give it a place in the table of internal/tidy/layers_test.go", pkg)
		}
	}
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./...") {
		pkg, _ := local(p.ImportPath)
		for _, i := range p.Imports {
			if imported, ok := local(i); ok {
				if wrong := judge(pkg, imported); wrong != "" {
					t.Error(wrong)
				}
			}
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"wire", "event", true},
		{"event", "wire", false},
		{"internal/arbiter", "event", true},
		{"internal/arbiter", "internal/supervisor", false},
		{"internal/arbiter", "internal/session", false},
		{"internal/session", "internal/arbiter", true},
		{"internal/daemon", "internal/testenv", false},
		{"providers/clamav", "provider", true},
		{"providers/clamav", "providers/internal/list", true},
		{"providers/clamav", "internal/durable", false},
		{"cmd/keepoutd", "internal/daemon", true},
	} {
		if wrong := judge(c.pkg, c.imported); (wrong == "") != c.ok {
			t.Errorf("%s imports %s: %q, want allowed: %v", c.pkg, c.imported, wrong, c.ok)
		}
	}
}
