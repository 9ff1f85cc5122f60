package sandbox

// FirstUID is the start of the range from which providers get their user ids: provider slot n runs as
// FirstUID + n. The range 1879048192 to 2147483647 is one that nothing else assigns from
// (systemd, docs/UIDS-GIDS.md), so an id in it marks a provider's process without any doubt.
const FirstUID = 2068840448

// MaxProviders bounds the range of user ids.
const MaxProviders = 64

// IsProvider reports whether uid is in the range of providers.
func IsProvider(uid uint32) bool { return uid >= FirstUID && uid < FirstUID+MaxProviders }

// Limits bound one provider. Zero means the default of the kernel.
type Limits struct {
	Memory    uint64 `json:"memory"`    // bytes of private writable memory (RLIMIT_DATA)
	Processes uint64 `json:"processes"` // processes and threads (RLIMIT_NPROC)
	Files     uint64 `json:"files"`     // open descriptors (RLIMIT_NOFILE)
}

// Spec says what to start.
type Spec struct {
	Program  string // path, for argv[0] and messages; what is executed is the descriptor
	Slot     int    // 0 to MaxProviders-1, decides the user id
	StateDir string // created for the provider, 0700
	Limits   Limits
}

// Confinement says what a started provider was confined by, for status and logs.
type Confinement struct {
	User    bool `json:"user"`    // runs under a user id of its own
	PIDs    bool `json:"pids"`    // has a pid namespace of its own
	NoNew   bool `json:"no_new"`  // can never gain privileges
	Reduced bool `json:"reduced"` // not root: only what an ordinary user can give up
}

// launch is what the launcher reads from its descriptor.
type launch struct {
	Program string `json:"program"`
	UID     uint32 `json:"uid"` // 0: keep the user
	Limits  Limits `json:"limits"`
}

// Descriptors of the launcher. The provider keeps 0 to 4.
const (
	authFD    = 3
	controlFD = 4
	programFD = 5
	launchFD  = 6
)

// launcherName is argv[0] of the launcher; IsLauncher looks for it.
const launcherName = "keepout-launch"
