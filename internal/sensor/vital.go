package sensor

import (
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
)

// DefaultVital is what no provider may ever deny, because a host without it cannot be repaired: init, shells,
// the dynamic loader and C library, login and privilege tools, and package tools. Paths that do not exist are
// passed over; links are followed.
func DefaultVital() []string {
	return []string{
		"/sbin/init", "/lib/systemd/systemd", "/lib/systemd/systemd-executor",
		"/bin/sh", "/bin/bash", "/bin/dash", "/bin/busybox",
		"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1",
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6",
		"/bin/login", "/sbin/agetty", "/usr/bin/sudo", "/bin/su", "/usr/sbin/sshd",
		"/bin/mount", "/bin/umount", "/bin/systemctl", "/sbin/reboot",
		"/usr/bin/dpkg", "/usr/bin/apt-get", "/usr/bin/rpm", "/usr/bin/dnf",
	}
}

// vitalKey identifies a vital object across changes of its content, which only root can make.
type vitalKey struct {
	dev, ino uint64
}

// vitalSet is the resolved vital set. Resolve replaces it as a whole.
type vitalSet struct {
	set   atomic.Pointer[map[vitalKey]struct{}]
	paths atomic.Pointer[map[string]struct{}] // with all links followed
	own   atomic.Pointer[[]string]            // the platform's own files and folders, with all links followed
}

// protect makes everything vital that lies at or below paths, which are the platform's own. As with all that is vital,
// what others than root can change is left out: a provider's own state, for example.
func (v *vitalSet) protect(paths []string) {
	var own []string
	for _, path := range paths {
		if to, err := filepath.EvalSymlinks(path); err == nil {
			path = to
		}
		if filepath.IsAbs(path) && filepath.Clean(path) != "/" {
			own = append(own, filepath.Clean(path))
		}
	}
	v.own.Store(&own)
}

// ours reports whether a path is one of the platform's own.
func (v *vitalSet) ours(path string) bool {
	own := v.own.Load()
	if own == nil {
		return false
	}
	for _, o := range *own {
		if rest, ok := strings.CutPrefix(path, o); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// resolve looks the paths up. An object that anybody but root can write is left out: being vital must not be a
// way around the engines.
func (v *vitalSet) resolve(paths []string) {
	set := map[vitalKey]struct{}{}
	places := map[string]struct{}{}
	for _, path := range paths {
		if to, err := filepath.EvalSymlinks(path); err == nil {
			places[to] = struct{}{}
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Uid == 0 && st.Mode&0o022 == 0 {
			set[vitalKey{st.Dev, st.Ino}] = struct{}{}
		}
	}
	v.set.Store(&set)
	v.paths.Store(&places)
}

func (v *vitalSet) has(f *event.File) bool {
	// Ownership is checked again: an inode number can be given to another file after the set was resolved.
	if f.UID != 0 || f.Mode&0o022 != 0 {
		return false
	}
	key := vitalKey{f.Dev, f.Ino}
	if _, ok := (*v.set.Load())[key]; ok {
		return true
	}
	// A package upgrade puts a new file in the place of a vital one. The path alone proves nothing; that our own look
	// at it finds this very file does.
	if paths := v.paths.Load(); paths == nil {
		return false
	} else if _, ok := (*paths)[f.Path]; !ok && !v.ours(f.Path) {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(f.Path, &st) == nil && vitalKey{st.Dev, st.Ino} == key
}
