package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// guardName is the name of the guard's process, as the kernel keeps it.
const guardName = "keepoutd"

// gatherGuard looks at the processes that the core names as itself and as its guard.
func gatherGuard(core, guard int) guardFacts {
	coreFields, coreErr := processStatus(core)
	fields, err := processStatus(guard)
	g := guardFacts{name: fields["Name"], err: errors.Join(coreErr, err)}
	if g.err == nil {
		g.parent, g.err = strconv.Atoi(coreFields["PPid"])
		g.locked = fields["VmLck"] != "" && !strings.HasPrefix(fields["VmLck"], "0 ")
	}
	return g
}

// processStatus reads the fields of /proc/PID/status; proc_pid_status(5).
func processStatus(pid int) (map[string]string, error) {
	if pid <= 0 {
		return nil, errors.New("its number is not known")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields, nil
}

// checkGuard looks at the process that answers when the core cannot.
func checkGuard(n *notes, f *facts) {
	const (
		check = "core.guard"
		fix   = "restart keepoutd"
	)
	s, g := &f.status.Guard, &f.guard
	switch {
	case g.err != nil: // another pid namespace, or a /proc that hides processes
		n.info(check, "the guard: not checked: "+g.err.Error())
	case g.parent != s.PID || g.name != guardName:
		n.failure(check, "KO-1819", fmt.Sprintf("nobody answers when the core cannot: its parent is process %d, and "+
			"process %d is %q, not %s", g.parent, s.PID, g.name, guardName), fix)
	case !g.locked:
		n.warning(check, "KO-1819", fmt.Sprintf("the guard, process %d, is not locked in memory: it may wait for a disk",
			s.PID), "give keepoutd CAP_IPC_LOCK or LimitMEMLOCK=infinity, and "+fix)
	default:
		n.ok(check, fmt.Sprintf("the guard answers when the core cannot: process %d, locked in memory, cores started: %d",
			s.PID, s.Cores))
	}
}
