package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Where the guest keeps what must outlive its starts: its root is gone with each.
const (
	stateDisk  = "/dev/vdb"
	stateDir   = "/keeps"
	configFile = "/etc/keepout/keepout.yaml"
	ruinMark   = stateDir + "/ruin" // there until the configuration was ruined
	ruined     = "ruined"
)

// keepState puts the folders of a system that outlive its starts where they belong.
func keepState() error {
	mount(stateDisk, stateDir, "ext4")
	for from, to := range map[string]string{
		stateDir + "/etc": "/etc/keepout", stateDir + "/var": "/var/lib/keepout",
	} {
		if err := errors.Join(os.MkdirAll(from, 0o755), os.MkdirAll(to, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", to, err)
		}
	}
	return nil
}

// configured is a system that a broken configuration ends. Its first boot is good; then somebody breaks it.
func configured() error {
	text, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	say("guest: the configuration is %s", hex.EncodeToString(sum[:]))
	if strings.Contains(string(text), ruined) {
		say("guest: it ends the machine")
		unix.Sync()
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0o600)
	}
	if err := healthy(); err != nil {
		return err
	}
	if _, err := os.Stat(ruinMark); errors.Is(err, fs.ErrNotExist) {
		return nil // it was ruined, and given back
	}
	if err := errors.Join(os.WriteFile(configFile, []byte(ruined+"\n"), 0o644), os.Remove(ruinMark)); err != nil {
		return err
	}
	say("guest: somebody ruins the configuration")
	unix.Sync()
	if err := errors.Join(unix.Unmount(efi, 0), unix.Unmount("/boot", 0)); err != nil {
		return err
	}
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
