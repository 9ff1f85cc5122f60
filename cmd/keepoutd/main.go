// Command keepoutd is the guard: it starts the core and answers the kernel whenever the core cannot.
package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/keepout-security/keepout/internal/guard"
)

// The guard serves on the process's first thread: the main goroutine may otherwise have left it before main runs, and
// then it is another thread whose share and niceness a look at the process tells.
func init() { runtime.LockOSThread() }

func main() {
	core := "keepout-core"
	if exe, err := os.Executable(); err == nil {
		core = filepath.Join(filepath.Dir(exe), core)
	}
	os.Exit(guard.Main(core, os.Args[1:]))
}
