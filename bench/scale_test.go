package bench

import (
	"flag"
	"testing"
	"time"
)

// What the command line chooses. The default is what CI runs, so that nothing here can rot: every path, little work.
var (
	roundsFlag = flag.Int("rounds", 1, "rounds of the comparison")
	scaleFlag  = flag.String("scale", "small", "small or full: how much work; the record is full")
	outFlag    = flag.String("out", "", "folder for results.json and results.svg of the comparison")
	onlyFlag   = flag.String("only", "", "compare only no monitor and the variants that match this `expression`")
)

// scale is how much work there is.
type scale struct {
	name string

	files      int // of 4 KiB, to open
	programs   int // to execute
	repeat     int // how often, in one measurement
	tree       int // files of the source tree
	repository int // files that differ between two branches
	packages   int // of the Go module
	slow       int // opens that an engine of 1 ms is asked about
	threaded   int // files of a measurement of throughput
	written    int // files that are written and then opened
	objects    int // judged before memory is looked at
	hashes     int // signatures of whole files
	bodies     int // signatures of parts of files
	image      int // MiB of a file system
	idle       time.Duration
	limit      time.Duration // of one measurement, before the watchdog frees whoever waits

	loadFiles  int           // BenchmarkLoad
	crowdTime  time.Duration // BenchmarkCrowd
	starts     int           // BenchmarkStart: of each variant in a round
	steadyTime time.Duration // BenchmarkStoppedScanner: its openers begin no open after that,
	steadyWait time.Duration // and wait so long for those that have begun
}

func theScale(tb testing.TB) scale {
	tb.Helper()
	switch *scaleFlag {
	case "small":
		return scale{
			name: "small", files: 400, programs: 10, repeat: 4, tree: 150, repository: 40, packages: 2, slow: 30,
			threaded: 400, written: 50, objects: 5_000, hashes: 1000, bodies: 50, image: 256,
			idle: 2 * time.Second, limit: 3 * time.Minute,
			loadFiles: 2000, crowdTime: 3 * time.Second, starts: 5, steadyTime: 2 * time.Second, steadyWait: 3 * time.Second,
		}
	case "full":
		return scale{
			name: "full", files: 20_000, programs: 200, repeat: 5, tree: 3000, repository: 1000, packages: 12, slow: 300,
			threaded: 4000, written: 200, objects: 200_000, hashes: 200_000, bodies: 10_000,
			image: 1024, idle: 30 * time.Second, limit: 4 * time.Minute, loadFiles: 100_000,
			crowdTime: 15 * time.Second, starts: 60,
			steadyTime: 10 * time.Second, steadyWait: time.Minute,
		}
	}
	tb.Fatalf("-scale %s: want small or full", *scaleFlag)
	return scale{}
}
