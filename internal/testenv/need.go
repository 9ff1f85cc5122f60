package testenv

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Capability names one thing that a test needs of the machine.
type Capability string

// The capabilities. Each is probed by doing the thing, then undoing it.
const (
	Root     Capability = "root"     // effective user 0
	Fanotify Capability = "fanotify" // a content-class group with pidfds can be opened (no mark is placed)
	MountNS  Capability = "mountns"  // a child can have a mount namespace of its own
	NetNS    Capability = "netns"    // network namespaces can be made and joined with a veth pair
	Loop     Capability = "loop"     // a file can be attached to a loop device
	FUSE     Capability = "fuse"     // /dev/fuse opens and bindfs is installed
	ClamAV   Capability = "clamav"   // clamd is installed and starts
	YARA     Capability = "yara"     // a C program links with libyara
	GRUB     Capability = "grub"     // GRUB's tools that check a script and an environment block are installed
	Python   Capability = "python"   // Python 3.9 or later
	GCC      Capability = "gcc"      // gcc compiles a C program
	Git      Capability = "git"      // git runs
	Signing  Capability = "signing"  // sbsign and sbverify, and systemd's stub of unified images are installed
	QEMU     Capability = "qemu"     // an emulated machine starts, and what makes its disks is installed
	CGroup1  Capability = "cgroup1"  // groups can be made in two hierarchies for limits (control groups, version 1)
	// Debootstrap: a Debian system can be unpacked from its packages, as root.
	Debootstrap Capability = "debootstrap"
)

// laneVariable names the environment variable that holds the lane.
const laneVariable = "KEEPOUT_LANE"

// probes holds one probe for each capability; each runs at most once in a process.
var probes = map[Capability]func() error{
	Root:     sync.OnceValue(probeRoot),
	Fanotify: sync.OnceValue(probeFanotify),
	MountNS:  sync.OnceValue(probeMountNS),
	NetNS:    sync.OnceValue(probeNetNS),
	Loop:     sync.OnceValue(probeLoop),
	FUSE:     sync.OnceValue(probeFUSE),
	ClamAV:   sync.OnceValue(probeClamAV),
	YARA:     sync.OnceValue(probeYARA),
	GRUB:     sync.OnceValue(probeGRUB),
	Python:   sync.OnceValue(probePython),
	GCC:      sync.OnceValue(probeGCC),
	Git:      sync.OnceValue(probeGit),
	Signing:  sync.OnceValue(probeSigning),
	QEMU:     sync.OnceValue(probeQEMU),
	CGroup1:  sync.OnceValue(probeCGroup1),

	Debootstrap: sync.OnceValue(probeDebootstrap),
}

// Need continues the test only when the machine has every capability named. Otherwise the test skips with
// exactly "NEEDS <name>: <error>", or fails when KEEPOUT_LANE promises the capability: "all" promises
// everything, "root" promises root, fanotify, mountns, netns, loop and fuse, "vm" promises qemu, "vm-full" promises
// qemu and debootstrap, "unit" and the empty lane promise nothing. Another lane fails the test, so that a misspelt lane
// cannot hide one. It must be called from the test's own goroutine.
func Need(t testing.TB, needs ...Capability) {
	t.Helper()
	need(t, os.Getenv(laneVariable), Probe, needs)
}

// Probe reports why the machine lacks the capability, or nil when it has it. The answer is remembered for the
// life of the process. It may be called from several goroutines.
func Probe(c Capability) error {
	probe, known := probes[c]
	if !known {
		return fmt.Errorf("unknown capability %q", string(c))
	}
	return probe()
}

func need(t testing.TB, lane string, probe func(Capability) error, needs []Capability) {
	t.Helper()
	promised, err := promises(lane)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range needs {
		if _, known := probes[c]; !known {
			t.Fatalf("unknown capability %q", string(c))
		}
		err := probe(c)
		switch {
		case err == nil:
		case slices.Contains(promised, c):
			t.Fatalf("lane %q promises %s: %s", lane, c, oneLine(err))
		default:
			t.Skipf("NEEDS %s: %s", c, oneLine(err))
		}
	}
}

// promises lists what a lane promises.
func promises(lane string) ([]Capability, error) {
	switch lane {
	case "", "unit":
		return nil, nil
	case "root":
		return []Capability{Root, Fanotify, MountNS, NetNS, Loop, FUSE}, nil
	case "vm":
		return []Capability{QEMU}, nil
	case "vm-full":
		return []Capability{QEMU, Debootstrap, Signing}, nil
	case "all":
		return []Capability{
			Root, Fanotify, MountNS, NetNS, Loop, FUSE, ClamAV, YARA, GRUB, Python, GCC, Git, Signing,
			QEMU, CGroup1, Debootstrap,
		}, nil
	}
	return nil, fmt.Errorf("%s=%q: want unit, root, vm, vm-full or all", laneVariable, lane)
}

// oneLine keeps the summary's list of needs readable: a compiler's message has many lines.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
