// Command profiled is keepout-core with a CPU profile: from SIGUSR2 to its end, written to the file that
// KEEPOUT_PROFILE names. The core itself links no profiler.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/keepout-security/keepout/internal/daemon"
	"github.com/keepout-security/keepout/internal/sandbox"
)

func main() {
	if sandbox.IsLauncher() {
		os.Exit(sandbox.Launch())
	}
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR2)
	go func() {
		<-begin
		if err := profile(); err != nil {
			fmt.Fprintln(os.Stderr, "profiled:", err)
			os.Exit(1)
		}
	}()
	code := daemon.Main(os.Args[1:], "profiled", os.Stderr)
	pprof.StopCPUProfile()
	os.Exit(code)
}

func profile() error {
	f, err := os.Create(os.Getenv("KEEPOUT_PROFILE"))
	if err != nil {
		return fmt.Errorf("make the profile's file: %w", err)
	}
	return pprof.StartCPUProfile(f)
}
