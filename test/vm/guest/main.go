// Command guest is the init of the test machines: a system small enough to boot in two seconds.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	say("guest: init runs")
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// say writes to the serial line: the kernel gives init the console as its standard output.
func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }
