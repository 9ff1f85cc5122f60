package doctor

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
)

// checkCore looks at whether the core answers, to whom, and whether it runs what it should.
func checkCore(f *facts) []Finding {
	n := notes{section: Core}
	checkSocket(&n, f)
	if f.status == nil {
		p := control.Unreachable(f.runDir, f.unreachable)
		n.failure("core.reachable", p.Code, "the core does not answer: "+p.Title, p.Fix)
		n.info("core", "providers, watches and cages: not checked: only the core knows them")
		return n.all
	}
	n.ok("core.reachable", fmt.Sprintf("the core answers: version %s, mode %s, process %d", f.status.Version,
		f.status.Mode, f.status.PID))
	checkGuard(&n, f)
	checkVersion(&n, f)
	checkConfig(&n, f)
	problems(&n, f)
	return n.all
}

func checkVersion(n *notes, f *facts) {
	if f.checkup == nil {
		n.warning("core.version", "KO-1816", fmt.Sprintf("the core (%s) cannot be examined by this command (%s): %v",
			f.status.Version, f.version, f.checkupErr), "use the keepout of the same version, or restart keepoutd")
		return
	}
	if f.status.Version != f.version {
		n.warning("core.version", "KO-1816", fmt.Sprintf("this command is version %s, the running core is %s",
			f.version, f.status.Version), "restart keepoutd if it was upgraded; otherwise use its own keepout")
	}
}

func checkConfig(n *notes, f *facts) {
	if f.checkup == nil {
		return // checkVersion has said so
	}
	file, reload := f.status.Config, control.Command(f.runDir, "config reload")
	switch c := &f.checkup.Config; {
	case c.Wrong != "":
		what, fix := health.Split(c.Wrong)
		what, _, _ = strings.Cut(what, "\n")
		n.failure("core.config", "KO-1817", "the configuration on disk would be refused at the next start: "+what,
			orElse(fix, "keepout config check "+file)).Subject = file
	case c.Changed:
		n.warning("core.config", "KO-1817", file+" says something else than what is in force", reload).Subject = file
	default:
		n.ok("core.config", file+" is what is in force")
	}
	if c := &f.checkup.Config; c.Mode != f.status.Mode {
		n.info("core.mode", fmt.Sprintf("mode %s was set by hand; the configuration says %s, which a reload or restart "+
			"brings back", f.status.Mode, c.Mode))
	}
}

// elsewhere are the problems that a check of its own says better.
var elsewhere = []string{"KO-1301", "KO-1303", "KO-1304"}

// problems passes on what the core itself has noticed.
func problems(n *notes, f *facts) {
	for _, p := range f.status.Problems {
		if slices.Contains(elsewhere, p.Code) {
			continue
		}
		n.add(Finding{
			Check: "core.problem", Severity: p.Severity, Code: p.Code, Title: p.Title, Fix: p.Fix,
			Provider: p.Provider, Subject: p.Subject,
		})
	}
}

func checkSocket(n *notes, f *facts) {
	s := &f.socket
	if s.err != nil {
		if f.status != nil { // it answered, so it is there
			n.info("core.socket", "the admin socket cannot be looked at: "+s.err.Error())
		}
		return
	}
	const fix = "restart keepoutd, which sets it right, and find out who changed it"
	mode := s.mode.Perm()
	owned := s.group < 0 && s.gid == 0 || s.group >= 0 && s.gid == uint32(s.group)
	switch {
	case mode&0o007 != 0:
		n.failure("core.socket", "KO-1818", fmt.Sprintf("everybody may use the admin socket: its mode is %#o", mode), fix)
	case s.dirMode.Perm()&0o022 != 0 && s.dirMode&fs.ModeSticky == 0:
		n.failure("core.socket", "KO-1818", fmt.Sprintf("others may replace the admin socket: the mode of its folder is "+
			"%#o", s.dirMode.Perm()), "choose a --run-dir that only root can write to")
	case s.uid == 0 && !owned:
		n.warning("core.socket", "KO-1818", fmt.Sprintf("the admin socket belongs to group %d, not to root or keepout",
			s.gid), fix)
	case mode != 0o660:
		n.warning("core.socket", "KO-1818", fmt.Sprintf("the mode of the admin socket is %#o, not 0660", mode), fix)
	case s.group >= 0:
		n.ok("core.socket", "the admin socket is for root and the group keepout")
	default:
		n.ok("core.socket", "the admin socket is for root")
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
