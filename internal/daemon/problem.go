package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/guard/link"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

func sensorProblem(err error) error {
	p := health.Problem{Code: "KO-1102", Severity: health.Failure, Title: "no permission events: " + err.Error()}
	switch {
	case os.Geteuid() != 0:
		p.Title, p.Fix = "watching needs root (CAP_SYS_ADMIN)", "start keepoutd as root, for example with sudo"
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		p.Fix = "use a kernel from Linux 5.15 on with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y"
	default:
		p.Fix = "give the container or service CAP_SYS_ADMIN in the first user namespace"
	}
	return p
}

func watchProblem(err error) error {
	return health.Problem{
		Code: "KO-1103", Severity: health.Failure, Title: err.Error(),
		Fix: "correct the paths under watch: in the configuration",
	}
}

// guardProblem says why the guard's descriptors are not there: where the kernel refuses the group, keepoutd starts the
// core without itself, so that this says why.
func guardProblem(err error) error {
	group, refused := fanotify.NewPermission()
	if refused != nil {
		return sensorProblem(refused)
	}
	return errors.Join(health.Problem{
		Code: "KO-1106", Severity: health.Failure, Title: err.Error(), Fix: "start keepoutd instead",
	}, group.Close())
}

// gapShown is how long a gap is a problem that status lists; the journal keeps it.
const gapShown = 10 * time.Minute

// noteGap records for how long nobody was asked before this core.
func (d *Daemon) noteGap() {
	if d.gap.Cause == link.None {
		return
	}
	d.log.Warn("protection had a gap", slog.String("detail", d.gap.String()))
	d.journal.Note(journal.Note{
		Code: "core.gap", Title: "No engine was asked for a while", Severity: journal.High, Detail: d.gap.String(),
	})
}

// gapProblem lists a recent gap.
func (d *Daemon) gapProblem() []health.Problem {
	if d.gap.Cause == link.None || time.Since(d.since) > gapShown {
		return nil
	}
	return []health.Problem{{
		Code: "KO-1107", Severity: health.Warning, Title: d.gap.String(),
		Fix: fmt.Sprintf("look in the log of keepoutd for what happened before %s; this is shown for %v",
			d.since.Format(time.TimeOnly), gapShown),
	}}
}
