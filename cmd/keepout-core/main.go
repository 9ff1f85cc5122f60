// Command keepout-core is the core of Keepout: it watches file systems and lets providers vote. keepoutd starts it.
package main

import (
	"os"

	"github.com/keepout-security/keepout/internal/daemon"
	"github.com/keepout-security/keepout/internal/sandbox"
)

// version is set by the build.
var version = "devel"

func main() {
	if sandbox.IsLauncher() {
		os.Exit(sandbox.Launch())
	}
	os.Exit(daemon.Main(os.Args[1:], version, os.Stderr))
}
