// Command keepout-rescue is the init of the recovery environment: it runs instead of the system on a machine that does
// not start, and as nothing else.
package main

import (
	"fmt"
	"os"

	"github.com/keepout-security/keepout/internal/rescue"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "keepout-rescue: this is the init of the recovery environment; "+
			"\"keepout recovery image build\" makes the image that starts it")
		os.Exit(2)
	}
	rescue.Init()
}
