package sandbox

import (
	"io"
	"slices"
)

// FirstUID is the start of the range from which providers get their user ids: provider slot n runs as
// FirstUID + n. The range 1879048192 to 2147483647 is one that nothing else assigns from
// (systemd, docs/UIDS-GIDS.md), so an id in it marks a provider's process without any doubt.
const FirstUID = 2068840448

// MaxProviders bounds the range of user ids.
const MaxProviders = 64

// IsProvider reports whether uid is in the range of providers.
func IsProvider(uid uint32) bool { return uid >= FirstUID && uid < FirstUID+MaxProviders }

// ProcPath in Spec.Mounts asks for a procfs that shows the provider's own processes and nothing else.
const ProcPath = "/proc"

// Limits bound one provider. Zero means the default of the kernel.
type Limits struct {
	Memory    uint64 `json:"memory"`    // bytes of all its processes (control group), private ones of each (RLIMIT_DATA)
	CPU       uint64 `json:"cpu"`       // percent of one processor (control group)
	Processes uint64 `json:"processes"` // processes and threads (control group and RLIMIT_NPROC)
	Files     uint64 `json:"files"`     // open descriptors (RLIMIT_NOFILE)
	State     uint64 `json:"state"`     // bytes in the state folder: of one file (RLIMIT_FSIZE), and of all (watched)
}

// Spec says what to start.
type Spec struct {
	Program  string    // path, for argv[0] and messages; what is executed is the descriptor
	Slot     int       // 0 to MaxProviders-1, decides the user id
	StateDir string    // created for the provider, 0700; the only folder that it may write to
	Content  string    // readable at its own path; empty: none
	Mounts   []string  // paths of the host that it may read and execute, at their own place; or ProcPath
	Sockets  []string  // AF_UNIX sockets that it may connect to
	Network  bool      // the host's network
	Limits   Limits    // bounds
	Groups   *Groups   // makes its control group; nil: it has none
	Log      io.Writer // gets what it writes to standard error, as it comes; nil: nobody
	Only     Layers    // for tests and measurements: no other layer than these; 0: all
}

// Layers is a set of parts of the cage.
type Layers uint32

// The layers, in the order in which Confinement lists them.
const (
	LayerUser     Layers = 1 << iota // a user id of its own, in a user namespace of its own
	LayerMount                       // an empty root
	LayerPID                         // a pid namespace
	LayerNet                         // a network namespace without a network
	LayerIPC                         // namespaces of System V IPC and of the host's name
	LayerCgroup                      // control groups and their namespace
	LayerCaps                        // no capabilities
	LayerNoNew                       // no_new_privs
	LayerLandlock                    // Landlock
	LayerSeccomp                     // a list of allowed system calls
	LayerLimits                      // resource limits
	layerEnd
)

// AllLayers is the whole cage.
const AllLayers = layerEnd - 1

// unprivileged are the layers that an ordinary user can put on.
const unprivileged = LayerNoNew | LayerLandlock | LayerSeccomp | LayerLimits

// NoLayers runs a program as the launcher was started: only for tests that show what the cage is for.
const NoLayers = layerEnd

var layerNames = []string{
	"user", "mount", "pid", "net", "ipc", "cgroup", "capabilities", "no_new_privs", "landlock", "seccomp", "rlimits",
}

func (l Layers) has(one Layers) bool { return l&one != 0 }

// Layer is one part of a provider's cage.
type Layer struct {
	Name  string `json:"name"`
	Holds bool   `json:"holds"`
	Why   string `json:"why,omitempty"` // it does not, or not in full
}

// Confinement says what a started provider is confined by, for status and logs.
type Confinement struct {
	User    bool    `json:"user"`    // runs under a user id of its own
	PIDs    bool    `json:"pids"`    // has a pid namespace of its own
	NoNew   bool    `json:"no_new"`  // can never gain privileges
	Reduced bool    `json:"reduced"` // a layer does not hold in full, and not because it was granted
	Layers  []Layer `json:"layers,omitempty"`
}

func (c Confinement) has(one Layers) bool {
	for i, l := range c.Layers {
		if one == 1<<i {
			return l.Holds
		}
	}
	return false
}

// Missing names the layers that do not hold in full, with the reason, in a line for people each. What was granted is
// not missing.
func (c Confinement) Missing() (lines []string) {
	for _, l := range c.Layers {
		if l.Why != "" && l.Why != granted {
			lines = append(lines, l.Name+": "+l.Why)
		}
	}
	return lines
}

// Weak reports whether a layer is missing that no other one makes up for: the user id, the root or the network, the
// capabilities, or the list of system calls.
func (c Confinement) Weak() bool {
	return slices.ContainsFunc(c.Layers, func(l Layer) bool {
		essential := slices.Contains([]string{"user", "mount", "pid", "net", "capabilities", "seccomp"}, l.Name)
		return essential && !l.Holds && l.Why != granted
	})
}

// granted is why a layer does not hold that the administrator lifted.
const granted = "granted"

// launch is what the launcher reads from its descriptor.
type launch struct {
	Program  string   `json:"program"`
	Layers   Layers   `json:"layers"`
	Userns   bool     `json:"userns"` // it was started in a user namespace, as the user
	UID      uint32   `json:"uid"`    // 0: keep the user
	Limits   Limits   `json:"limits"`
	StateDir string   `json:"state_dir"`
	Content  string   `json:"content"`
	Mounts   []string `json:"mounts"`
	Sockets  []string `json:"sockets"`
	Network  bool     `json:"network"`
	Cgroup   bool     `json:"cgroup"` // it was put into a control group before this was written
	Probe    bool     `json:"probe"`  // only try: end with success where the program would be executed
}

// Descriptors of the launcher. The provider keeps 0 to 4.
const (
	authFD    = 3
	controlFD = 4
	programFD = 5
	launchFD  = 6
	imageFD   = 7
)

// launcherName is argv[0] of the launcher; IsLauncher looks for it.
const launcherName = "keepout-launch"
