package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// probeTime bounds the trial.
const probeTime = 10 * time.Second

// usernsProblem says why the cage cannot be built in a user namespace on this host, by building one: sysctls,
// security modules and containers all have their ways to forbid it.
var usernsProblem = sync.OnceValue(func() error {
	l := launch{
		Layers: LayerUser | LayerMount | LayerPID | LayerNet | LayerIPC, Userns: true,
		UID: FirstUID + MaxProviders - 1, Probe: true,
	}
	instructions, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer closeFile(instructions)
	err = errors.Join(json.NewEncoder(tell).Encode(l), tell.Close())
	if err != nil {
		return fmt.Errorf("instruct the launcher: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer closeFile(null)
	path, memory := launcherPath()
	var said bytes.Buffer
	cmd := &exec.Cmd{
		Path: path, Args: []string{launcherName}, Env: []string{"GOMAXPROCS=1"}, Stderr: &said,
		ExtraFiles: append([]*os.File{null, null, null, instructions}, memory...), SysProcAttr: attributes(l),
		WaitDelay: time.Second,
	}
	cmd.SysProcAttr.Pdeathsig = 0 // it ends by itself
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EPERM) {
			return fmt.Errorf("the kernel refuses it: %w", err)
		}
		return err
	}
	timer := time.AfterFunc(probeTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
})
