package fanotify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// NoFD stands for a descriptor that an event does not carry.
const NoFD = -1

// Event is one event as the kernel reports it.
type Event struct {
	Mask  uint64
	PID   int32 // thread group id of the actor; 0 when it is outside our pid namespace
	File  int   // descriptor of the object (permission groups), or NoFD
	PIDFD int   // descriptor of the actor, or NoFD when it has already been reaped

	// Notify groups only.
	Dir, NewDir Entry  // where it happened; NewDir for Rename
	Target      Handle // the object itself
	HasMove     bool   // NewDir is set
}

// Entry is a name in a directory.
type Entry struct {
	Dir  Handle
	Name string
}

// Handle is a file handle as from name_to_handle_at(2), and the file system it belongs to.
type Handle struct {
	FSID  [2]int32
	Type  int32
	Bytes string
}

// Sizes of the kernel's structures; linux/fanotify.h.
const (
	metadataLen   = 24
	infoHeaderLen = 4
	handleHeader  = 8 // handle_bytes and handle_type of struct file_handle
)

// ErrFormat reports bytes that are not fanotify events of the version this package knows.
var ErrFormat = errors.New("malformed fanotify event")

// Parse decodes the first event in buf and returns the rest. Whatever descriptors an event names are the
// caller's to close, also when the error is not nil.
func Parse(buf []byte) (ev Event, rest []byte, err error) {
	ev = Event{File: NoFD, PIDFD: NoFD}
	if len(buf) < metadataLen {
		return ev, nil, fmt.Errorf("%w: %d bytes left, metadata has %d", ErrFormat, len(buf), metadataLen)
	}
	length := int(binary.NativeEndian.Uint32(buf))
	header := int(binary.NativeEndian.Uint16(buf[6:]))
	ev.Mask = binary.NativeEndian.Uint64(buf[8:])
	ev.File = max(int(int32(binary.NativeEndian.Uint32(buf[16:]))), NoFD) // an error number where there is none
	ev.PID = int32(binary.NativeEndian.Uint32(buf[20:]))
	if version := buf[4]; version != unix.FANOTIFY_METADATA_VERSION {
		return ev, nil, fmt.Errorf("%w: version %d, want %d", ErrFormat, version, unix.FANOTIFY_METADATA_VERSION)
	}
	if header < metadataLen || length < header || length > len(buf) {
		return ev, nil, fmt.Errorf("%w: length %d, header %d, have %d", ErrFormat, length, header, len(buf))
	}
	err = parseInfo(&ev, buf[header:length])
	return ev, buf[length:], err
}

// parseInfo reads the information records behind the metadata. Unknown records are skipped.
func parseInfo(ev *Event, info []byte) error {
	for len(info) > 0 {
		if len(info) < infoHeaderLen {
			return fmt.Errorf("%w: %d bytes left, a record header has %d", ErrFormat, len(info), infoHeaderLen)
		}
		length := int(binary.NativeEndian.Uint16(info[2:]))
		if length < infoHeaderLen || length > len(info) {
			return fmt.Errorf("%w: record of %d bytes, have %d", ErrFormat, length, len(info))
		}
		if err := parseRecord(ev, info[0], info[infoHeaderLen:length]); err != nil {
			return err
		}
		info = info[length:]
	}
	return nil
}

func parseRecord(ev *Event, kind byte, body []byte) error {
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_PIDFD:
		if len(body) < 4 {
			return fmt.Errorf("%w: pidfd record of %d bytes", ErrFormat, len(body))
		}
		ev.PIDFD = max(int(int32(binary.NativeEndian.Uint32(body))), NoFD)
	case unix.FAN_EVENT_INFO_TYPE_FID:
		h, _, err := parseHandle(body)
		ev.Target = h
		return err
	case unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME,
		unix.FAN_EVENT_INFO_TYPE_DFID:
		h, name, err := parseHandle(body)
		ev.Dir = Entry{Dir: h, Name: name}
		return err
	case unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		h, name, err := parseHandle(body)
		ev.NewDir, ev.HasMove = Entry{Dir: h, Name: name}, true
		return err
	}
	return nil
}

// parseHandle reads fsid, file_handle and the name that may follow.
func parseHandle(body []byte) (h Handle, name string, err error) {
	if len(body) < 8+handleHeader {
		return h, "", fmt.Errorf("%w: file id record of %d bytes", ErrFormat, len(body))
	}
	h.FSID = [2]int32{int32(binary.NativeEndian.Uint32(body)), int32(binary.NativeEndian.Uint32(body[4:]))}
	size := int(binary.NativeEndian.Uint32(body[8:]))
	h.Type = int32(binary.NativeEndian.Uint32(body[12:]))
	body = body[8+handleHeader:]
	if size < 0 || size > len(body) {
		return h, "", fmt.Errorf("%w: handle of %d bytes, have %d", ErrFormat, size, len(body))
	}
	h.Bytes = string(body[:size])
	name, _, _ = strings.Cut(string(body[size:]), "\x00") // the record is padded with zero bytes
	return h, name, nil
}
