package event

import (
	"fmt"
	"time"
)

// Type says which act was observed. The zero value is not a valid type.
type Type uint8

// The event types. Open and Exec are auth events: the kernel holds the caller until there is a verdict.
// The others are notify events: they have already happened.
const (
	Open Type = iota + 1
	Exec
	CloseWrite
	Create
	Rename
	Delete
)

// typeNames maps the types to the words used in configuration, manifests and output.
var typeNames = [...]string{
	Open: "open", Exec: "exec", CloseWrite: "close-write", Create: "create", Rename: "rename", Delete: "delete",
}

// Types lists every valid type in order.
func Types() []Type { return []Type{Open, Exec, CloseWrite, Create, Rename, Delete} }

// Auth reports whether events of this type wait for a verdict.
func (t Type) Auth() bool { return t == Open || t == Exec }

// Valid reports whether t is one of the known types.
func (t Type) Valid() bool { return t >= Open && t <= Delete }

// String returns the configuration word, for example "close-write".
func (t Type) String() string {
	if !t.Valid() {
		return fmt.Sprintf("type(%d)", uint8(t))
	}
	return typeNames[t]
}

// MarshalText renders the configuration word.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (t *Type) UnmarshalText(b []byte) (err error) {
	*t, err = ParseType(string(b))
	return err
}

// ParseType is the inverse of Type.String for valid types.
func ParseType(word string) (Type, error) {
	for _, t := range Types() {
		if typeNames[t] == word {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown event type %q (known: open, exec, close-write, create, rename, delete)", word)
}

// Version identifies one version of one file's content. It is comparable, so it can key a map.
//
// Handle is the kernel's file handle (name_to_handle_at(2)): it survives renames and is never reused while
// the file system lives, unlike a path or an inode number. A store through a shared mapping may leave size
// and times unchanged (docs/limits.md), so equality is evidence of identity, not proof of equal bytes.
type Version struct {
	Dev     uint64 `json:"dev"`      // device number of the file system, as in stat(2)
	Handle  string `json:"-"`        // opaque bytes after the four-byte handle type; empty where unsupported
	Ino     uint64 `json:"ino"`      // inode number, the fallback where Handle is empty
	Size    int64  `json:"size"`     // bytes
	MtimeNS int64  `json:"mtime_ns"` // since 1970
	CtimeNS int64  `json:"ctime_ns"` // since 1970
}

// File is the object of an event.
type File struct {
	Version
	// Path is a hint: as seen from the platform's mount namespace; it may be stale, forged or empty.
	Path string `json:"path"`
	// PathUnsure says that the path was read through a mount that the platform does not know, which any user can
	// make, or could not be read: no decision may rest on it.
	PathUnsure bool   `json:"path_unsure,omitempty"`
	Mode       uint32 `json:"mode"` // st_mode
	UID        uint32 `json:"uid"`  // owner
	// SHA256 of the content in lower-case hex, where the platform computed it: for what it denied, and for providers
	// that subscribed to the digest.
	SHA256 string `json:"sha256,omitempty"`
}

// Process is who acts. Token is unique for the life of a boot where the kernel supports it (pidfs inode
// numbers, Linux 6.9); PID may be reused.
type Process struct {
	PID   int32  `json:"pid"`   // thread group id
	Token uint64 `json:"token"` // 0 where the kernel has no unique number
	PPID  int32  `json:"ppid"`  // 0 when unknown
	UID   uint32 `json:"uid"`   // real user id
	GID   uint32 `json:"gid"`   // real group id
	Comm  string `json:"comm"`  // command name, resolved after the verdict, for people; may be empty
}

// Event is one observed act.
type Event struct {
	ID    uint64    `json:"id"` // unique on a host, never 0; people see it in hexadecimal
	Type  Type      `json:"type"`
	Time  time.Time `json:"time"` // when the sensor read it
	Actor Process   `json:"actor"`
	File  File      `json:"file"`
	// Name is the entry's name for Create, Rename and Delete, whose File is then the directory; for Rename
	// it is the old name, and NewDir and NewName say where it went.
	Name    string `json:"name,omitempty"`
	NewDir  string `json:"new_dir,omitempty"` // path hint of the destination directory
	NewName string `json:"new_name,omitempty"`
}
