package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

// installEngines is the one command that brings every engine.
const installEngines = "sudo make install-engines && make run"

// missing says what the machine or the build lacks, as a health.Problem, or nil.
func missing(exe string) error {
	if os.Geteuid() != 0 {
		return needsRoot(exe)
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
	for _, name := range []string{"keepoutd", "keepout-core", "providers/hashlist/keepout-hashlist"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return health.Problem{
				Code: "KO-1104", Title: name + " is not beside the keepout command: " + err.Error(),
				Severity: health.Failure, Fix: "make run",
			}
		}
	}
	return nil
}

// needsRoot names the whole command: what sudo finds differs from what the person's shell finds.
func needsRoot(exe string) health.Problem {
	return health.Problem{
		Code: "KO-1102", Severity: health.Failure, Fix: "sudo " + exe + " demo",
		Title: "the demonstration needs root: the kernel lets only CAP_SYS_ADMIN answer for opens (fanotify)",
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

// probeMark places the marks that the platform needs on the playground and takes them away with the group.
func probeMark(playground string) error {
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

// engine is a provider that the demonstration knows, and why it cannot take part; "" when it can.
type engine struct{ id, lacks string }

// engines looks for the shipped engines. hashlist is always there: missing sees to that.
func engines(bin string, find func(program string) error) []engine {
	list := []engine{{id: "hashlist"}, {id: "clamav"}, {id: "yara"}}
	for i := range list {
		e := &list[i]
		if _, err := os.Stat(filepath.Join(bin, "providers", e.id, "keepout-"+e.id)); err != nil {
			e.lacks = "it is not built"
			if e.id == "yara" {
				e.lacks = "it is not built: libyara or gcc is not installed"
			}
			continue
		}
		if e.id == "clamav" && find("clamd") != nil {
			e.lacks = "clamd is not installed"
		}
	}
	return list
}

// findProgram looks where Debian puts daemons too, which is not on every PATH.
func findProgram(name string) error {
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if _, err := exec.LookPath(path); err == nil {
			return nil
		}
	}
	return exec.ErrNotFound
}

// present lists the ids of the engines that take part.
func present(list []engine) []string {
	var ids []string
	for _, e := range list {
		if e.lacks == "" {
			ids = append(ids, e.id)
		}
	}
	return ids
}
