package sensor

import (
	"encoding/binary"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// observe turns one notify event into what providers see. One kernel event may carry several acts.
func (s *Sensor) observe(_ *fanotify.Group, raw fanotify.Event, now time.Time) {
	if raw.Mask&fanotify.Overflow != 0 {
		if s.scope.Load().notifies() {
			s.counts.overflows.Add(1)
		} else {
			s.counts.unoffered.Add(1) // what was lost were files to be shown to providers, which costs no protection
		}
		return
	}
	defer closeFD(raw.PIDFD)
	if raw.PID == s.self {
		return
	}
	who := actorBehind(raw.PID, raw.PIDFD)
	if s.provider(who.UID) {
		return
	}
	f := s.scope.Load().byFSID(raw.Dir.Dir.FSID)
	if f == nil {
		return
	}
	if raw.Mask&fanotify.CloseWrite != 0 && f.prescanned() {
		s.offered(offer{raw.Target, who, now})
	}
	for _, t := range []event.Type{event.Create, event.Rename, event.CloseWrite, event.Delete} {
		if raw.Mask&notifyBits[t] == 0 || !s.judge.Wants(t) || !f.watches(t) {
			continue
		}
		ev := event.Event{Type: t, Time: now, Actor: who, Name: raw.Dir.Name}
		mount := s.locate(f, &raw, &ev)
		if !f.covers(t, path.Join(ev.File.Path, ev.Name), mount) {
			continue
		}
		ev.ID = s.nextID.Add(1)
		s.judge.Observe(&ev)
	}
}

// locate fills in the file and the paths, as far as they can still be found, and returns the mount.
func (s *Sensor) locate(f *filesystem, raw *fanotify.Event, ev *event.Event) (mount uint64) {
	root, err := unix.Open(f.path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer closeFD(root)
	var room names // the event keeps it
	what := raw.Dir.Dir
	if ev.Type == event.CloseWrite {
		what, ev.Name = raw.Target, ""
	}
	ev.File.Dev, ev.File.Handle = f.dev, handleKey(what)
	if fd, err := openHandle(root, what, unix.O_PATH); err == nil {
		if obj, err := identify(fd, &room); err == nil {
			obj.Handle = ev.File.Handle
			ev.File, mount = obj.File, obj.mount
		}
		ev.File.Path = strings.Clone(pathHint(fd, &room))
		closeFD(fd)
	}
	if raw.HasMove && ev.Type == event.Rename {
		ev.NewName = raw.NewDir.Name
		if fd, err := openHandle(root, raw.NewDir.Dir, unix.O_PATH); err == nil {
			ev.NewDir = strings.Clone(pathHint(fd, &room))
			closeFD(fd)
		}
	}
	return mount
}

// handleKey renders a handle as identify does: type, then bytes.
func handleKey(h fanotify.Handle) string {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(h.Type))
	return string(b[:]) + h.Bytes
}

// openHandle opens by handle. With O_PATH it reads nothing and raises no event.
func openHandle(root int, h fanotify.Handle, flags uintptr) (int, error) {
	if len(h.Bytes) > maxHandle {
		return -1, unix.EINVAL
	}
	var b [8 + maxHandle]byte
	binary.NativeEndian.PutUint32(b[:], uint32(len(h.Bytes)))
	binary.NativeEndian.PutUint32(b[4:], uint32(h.Type))
	copy(b[8:], h.Bytes)
	fd, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(root), uintptr(unsafe.Pointer(&b[0])),
		flags|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
