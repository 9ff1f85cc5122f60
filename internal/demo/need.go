package demo

import (
	"os"
	"os/exec"
	"path/filepath"
)

// installEngines is the one command that brings every engine.
const installEngines = "sudo make install-engines && make run"

// engine is a provider that the demonstration knows, and why it cannot take part; "" when it can.
type engine struct{ id, lacks string }

// engines looks for the shipped engines. hashlist is always there: missing sees to that.
func engines(bin string, find func(program string) error) []engine {
	list := []engine{{id: "hashlist"}, {id: "clamav"}, {id: "yara"}}
	for i := range list {
		e := &list[i]
		if _, err := os.Stat(filepath.Join(bin, "providers", e.id, "keepout-"+e.id)); err != nil {
			e.lacks = "it is not built"
			if e.id == "yara" {
				e.lacks = "it is not built: libyara or gcc is not installed"
			}
			continue
		}
		if e.id == "clamav" && find("clamd") != nil {
			e.lacks = "clamd is not installed"
		}
	}
	return list
}

// findProgram looks where Debian puts daemons too, which is not on every PATH.
func findProgram(name string) error {
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if _, err := exec.LookPath(path); err == nil {
			return nil
		}
	}
	return exec.ErrNotFound
}

// present lists the ids of the engines that take part.
func present(list []engine) []string {
	var ids []string
	for _, e := range list {
		if e.lacks == "" {
			ids = append(ids, e.id)
		}
	}
	return ids
}
