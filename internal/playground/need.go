package playground

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// Missing says what the machine or the build lacks, as a health.Problem, or nil: root, permission events, and programs
// beside the command exe, of which keepoutd, keepout-core and hashlist are always three. command is the subcommand that
// asks.
func Missing(exe, command string, programs ...string) error {
	if os.Geteuid() != 0 {
		return needsRoot(exe, command)
	}
	g, err := fanotify.NewPermission() // no mark: nothing waits for it
	if err != nil {
		return noGroup(err)
	}
	g.Stop()
	if err := g.Close(); err != nil {
		return fmt.Errorf("close the probe: %w", err)
	}
	bin := filepath.Dir(exe)
	for _, name := range append([]string{"keepoutd", "keepout-core", "providers/hashlist/keepout-hashlist"}, programs...) {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return health.Problem{
				Code: "KO-1104", Title: name + " is not beside the keepout command: " + err.Error(),
				Severity: health.Failure, Fix: "make build",
			}
		}
	}
	return nil
}

// needsRoot names the whole command: what sudo finds differs from what the person's shell finds.
func needsRoot(exe, command string) health.Problem {
	return health.Problem{
		Code: "KO-1102", Severity: health.Failure, Fix: "sudo " + exe + " " + command,
		Title: "keepout " + command + " needs root: the kernel lets only CAP_SYS_ADMIN answer for opens (fanotify)",
	}
}

// noGroup explains why fanotify_init(2) refused.
func noGroup(err error) health.Problem {
	p := health.Problem{Code: "KO-1102", Severity: health.Failure, Title: "no permission events: " + err.Error()}
	switch {
	case errors.Is(err, unix.EPERM):
		p.Title = "root has no CAP_SYS_ADMIN here, as in a container: " + err.Error()
		p.Fix = "make run on the host itself, or docker run --privileged"
	case errors.Is(err, unix.ENOSYS):
		p.Title = "this kernel is built without fanotify: " + err.Error()
		p.Fix = "boot one with CONFIG_FANOTIFY=y and CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y, then make run"
	case errors.Is(err, unix.EINVAL):
		p.Title = "this kernel is older than Linux 5.15, which brought pidfds to fanotify: " + err.Error()
		p.Fix = "boot a newer one, then make run"
	}
	return p
}

// noMark explains why fanotify_mark(2) refused permission events. fanotify_init accepts the class even where
// the kernel cannot deliver them; only a mark tells.
func noMark(err error) error {
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	return health.Problem{
		Code: "KO-1102", Severity: health.Failure,
		Title: "this kernel is built without permission events: " + err.Error(),
		Fix: "boot one with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y (zgrep FANOTIFY /proc/config.gz shows it), " +
			"then make run",
	}
}

// ProbeMark places the marks that the platform needs on the playground and takes them away with the group.
func ProbeMark(playground string) error {
	g, err := fanotify.NewPermission()
	if err != nil {
		return noGroup(err)
	}
	err = g.MarkFilesystem(playground, fanotify.OpenPerm|fanotify.OpenExecPerm)
	if err != nil {
		err = noMark(err)
	}
	g.Stop()
	return errors.Join(err, g.Close())
}
