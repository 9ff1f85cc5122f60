package bench

import (
	"path/filepath"
	"strconv"

	"github.com/keepout-security/keepout/bench/report"
)

// step is one call of the load program; without a workload it prepares the next one and is not kept.
type step struct {
	workload string
	args     func(a *arena, bed *bed, round int) []string
}

// stage is what one variant does without another one between.
type stage struct {
	steps []step
	of    func(a *arena) bool
}

// stages are the workloads, in the order of a round.
func stages(s scale) []stage {
	ordinary := func(a *arena) bool { return !a.slow }
	all := []stage{
		{opens("files", s.files, 1, report.OpenFirst, report.OpenAgain), ordinary},
		{execs(s), ordinary},
		{tree(), ordinary},
		{git(), ordinary},
		{compilation(), ordinary},
		{unpack(), ordinary},
		{opens("files", s.slow, 1, report.Open1ms, ""), func(a *arena) bool { return a.slow || a.name == report.None }},
		{written(s), ordinary},
	}
	for _, n := range report.Threads() {
		all = append(all, stage{
			opens("files", s.threaded, n, report.Throughput(n, false), report.Throughput(n, true)),
			func(a *arena) bool { return a.thread || n == 1 && ordinary(a) },
		})
	}
	return all
}

func in(dir, name string) string { return filepath.Join(dir, name) }

// call names arguments, of which the first folder is the arena's.
func call(verb, folder string, args ...int) func(*arena, *bed, int) []string {
	return func(a *arena, _ *bed, _ int) []string {
		out := []string{verb, in(a.dir, folder)}
		for _, n := range args {
			out = append(out, strconv.Itoa(n))
		}
		return out
	}
}

// shell runs a script in the arena; its arguments are the arena's folder, the tar, the package and the round.
func shell(script string) func(*arena, *bed, int) []string {
	return func(a *arena, bed *bed, round int) []string {
		script := "set -e; cd $0; " + script
		return []string{"run", "--", "/bin/sh", "-c", script, a.dir, bed.tar, bed.deb, strconv.Itoa(round)}
	}
}

func opens(folder string, files, threads int, first, again string) []step {
	steps := []step{
		{args: call("renew", folder, files)},
		{workload: first, args: call("open", folder, files, threads)},
	}
	if again != "" {
		steps = append(steps, step{workload: again, args: call("open", folder, files, threads)})
	}
	return steps
}

// written is about files that the platform can look at before they are opened.
func written(s scale) []step {
	return []step{
		{args: call("write", "files", s.written)},
		{workload: report.OpenSoon, args: call("open", "files", s.written, 1)},
	}
}

func execs(s scale) []step {
	return []step{
		{args: call("renew", "programs", s.programs)},
		{workload: report.ExecFirst, args: call("exec", "programs", s.programs, 1)},
		{workload: report.ExecAgain, args: call("exec", "programs", s.programs, s.repeat)},
	}
}

func tree() []step {
	grep := shell("grep -r 'nobody would write this' tree || test $? = 1")
	return []step{
		{args: shell("rm -rf tree; mkdir tree")},
		{workload: report.Untar, args: shell("tar -xf $1 -C tree")},
		{workload: report.GrepFirst, args: grep},
		{workload: report.GrepAgain, args: grep},
	}
}

func git() []step {
	return []step{{
		workload: report.Git,
		args:     shell("cd repository; git checkout -q other; git checkout -q one"),
	}}
}

func compilation() []step {
	const number = `package round\n\nconst Number = 1%d\n`
	return []step{
		{args: shell("printf '" + number + "' $3 > module/round/round.go")},
		{workload: report.GoBuild, args: func(a *arena, bed *bed, _ int) []string { return bed.build(a.dir) }},
	}
}

func unpack() []step {
	return []step{
		{args: shell("rm -rf unpacked")},
		{workload: report.Unpack, args: shell("dpkg-deb -x $2 unpacked")},
	}
}
