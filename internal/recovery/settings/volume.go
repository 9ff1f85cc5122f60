package settings

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

var errOther = errors.New("another file system")

// Identity reads a file system's identity as blkid shows it.
func Identity(device, kind string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 4096)
	if _, err := io.ReadFull(f, head); err != nil {
		return "", err
	}
	return identityOf(head, kind)
}

// identityOf reads it from the first 4096 bytes. FAT: the boot sector's serial number, which lies elsewhere on FAT32
// (Microsoft's FAT specification, BS_VolID). ext4: the superblock's s_uuid at 0x68 of byte 1024.
func identityOf(head []byte, kind string) (string, error) {
	switch kind {
	case "vfat":
		if head[510] != 0x55 || head[511] != 0xaa {
			return "", errOther
		}
		serial := head[0x27:0x2b]
		if string(head[0x52:0x57]) == "FAT32" {
			serial = head[0x43:0x47]
		} else if string(head[0x36:0x39]) != "FAT" {
			return "", errOther
		}
		return fmt.Sprintf("%02X%02X-%02X%02X", serial[3], serial[2], serial[1], serial[0]), nil
	case "ext4":
		if head[1024+0x38] != 0x53 || head[1024+0x39] != 0xef {
			return "", errOther
		}
		u := hex.EncodeToString(head[1024+0x68 : 1024+0x78])
		return u[:8] + "-" + u[8:12] + "-" + u[12:16] + "-" + u[16:20] + "-" + u[20:], nil
	}
	return "", errOther
}

// VolumeOf says on which file system a folder of the running system lies, and where there.
func VolumeOf(dir string) (Volume, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Volume{}, err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Volume{}, err
	}
	m := mountOf(string(table), dir)
	if m.kind != "vfat" && m.kind != "ext4" {
		return Volume{}, fmt.Errorf("%s lies on %q; the recovery environment reads vfat and ext4", dir, m.kind)
	}
	id, err := Identity(m.source, m.kind)
	if err != nil {
		return Volume{}, fmt.Errorf("the identity of %s: %w", m.source, err)
	}
	rest, err := filepath.Rel(m.point, dir)
	if err != nil {
		return Volume{}, err
	}
	return Volume{Type: m.kind, ID: id, Dir: rest}, nil
}

type mount struct{ point, kind, source string }

// mountOf finds the mount that a path lies on: the longest mount point above it (proc_pid_mountinfo(5)).
func mountOf(table, dir string) (best mount) {
	for line := range strings.Lines(table) {
		left, right, found := strings.Cut(line, " - ")
		fields, after := strings.Fields(left), strings.Fields(right)
		if !found || len(fields) < 5 || len(after) < 2 {
			continue
		}
		point := strings.ReplaceAll(fields[4], `\040`, " ")
		under := dir == point || strings.HasPrefix(dir, strings.TrimSuffix(point, "/")+"/")
		if under && len(point) >= len(best.point) {
			best = mount{point: point, kind: after[0], source: after[1]}
		}
	}
	return best
}
