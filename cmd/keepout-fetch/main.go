// Command keepout-fetch brings packages to a host, and its reports to the control plane. It decides nothing.
package main

import (
	"os"
	"runtime"

	"github.com/keepout-security/keepout/internal/fetch"
)

// version is set by the build.
var version = "devel"

// With whom it ends is known of the process's first thread alone, and what another one executes anew ends with nobody
// (PR_GET_PDEATHSIG in prctl(2)): the main goroutine may otherwise have left it before main runs.
func init() { runtime.LockOSThread() }

func main() { os.Exit(fetch.Main(os.Args[1:], version, os.Stdout, os.Stderr)) }
