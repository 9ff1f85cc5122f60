// Command keepoutd is the guard: it starts the core and answers the kernel whenever the core cannot.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/keepout-security/keepout/internal/guard"
)

// The guard serves on the process's first thread: the main goroutine may otherwise have left it before main runs, and
// then it is another thread whose share and niceness a look at the process tells.
func init() { runtime.LockOSThread() }

func main() {
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "keepoutd:", err)
		os.Exit(1)
	}
	os.Exit(guard.Main(filepath.Join(filepath.Dir(exe), "keepout-core"), os.Args[1:]))
}
