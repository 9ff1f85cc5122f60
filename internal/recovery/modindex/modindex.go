// Package modindex says which kernel modules a machine needs and in which order they are loaded.
//
// An index is made from the modules themselves when the recovery image is built, and read by its init: there is no
// depmod and no modprobe in the image. The package guarantees that what it reads is bounded, that a module comes after
// all that it needs, and that a cycle or a missing module ends in an error and not in a loop.
package modindex

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Bounds of an index.
const (
	MaxIndex   = 8 << 20 // bytes of its encoding
	maxModules = 4096
)

// Module is one kernel module.
type Module struct {
	Name    string   `json:"name"`             // with underscores, as lsmod shows it
	File    string   `json:"file"`             // from the image's root
	Needs   []string `json:"needs,omitempty"`  // modules to be loaded before it
	Aliases []string `json:"alias,omitempty"`  // patterns of the devices that it serves
	Always  bool     `json:"always,omitempty"` // loaded whatever the machine is
}

// Index is the modules of one kernel.
type Index struct {
	Release string   `json:"release"`
	Modules []Module `json:"modules"`
}

var moduleName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// Name turns a module's file or name into the name by which it is known.
func Name(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Parse reads an index.
func Parse(data []byte) (Index, error) {
	var x Index
	if len(data) > MaxIndex {
		return x, fmt.Errorf("%d bytes, limit %d", len(data), MaxIndex)
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return Index{}, fmt.Errorf("decode the index of modules: %w", err)
	}
	if len(x.Modules) > maxModules {
		return Index{}, fmt.Errorf("%d modules, limit %d", len(x.Modules), maxModules)
	}
	for _, m := range x.Modules {
		if !moduleName.MatchString(m.Name) || path.IsAbs(m.File) || path.Clean(m.File) != m.File {
			return Index{}, fmt.Errorf("module %.80q has no good name or file", m.Name)
		}
	}
	return x, nil
}

// Valid reports whether a name can be a module's.
func Valid(name string) bool { return moduleName.MatchString(name) }

// Serves reports whether the module serves a device, by what the device's modalias says.
func (m *Module) Serves(modalias string) bool {
	return slices.ContainsFunc(m.Aliases, func(pattern string) bool {
		ok, err := path.Match(pattern, modalias)
		return ok && err == nil
	})
}

// For returns the modules that are always loaded and those that serve one of the devices, each after what it needs. A
// module that needs one that is not there is left out, and the error names it; the others are returned all the same.
func (x *Index) For(modaliases []string) ([]Module, error) {
	var names []string
	for i := range x.Modules {
		m := &x.Modules[i]
		if m.Always || slices.ContainsFunc(modaliases, m.Serves) {
			names = append(names, m.Name)
		}
	}
	return x.Order(names)
}

// Order returns the named modules and all that they need, each after what it needs.
func (x *Index) Order(names []string) ([]Module, error) {
	o := ordering{by: map[string]*Module{}, state: map[string]int{}}
	for i := range x.Modules {
		o.by[x.Modules[i].Name] = &x.Modules[i]
	}
	var errs []error
	for _, name := range names {
		if err := o.visit(name); err != nil {
			errs = append(errs, err)
		}
	}
	return o.out, errors.Join(errs...)
}

type ordering struct {
	by    map[string]*Module
	state map[string]int // 1 being visited, 2 in out, 3 impossible
	out   []Module
}

func (o *ordering) visit(name string) error {
	m := o.by[name]
	switch {
	case m == nil:
		return fmt.Errorf("module %s is not there", name)
	case o.state[name] == 1, o.state[name] == 3:
		return fmt.Errorf("module %s cannot be loaded: what it needs is missing or needs it", name)
	case o.state[name] == 2:
		return nil
	}
	o.state[name] = 1
	for _, need := range m.Needs {
		if err := o.visit(need); err != nil {
			o.state[name] = 3
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	o.state[name] = 2
	o.out = append(o.out, *m)
	return nil
}
