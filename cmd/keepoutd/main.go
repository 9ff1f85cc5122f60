// Command keepoutd is the guard: it starts the core and answers the kernel whenever the core cannot.
package main

import (
	"os"
	"path/filepath"

	"github.com/keepout-security/keepout/internal/guard"
)

func main() {
	core := "keepout-core"
	if exe, err := os.Executable(); err == nil {
		core = filepath.Join(filepath.Dir(exe), core)
	}
	os.Exit(guard.Main(core, os.Args[1:]))
}
