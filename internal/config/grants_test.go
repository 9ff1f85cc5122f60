package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// asks installs a provider whose manifest has these grants.
func asks(t *testing.T, grants string) string {
	t.Helper()
	line := slices.IndexFunc(manifest, func(line string) bool { return strings.HasPrefix(line, "grants:") })
	return install(t, map[int]string{line + 1: "grants: {" + grants + "}"})
}

func TestRights(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		asks, allows string
		want         Rights
		wrong        string // part of the error
	}{
		"nothing": {},
		"harmless": {
			asks: "mounts: [/usr/lib, /lib64, /proc]", want: Rights{Mounts: []string{"/usr/lib", "/lib64", "/proc"}},
		},
		"a folder whose name begins alike": {
			asks: "mounts: [/usrlocal]", wrong: `KO-1008: provider "lists" asks to read /usrlocal`,
		},
		"network undecided": {asks: "network: host", wrong: "KO-1008: provider \"lists\" asks for the host's network"},
		"network granted":   {asks: "network: host", allows: "network: host", want: Rights{Network: true}},
		"network refused":   {asks: "network: host", allows: "network: none"},
		"network unasked":   {asks: "network: none", allows: "network: host"},
		"mount undecided":   {asks: "mounts: [/srv/data]", wrong: "KO-1008: provider \"lists\" asks to read /srv/data"},
		"mount granted": {
			asks: "mounts: [/usr, /srv/data]", allows: "mounts: [/srv]", want: Rights{Mounts: []string{"/usr", "/srv/data"}},
		},
		"mount refused": {
			asks: "mounts: [/usr, /srv/data]", allows: "mounts: []", want: Rights{Mounts: []string{"/usr"}},
		},
		"socket undecided": {asks: "sockets: [/run/x/s]", wrong: "KO-1008: provider \"lists\" asks to connect to /run/x/s"},
		"socket granted": {
			asks: "sockets: [/run/x/s, /run/y/s]", allows: "sockets: [/run/x/s]",
			want: Rights{Sockets: []string{"/run/x/s"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := resolve(t, asks(t, c.asks), fmt.Sprintf("{id: lists, grants: {%s}}", c.allows))
			if c.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("error %v, want %s", err, c.wrong)
				}
				// Two places: what the manifest asks for, and the entry that names it.
				if !strings.Contains(err.Error(), ManifestFile+":") || !strings.Contains(err.Error(), "k.yaml:3:") {
					t.Errorf("places are missing: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got[0].Rights, c.want) {
				t.Errorf("rights %+v, want %+v", got[0].Rights, c.want)
			}
		})
	}
}

// TestGrantsThatNobodyCanGive: not even the administrator.
func TestGrantsThatNobodyCanGive(t *testing.T) {
	t.Parallel()
	for grants, want := range map[string]string{
		"mounts: [/]":                      "is the whole host",
		"mounts: [/proc/sys]":              "belongs to the kernel or the platform",
		"mounts: [/run]":                   "holds folders of the platform",
		"mounts: [/var/lib]":               "holds folders of the platform",
		"mounts: [/dev]":                   "belongs to the kernel or the platform",
		"mounts: [/sys/fs/cgroup]":         "belongs to the kernel or the platform",
		"mounts: [/usr/../etc]":            "is not a plain absolute path",
		"mounts: [usr]":                    "is not a plain absolute path",
		"sockets: [/run/keepout/s]":        "belongs to the kernel or the platform",
		"network: all":                     `network "all" is not known`,
		"state: 1KiB":                      "is out of range",
		"log: 1GiB":                        "is out of range",
		"mount: [/usr]":                    `unknown key "mount"`,
		"memory: 1MiB, mounts: [/var/../]": "is not a plain absolute path",
	} {
		_, err := LoadManifest(asks(t, grants) + "/lists")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), CodeManifest) {
			t.Errorf("%s: %v, want %s", grants, err, want)
		}
	}
	_, err := Parse("k.yaml", []byte("version: 1\nproviders:\n  - id: a\n    grants: {mounts: [/sys]}\n"))
	if err == nil || !strings.Contains(err.Error(), "k.yaml:4:23: KO-1002") {
		t.Errorf("the administrator may grant /sys: %v", err)
	}
}
