//go:build linux

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// vendor is the GUID of systemd's loader variables.
const vendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// EFI variable attributes: non-volatile, boot service access, run-time access (UEFI specification 8.2).
const attributes = 0x7

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// maxVariable bounds what is read, in bytes.
const maxVariable = 4096

// Variables are the EFI variables of systemd's loader interface, below a folder that is efivarfs.
type Variables struct{ Dir string }

func (v Variables) path(name string) string { return filepath.Join(v.Dir, name+"-"+vendor) }

// Get reads a variable as text. The error matches fs.ErrNotExist when it is not set, or there is no EFI.
func (v Variables) Get(name string) (string, error) {
	f, err := os.Open(v.path(name))
	if err != nil {
		return "", fmt.Errorf("EFI variable: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxVariable))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return decodeText(data)
}

// decodeText takes off the attributes and reads UTF-16 up to its end.
func decodeText(data []byte) (string, error) {
	if len(data) < 4 || len(data)%2 != 0 {
		return "", errors.New("it is no EFI variable of text")
	}
	var units []uint16
	for data = data[4:]; len(data) >= 2; data = data[2:] {
		u := binary.LittleEndian.Uint16(data)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}

// encodeText is the content of a variable's file: attributes, then UTF-16 with its end.
func encodeText(text string) []byte {
	out := binary.LittleEndian.AppendUint32(nil, attributes)
	for _, u := range utf16.Encode([]rune(text + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// Set writes a variable. efivarfs makes variables immutable that it does not know to be harmless; that is taken off
// first. A full NVRAM answers ENOSPC.
func (v Variables) Set(name, text string) error {
	path := v.path(name)
	if err := mutable(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("EFI variable: %w", err)
	}
	_, err = f.Write(encodeText(text)) // one write is one call of the firmware
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return nil
}

// mutable takes the immutable flag off. A file system without flags has none to take off.
func mutable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	fd := int(f.Fd())
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	switch {
	case errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL):
		err = nil
	case err == nil && flags&immutable != 0:
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^immutable)
	}
	return errors.Join(err, f.Close())
}
