// Command keepout-bootguard counts boots and decides how they run; it is the first unit of a boot.
package main

import (
	"os"

	"github.com/keepout-security/keepout/internal/recovery/bootguard"
	"github.com/keepout-security/keepout/internal/recovery/intent"
)

func main() {
	os.Exit(bootguard.Main(os.Args[1:], os.Stdout, os.Stderr, intent.Verify, intent.Learn))
}
