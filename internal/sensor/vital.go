package sensor

import (
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
	set atomic.Pointer[map[vitalKey]struct{}]
}

// resolve looks the paths up. An object that anybody but root can write is left out: being vital must not be a
// way around the engines.
func (v *vitalSet) resolve(paths []string) {
	set := map[vitalKey]struct{}{}
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Uid == 0 && st.Mode&0o022 == 0 {
			set[vitalKey{st.Dev, st.Ino}] = struct{}{}
		}
	}
	v.set.Store(&set)
}

func (v *vitalSet) has(f *event.File) bool {
	// Ownership is checked again: an inode number can be given to another file after the set was resolved.
	if f.UID != 0 || f.Mode&0o022 != 0 {
		return false
	}
	_, ok := (*v.set.Load())[vitalKey{f.Dev, f.Ino}]
	return ok
}
