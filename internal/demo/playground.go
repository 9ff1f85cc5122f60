package demo

import (
	"crypto/md5" //nolint:gosec // the format of ClamAV's signatures, no secret hangs on it
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The names below the folder of a demonstration.
const (
	playgroundDir = "playground" // the file system that is watched
	contentDir    = "content"    // what the engines look for
	stateDir      = "state"
	runDir        = "run"
	configFile    = "keepout.yaml"
	logFile       = "keepoutd.log"

	eicarFile = playgroundDir + "/eicar.com"
	otherFile = playgroundDir + "/invoice.com" // the EICAR with a word added, which no list of digests knows
	helloFile = playgroundDir + "/hello"
)

// playgroundSize bounds the tmpfs.
const playgroundSize = "64m"

// notes is how many harmless files lie on the playground.
const notes = 8

// eicar returns the test file that every antivirus product knows (https://www.eicar.org). It is harmless. It
// is put together at run time: neither this source nor the program is to be taken for it.
func eicar() []byte {
	sample := []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$`)
	sample = append(sample, eicarMarker...)
	return append(sample, `!$H+H*`...)
}

const eicarMarker = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE"

// entrusted proves that Run made dir for this process: it holds the lock in it, and has a mount namespace
// that it does not share with its parent. Nothing is mounted or removed before that is known.
func entrusted(dir string) error {
	var held, there unix.Stat_t
	if err := unix.Fstat(lockFD, &held); err != nil {
		return fmt.Errorf("the folder's lock: %w; start it with: keepout demo", err)
	}
	if err := unix.Lstat(filepath.Join(dir, lockName), &there); err != nil {
		return fmt.Errorf("the folder's lock: %w; start it with: keepout demo", err)
	}
	if held.Dev != there.Dev || held.Ino != there.Ino {
		return errors.New("the folder belongs to another; start it with: keepout demo")
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read the mount namespace: %w", err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil {
		return fmt.Errorf("read the mount namespace: %w", err)
	}
	if ours == theirs {
		return errors.New("not in a mount namespace of its own; start it with: keepout demo")
	}
	unix.CloseOnExec(lockFD) // only the two of us hold the folder
	return nil
}

// mountPlayground mounts a tmpfs below dir. Preconditions: the process is entrusted with dir.
func mountPlayground(dir string) error {
	path := filepath.Join(dir, playgroundDir)
	if err := os.Mkdir(path, 0o755); err != nil {
		return fmt.Errorf("playground: %w", err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("playground", path, "tmpfs", flags, "mode=0755,size="+playgroundSize); err != nil {
		return fmt.Errorf("mount the playground: %w", err)
	}
	return nil
}

// unmountPlayground takes it away even while a program has a file of it open.
func unmountPlayground(dir string) error {
	err := unix.Unmount(filepath.Join(dir, playgroundDir), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: it was never mounted
		return fmt.Errorf("unmount the playground: %w", err)
	}
	return nil
}

// furnish writes the files of the playground, the engines' content and the configuration.
func furnish(dir string, ids []string) error {
	sample := eicar()
	files := map[string]string{
		eicarFile: string(sample),
		otherFile: string(sample) + "invoice\n",
		helloFile: "#!/bin/sh\necho \"hello, I am $0\"\n",
		contentDir + "/hashlist/deny.txt": fmt.Sprintf("%x Eicar-Test-File\n",
			sha256.Sum256(sample)),
		contentDir + "/clamav/demo.hdb": fmt.Sprintf("%x:%d:Eicar-Test-Signature\n",
			md5.Sum(sample), len(sample)), //nolint:gosec // as above
		contentDir + "/yara/demo.yar": fmt.Sprintf(
			"rule Eicar_Test_String {\n  strings:\n    $marker = %q\n  condition:\n    $marker\n}\n", eicarMarker),
		configFile: configText(dir, ids),
	}
	for i := range notes {
		files[noteFile(i)] = fmt.Sprintf("note %d: nothing to see here\n", i)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("furnish: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, helloFile), 0o755); err != nil {
		return fmt.Errorf("furnish: %w", err)
	}
	return nil
}

func noteFile(i int) string { return fmt.Sprintf("%s/note-%d.txt", playgroundDir, i%notes) }

// configText is the configuration: everything enforces.
func configText(dir string, ids []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nmode: enforce\nwatch:\n  - {path: %q, events: [open, exec]}\nproviders:\n",
		filepath.Join(dir, playgroundDir))
	for _, id := range ids {
		fmt.Fprintf(&b, "  - {id: %s, mode: enforce, content: %q}\n", id, filepath.Join(dir, contentDir, id))
	}
	return b.String()
}
