//go:build linux

package bootguard

import (
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/copies"
)

// Where Keepout's own trees are on a system, but for the programs, which are beside this one.
const (
	configTree = "etc/keepout"
	stateTree  = "var/lib/keepout/state"
	copyFolder = "var/lib/keepout/recovery/copies"
)

// trees are the folders that a fix's restore-file may write to (remediation.Trees).
func (g *Guard) trees() copies.Trees {
	t := copies.Trees{
		"config": filepath.Join(g.Root, filepath.FromSlash(configTree)),
		"state":  filepath.Join(g.Root, filepath.FromSlash(stateTree)),
	}
	if g.Bin != "" {
		t["program"] = filepath.Join(g.Root, g.Bin)
	}
	return t
}

func (g *Guard) copies() string { return filepath.Join(g.Root, filepath.FromSlash(copyFolder)) }

// restore gives files back what they were. It is done again when a power cut comes before the fix's orders are kept,
// and what cannot be done is said: the rest of the fix may help all the same.
func (g *Guard) restore(files []boot.Restore) {
	for _, f := range files {
		g.say(copies.Restore(g.copies(), g.trees(), f))
	}
}

// beside is the folder of this program.
func beside() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}
