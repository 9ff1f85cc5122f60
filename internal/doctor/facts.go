package doctor

import (
	"io/fs"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/crash"
)

// facts is everything that the checks look at.
type facts struct {
	version string // of this command
	runDir  string
	now     time.Time

	unreachable error // why the core did not answer, or nil
	status      *control.Status
	checkup     *control.Checkup // nil when the core is older than the request
	checkupErr  error
	after       *control.Status // when the canaries were done; may be nil

	guard  guardFacts
	trials []trial
	socket socketFacts
	kernel kernelFacts
	host   hostFacts
}

// trial is one canary: who shall deny it, what was done with it, and what the core recorded.
type trial struct {
	provider string // whose self-test object it is; "" for a harmless file
	watch    string // as configured
	act      event.Type
	content  []byte

	path    string // where it lies
	skipped string // why nothing was done, or ""
	refused bool   // the kernel said EPERM
	record  *event.Record
}

// guardFacts describes the guard's process.
type guardFacts struct {
	err    error  // it or the core cannot be looked at
	name   string // of the process that the core names
	parent int    // of the core
	locked bool   // some of its memory
}

// socketFacts describes the admin socket.
type socketFacts struct {
	path     string
	err      error // it cannot be looked at
	mode     fs.FileMode
	uid, gid uint32
	group    int         // number of the group keepout, or -1 without one
	dirMode  fs.FileMode // of the folder
}

// kernelFacts describes the kernel.
type kernelFacts struct {
	release     string
	events      error  // why permission events are not to be had, or nil
	eventsUntry string // why that was not tried, or ""
	landlock    int    // ABI, or 0
	landlockErr error
	seccomp     string // actions, as /proc/sys/kernel/seccomp/actions_avail has them
	seccompErr  error
	userns      int // user namespaces that may be made
	usernsErr   error
	lsm         string // active security modules
	lsmErr      error
	cgroup      int // 2, 1, or 0 for none
}

// hostFacts describes what else the core depends on.
type hostFacts struct {
	state      diskFacts
	clock      clockFacts
	fileOpen   uint64 // open files of all processes
	fileMax    uint64 // fs.file-max
	fileNrErr  error
	stateFound bool           // whether state was looked at
	crashes    []crash.Record // failures to start, the newest first
}

// diskFacts is one file system; bytes and inodes that are not reserved for root.
type diskFacts struct {
	path                 string
	err                  error
	free, total          uint64
	freeInodes, maxInode uint64 // maxInode 0: the file system has no fixed number
}

// clockFacts is what the clocks say.
type clockFacts struct {
	suspended time.Duration // since the boot
	synced    bool
	syncErr   error
}
