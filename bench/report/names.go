package report

import "fmt"

// The other variants.
const (
	MinimalC      = "C responder"
	MinimalC1     = "C responder, 1 provider"
	MinimalC3     = "C responder, 3 providers"
	MinimalGo     = "Go responder"
	Keepout0      = "Keepout"
	KeepoutAloof  = "Keepout, not asked"
	Keepout1      = "Keepout, 1 provider"
	Keepout3      = "Keepout, 3 providers"
	KeepoutClamAV = "Keepout, ClamAV"
	Clamonacc     = "clamonacc + clamd"
	FapolicydExec = "fapolicyd, exec rules"
	FapolicydAll  = "fapolicyd, shipped rules"

	Keepout1ms  = "Keepout, 1 provider of 1 ms"
	Keepout3ms  = "Keepout, 3 providers of 1 ms"
	Scanner1ms  = "1 scanner of 1 ms"
	Scanners3ms = "3 scanners of 1 ms"
)

// The workloads. "First" is after every file was changed, "again" right after that.
const (
	OpenFirst = "open first"
	OpenAgain = "open again"
	OpenSoon  = "open written" // for the first time, two seconds after its writer closed it
	ExecFirst = "exec first"
	ExecAgain = "exec again"
	Untar     = "untar"
	GrepFirst = "grep first"
	GrepAgain = "grep again"
	Git       = "git checkout"
	GoBuild   = "go build"
	Unpack    = "package unpack"

	Open1ms = "open, 1 ms" // in the arenas of the variants that take 1 ms
)

// Threads are how many openers the throughput is measured with.
func Threads() []int { return []int{1, 2, 4, 8} }

// Throughput names the workload of opening with so many threads.
func Throughput(threads int, again bool) string {
	when := "first"
	if again {
		when = "again"
	}
	return fmt.Sprintf("%d threads %s", threads, when)
}

// Facts that are no time.
const (
	FactRSS     = "rss_mb"             // guard and core, after the objects below were judged
	FactObjects = "objects"            // distinct files that were opened before that
	FactIdle    = "idle_cpu_percent"   // guard and core, three providers, nothing to do
	FactExec    = "exec_digest_icount" // instructions of an exec whose digest is known, to no monitor
)
