package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Grants is what a provider's manifest asks for.
type Grants struct {
	Limits  `yaml:",inline"`
	Network string   `yaml:"network"` // none (default), or host: the host's network
	Mounts  []string `yaml:"mounts"`  // paths that it reads or executes; /proc: its own processes
	Sockets []string `yaml:"sockets"` // paths of AF_UNIX sockets that it connects to
}

// Allowed is the administrator's word on what a manifest asks for. A key that is missing says nothing: what is
// harmless is granted then, and anything else is an error, so that nobody runs a provider with rights, or without
// them, by accident. A key that is there decides: what it does not name is not granted.
type Allowed struct {
	Network string   `yaml:"network"` // none or host
	Mounts  []string `yaml:"mounts"`  // whatever lies below one of them is granted
	Sockets []string `yaml:"sockets"`
}

// Rights are what both a manifest asks for and the administrator grants.
type Rights struct {
	Network bool
	Mounts  []string
	Sockets []string
}

// harmless are the paths below which a provider may read without the administrator's word: programs and libraries of
// the distribution, and what they need to run. Everybody on the host may read them, and they hold no secrets.
var harmless = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/alternatives", "/etc/ca-certificates", "/etc/ld.so.cache", "/etc/localtime", "/etc/pki/tls/certs",
	"/etc/ssl/certs", "/var/lib/clamav", procPath,
}

// procPath is a procfs of the provider's own processes, not the host's.
const procPath = "/proc"

// never are paths that no administrator can grant, neither they nor what lies below: they are the kernel's or the
// platform's own, or all of the host.
var never = []string{procPath, "/sys", "/dev", "/run/keepout", "/var/lib/keepout"}

// maxGrants bounds each list of paths.
const maxGrants = 32

func under(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func underAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return under(path, dir) })
}

// unmountable says why a path cannot be given to any provider, or "".
func unmountable(path string) string {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return "is not a plain absolute path"
	case path == "/":
		return "is the whole host"
	case path != procPath && underAny(path, never):
		return "belongs to the kernel or the platform"
	case slices.ContainsFunc(never, func(own string) bool { return own != path && under(own, path) }):
		return "holds folders of the platform"
	}
	return ""
}

// checkGrants looks at what a manifest asks for, whoever may grant it.
func (m *Manifest) checkGrants(bad refusal) {
	g := &m.Grants
	checkNetwork("$.grants", g.Network, bad)
	for _, list := range []struct {
		key   string
		paths []string
	}{{"mounts", g.Mounts}, {"sockets", g.Sockets}} {
		if len(list.paths) > maxGrants {
			bad("$.grants."+list.key, "name folders, not files", "%d %s, limit %d", len(list.paths), list.key, maxGrants)
		}
		for i, path := range list.paths {
			if why := unmountable(path); why != "" {
				bad(fmt.Sprintf("$.grants.%s[%d]", list.key, i), "ask for less", "%q %s", path, why)
			}
		}
	}
	if s := g.State; s < minState || s > maxState {
		bad("$.grants.state", "choose 64KiB to 1TiB", "state of %d bytes is out of range", s)
	}
	if l := g.Log; l < minLog || l > maxLog {
		bad("$.grants.log", "choose 4KiB to 64MiB", "log of %d bytes is out of range", l)
	}
}

// Ranges of limits that always hold, in bytes.
const (
	minState, maxState = 64 << 10, 1 << 40
	minLog, maxLog     = 4 << 10, 64 << 20
)

func checkNetwork(at, word string, bad refusal) {
	if word != "" && word != "none" && word != "host" {
		bad(at+".network", "write none or host", "network %q is not known", word)
	}
}

// check looks at what the administrator grants.
func (a *Allowed) check(at string, bad refusal) {
	checkNetwork(at, a.Network, bad)
	for i, path := range a.Mounts {
		if why := unmountable(path); why != "" {
			bad(fmt.Sprintf("%s.mounts[%d]", at, i), "grant less", "%q %s", path, why)
		}
	}
	for i, path := range a.Sockets {
		if why := unmountable(path); why != "" {
			bad(fmt.Sprintf("%s.sockets[%d]", at, i), "grant the path of a socket", "%q %s", path, why)
		}
	}
}

// rights joins what the manifest asks for with the administrator's word. What is not harmless and was not decided is
// an error at its place in the manifest.
func (m *Manifest) rights(p Provider) (r Rights, err error) {
	var errs []error
	refuse := func(path, grant, format string, args ...any) {
		errs = append(errs, m.doc.at(path, CodeGrant, fmt.Sprintf(format, args...), fmt.Sprintf(
			"write grants: {%s} under the provider in the configuration, or leave out what it shall not have", grant)))
	}
	if m.Grants.Network == "host" {
		r.Network = p.Grants.Network == "host"
		if p.Grants.Network == "" {
			refuse("$.grants.network", "network: host", "provider %q asks for the host's network", p.ID)
		}
	}
	for i, path := range m.Grants.Mounts {
		switch {
		case underAny(path, harmless), underAny(path, p.Grants.Mounts):
			r.Mounts = append(r.Mounts, path)
		case p.Grants.Mounts == nil:
			refuse(fmt.Sprintf("$.grants.mounts[%d]", i), "mounts: ["+path+"]", "provider %q asks to read %s", p.ID, path)
		}
	}
	for i, path := range m.Grants.Sockets {
		switch {
		case slices.Contains(p.Grants.Sockets, path):
			r.Sockets = append(r.Sockets, path)
		case p.Grants.Sockets == nil:
			refuse(fmt.Sprintf("$.grants.sockets[%d]", i), "sockets: ["+path+"]",
				"provider %q asks to connect to %s", p.ID, path)
		}
	}
	return r, errors.Join(errs...)
}
