package rescue

import (
	"context"
	"fmt"
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
		if id, err := settings.Identity(device, v.Type); err == nil && strings.EqualFold(id, v.ID) {
			return device
		}
	}
	return ""
}
