package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Installed is a configured provider together with its manifest.
type Installed struct {
	Provider
	Manifest *Manifest
	Limits   Limits            // the smaller of what is asked for and what is allowed
	Rights   Rights            // what is both asked for and allowed
	Values   map[string]string // settings for the provider
}

// Resolve finds the configured providers below dir and checks manifests, executables and digests. All that is
// wrong is reported, not only the first.
func (l *Loaded) Resolve(dir string) ([]Installed, error) {
	var out []Installed
	var errs []error
	for i, p := range l.Providers {
		in, err := l.resolveOne(fmt.Sprintf("$.providers[%d]", i), dir, p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, in)
	}
	return out, errors.Join(errs...)
}

func (l *Loaded) resolveOne(at, dir string, p Provider) (Installed, error) {
	home := filepath.Join(dir, p.ID)
	if _, err := os.Stat(filepath.Join(home, ManifestFile)); err != nil {
		return Installed{}, l.doc.at(at+".id", CodeProvider, fmt.Sprintf("provider %q is not installed in %s", p.ID, dir),
			"install it, or choose one of: "+strings.Join(available(dir), ", "))
	}
	m, err := LoadManifest(home)
	if err != nil {
		return Installed{}, err
	}
	f, err := m.OpenExecutable()
	if err != nil {
		// Two places matter: the entry that names the provider, and the manifest that is wrong.
		return Installed{}, errors.Join(err, l.doc.at(at+".id", CodeProvider,
			fmt.Sprintf("provider %q cannot be started", p.ID), "see the line above"))
	}
	if err := f.Close(); err != nil {
		return Installed{}, fmt.Errorf("close executable: %w", err)
	}
	rights, err := m.rights(p)
	if err != nil {
		return Installed{}, errors.Join(err, l.doc.at(at+".id", CodeProvider,
			fmt.Sprintf("provider %q cannot be started", p.ID), "see the line above"))
	}
	in := Installed{
		Provider: p, Manifest: m, Limits: lesser(m.Grants.Limits, p.Limits), Rights: rights,
		Values: maps.Clone(p.Settings),
	}
	if in.Values == nil {
		in.Values = map[string]string{}
	}
	if p.OnMiss != "" {
		in.Values["on_miss"] = p.OnMiss
	}
	for _, key := range slices.Sorted(maps.Keys(in.Values)) {
		if slices.Contains(m.Settings, key) {
			continue
		}
		where := at + ".settings." + key
		if key == "on_miss" {
			where = at + ".on_miss"
		}
		return Installed{}, l.doc.at(where, CodeValue, fmt.Sprintf("provider %q has no setting %q", p.ID, key),
			"its settings are: "+strings.Join(m.Settings, ", "))
	}
	return in, nil
}

// available lists the providers that are installed.
func available(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, "*", ManifestFile)) // the pattern is well-formed
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		out = append(out, filepath.Base(filepath.Dir(p)))
	}
	if len(out) == 0 {
		return []string{"(none; make build builds them)"}
	}
	return out
}

// lesser takes the smaller limit of each kind; zero is no limit.
func lesser(asked, allowed Limits) Limits {
	return Limits{
		Memory: smaller(asked.Memory, allowed.Memory), CPU: smaller(asked.CPU, allowed.CPU),
		Processes: smaller(asked.Processes, allowed.Processes), Files: smaller(asked.Files, allowed.Files),
		State: smaller(asked.State, allowed.State), Log: smaller(asked.Log, allowed.Log),
	}
}

func smaller[T ~uint | ~uint64](a, b T) T {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
