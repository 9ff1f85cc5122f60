package rescue

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/recovery/settings"
)

const volumeWait = 15 * time.Second // until the disk shows up: USB and RAID controllers take their time

// mountVolume waits for the file system and mounts it. It mounts nothing else: a file system is known by its identity,
// read from the disk, before it is mounted.
func mountVolume(ctx context.Context, v settings.Volume, at string) error {
	ctx, cancel := context.WithTimeout(ctx, volumeWait)
	defer cancel()
	for {
		if device := findVolume(v, "/sys/class/block", "/dev"); device != "" {
			return mountDevice(device, v.Type, at)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no disk has the %s file system %s on which the boot state lies", v.Type, v.ID)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func mountDevice(device, kind, at string) error {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	options := ""
	if kind == "vfat" {
		options = "umask=0077,errors=remount-ro"
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(device, at, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s as %s: %w", device, kind, err)
	}
	return nil
}

// findVolume looks through all block devices, partitions or not.
func findVolume(v settings.Volume, sys, dev string) string {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "ram") || strings.HasPrefix(e.Name(), "loop") {
			continue
		}
		device := filepath.Join(dev, e.Name())
		if id, err := identity(device, v.Type); err == nil && strings.EqualFold(id, v.ID) {
			return device
		}
	}
	return ""
}

var errOther = errors.New("another file system")

// identity reads a file system's identity as blkid shows it.
func identity(device, kind string) (string, error) {
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
