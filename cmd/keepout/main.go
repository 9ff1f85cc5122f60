// Command keepout is the command line of Keepout.
package main

import (
	"os"

	"github.com/keepout-security/keepout/internal/cli"
)

// version is set by the build.
var version = "devel"

func main() {
	os.Exit(cli.Main(os.Args[1:], version, os.Stdout, os.Stderr))
}
