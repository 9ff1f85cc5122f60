// Command keepout-fleet is the control plane: one binary, one HTTPS listener, one folder.
package main

import (
	"os"

	"github.com/keepout-security/keepout/internal/fleet"
)

// version is set by the build.
var version = "devel"

func main() {
	os.Exit(fleet.Main(os.Args[1:], version, os.Stdout, os.Stderr))
}
