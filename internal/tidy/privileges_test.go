package tidy

import (
	"cmp"
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

const unixPackage = "golang.org/x/sys/unix"

// privilege is a set of calls that lives in few places, so that who reviews those has reviewed all of it.
type privilege struct {
	what    string
	pkgs    []string // packages that offer the calls
	calls   []string // a final "*" stands for any ending
	homes   []string // a final "*" stands for one folder's name
	inTests bool     // tests are bound, too: the call reaches beyond the test
}

var privileges = []privilege{
	{
		what: "open a fanotify group", pkgs: []string{unixPackage}, calls: []string{"FanotifyInit"},
		homes: []string{"internal/sensor/fanotify", "internal/testenv"}, inTests: true,
	},
	{
		what: "place a mark", pkgs: []string{unixPackage}, calls: []string{"FanotifyMark"},
		homes: []string{"internal/sensor/fanotify"}, inTests: true,
	},
	{
		what: "mount", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"Mount", "Unmount", "PivotRoot", "Chroot", "MoveMount", "OpenTree", "Fsopen", "Fsmount"},
		homes: []string{
			"internal/playground", "internal/rescue", "internal/sandbox", "internal/testenv", "test/*", "test/*/*",
		},
		inTests: true,
	},
	{
		what: "enter or leave a namespace", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"Unshare", "Setns", "CLONE_NEW*"},
		homes: []string{
			"internal/netlab", "internal/playground", "internal/sandbox", "internal/testenv", "test/*", "test/*/*",
		},
	},
	{
		what: "set a resource limit", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"Setrlimit", "Prlimit", "SYS_PRLIMIT64"},
		homes: []string{"internal/sandbox", "internal/guard/link"},
	},
	{
		what: "run ahead of everybody else", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"SchedSetAttr", "Setpriority", "SCHED_FIFO", "SCHED_RR", "SYS_SCHED_SETSCHEDULER"},
		homes: []string{"internal/guard", "internal/sandbox", "internal/sensor"},
	},
	{
		what: "filter or confine a process", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"SYS_SECCOMP", "PR_SET_SECCOMP", "SECCOMP_*", "SYS_LANDLOCK_*", "Landlock*", "Capset"},
		homes: []string{"internal/sandbox", "providers/hostile/*"},
	},
	{
		what: "change user", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"Setuid", "Setgid", "Setresuid", "Setresgid", "Setgroups"},
		homes: []string{"internal/sandbox", "internal/fetch"},
	},
	{
		what: "look into another process", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"PtraceAttach", "PtraceSeize", "ProcessVMReadv", "ProcessVMWritev", "PidfdGetfd"},
		homes: []string{"providers/hostile/*", "test/providers/attacker"},
	},
	{
		what: "load a BPF program or a kernel module", pkgs: []string{unixPackage, "syscall"},
		calls: []string{"SYS_BPF", "InitModule", "FinitModule", "DeleteModule"},
		homes: []string{"internal/rescue", "test/icount/guest", "test/providers/attacker", "test/vm/guest"}, inTests: true,
	},
	{
		what: "start a process", pkgs: []string{"os/exec", "os", "syscall"},
		calls: []string{"Command", "CommandContext", "StartProcess", "ForkExec", "Exec"},
		homes: []string{
			"internal/cli", "internal/fetch", "internal/guard", "internal/demo", "internal/doctor", "internal/playground",
			"internal/preview", "internal/sandbox", "internal/recovery/bootguard", "internal/tally", "internal/testenv",
			"internal/testvm", "provider/conformance",
			"providers/clamav", "providers/hostile/*", "providers/internal/*", "test/testhost", "test/vm/guest",
			"test/icount/guest", "bench/load",
		},
	},
}

func TestEveryPrivilegeHasAHome(t *testing.T) {
	t.Parallel()
	eachSource(t, homeless, "internal/daemon/x.go",
		"package daemon\n\nimport \"golang.org/x/sys/unix\"\n\nvar _ = unix.FanotifyInit\n")
}

func homeless(s *source) (findings []string) {
	for _, p := range privileges {
		at := func(home string) bool { return match(home, s.dir()) }
		if s.test && !p.inTests || slices.ContainsFunc(p.homes, at) {
			continue
		}
		for _, pkg := range p.pkgs {
			findings = append(findings, p.uses(s, pkg)...)
		}
	}
	return findings
}

func (p privilege) uses(s *source, pkg string) (findings []string) {
	name := s.imports(pkg)
	if name == "" {
		return nil
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && p.names(sel.Sel.Name) {
			findings = append(findings, fmt.Sprintf("%s: %s.%s is there to %s; that belongs to %s: call what is there",
				s.at(sel), name, sel.Sel.Name, p.what, cmp.Or(strings.Join(p.homes, ", "), "no package")))
		}
		return true
	})
	return findings
}

func (p privilege) names(call string) bool {
	return slices.ContainsFunc(p.calls, func(c string) bool {
		prefix, open := strings.CutSuffix(c, "*")
		return call == c || open && strings.HasPrefix(call, prefix)
	})
}
