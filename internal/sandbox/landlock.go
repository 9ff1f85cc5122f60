package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// minLandlock is the first version that also governs truncation (Linux 6.2); an older one is not worth its rules.
const minLandlock = 3

// landlockVersion is the kernel's, or why it has none that is of use.
var landlockVersion = sync.OnceValues(func() (int, error) {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0, fmt.Errorf("the kernel has none: %w", err)
	}
	if version < minLandlock {
		return 0, fmt.Errorf("version %d, want %d", version, minLandlock)
	}
	return version, nil
})

// landlockPresets is all that each version of Landlock can govern, from version 1 on.
func landlockPresets() []landlock.Config {
	return []landlock.Config{
		landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6, landlock.V7, landlock.V8,
		landlock.V9, landlock.V10, landlock.V11,
	}
}

// What a provider may do below a folder.
const (
	mayRead    = ll.AccessFSReadFile | ll.AccessFSReadDir
	mayExecute = mayRead | ll.AccessFSExecute
	mayWrite   = mayRead | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile |
		ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeSym |
		ll.AccessFSRefer
	mayConnect = ll.AccessFSResolveUnix

	ofFiles = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate |
		ll.AccessFSResolveUnix
)

// ruleset is a set of Landlock rules in the making.
type ruleset struct {
	fd      int
	handled uint64 // rights on files that it governs
}

// landlocked lets this thread, and with it the provider, have only what was granted, whatever mounts and identities
// say; and no signal, abstract socket or TCP port outside. Only this thread needs it, because it goes on to execve(2).
func landlocked(l launch) error {
	version, err := landlockVersion()
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	presets := landlockPresets()
	all := presets[min(version, len(presets))-1]
	attr := ll.RulesetAttr{
		HandledAccessFS: uint64(all.HandledAccessFS), HandledAccessNet: uint64(all.HandledAccessNet),
		Scoped: uint64(all.Scoped),
	}
	if l.Network {
		attr.HandledAccessNet = 0
	}
	fd, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("landlock_create_ruleset: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	r := ruleset{fd: fd, handled: attr.HandledAccessFS}
	if err := r.fill(l); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	// The kernel wants either this or a capability that a provider's user may not have.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := ll.LandlockRestrictSelf(fd, 0); err != nil {
		return fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return nil
}

// fill adds a rule for all that was granted.
func (r ruleset) fill(l launch) error {
	var errs []error
	for _, path := range l.Mounts {
		errs = append(errs, r.allow(mayExecute, path))
	}
	if isScript() && l.Layers.has(LayerMount) && !slices.Contains(l.Mounts, ProcPath) {
		errs = append(errs, r.allow(mayRead, ProcPath))
	}
	for _, path := range l.Sockets {
		errs = append(errs, r.allow(ll.AccessFSReadDir|mayConnect, filepath.Dir(path)))
	}
	for _, path := range devices {
		errs = append(errs, r.allow(ll.AccessFSReadFile|ll.AccessFSWriteFile, path))
	}
	errs = append(errs, r.allow(mayRead, l.Content), r.allow(mayWrite|mayConnect, l.StateDir),
		r.add(ll.AccessFSExecute|ll.AccessFSReadFile, programFD))
	return errors.Join(errs...)
}

// allow grants access below a path. What is missing, or out of the user's reach, needs no rule.
func (r ruleset) allow(access uint64, path string) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	return r.add(access, fd)
}

func (r ruleset) add(access uint64, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFiles
	}
	if access &= r.handled; access == 0 {
		return nil
	}
	rule := ll.PathBeneathAttr{AllowedAccess: access, ParentFd: fd}
	if err := ll.LandlockAddPathBeneathRule(r.fd, &rule, 0); err != nil {
		return fmt.Errorf("landlock_add_rule: %w", err)
	}
	return nil
}
