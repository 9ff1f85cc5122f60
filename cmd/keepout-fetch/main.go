// Command keepout-fetch brings packages to a host, and its reports to the control plane. It decides nothing.
package main

import (
	"os"

	"github.com/keepout-security/keepout/internal/fetch"
)

// version is set by the build.
var version = "devel"

func main() { os.Exit(fetch.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
