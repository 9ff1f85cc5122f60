package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/daemon"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/sandbox"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keepout": main,
		"keepoutd": func() {
			if sandbox.IsLauncher() {
				os.Exit(sandbox.Launch())
			}
			os.Exit(daemon.Main(os.Args[1:], version, os.Stderr))
		},
	})
}

// TestScripts runs the two commands as a person would, for all that needs no running daemon. Each script finds a
// journal of three lines in $WORK/journal.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return writeJournal(filepath.Join(env.WorkDir, "journal")) },
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0, nil
		},
	})
}

func writeJournal(dir string) error {
	j, err := journal.Open(dir, journal.Limits{FileBytes: 1 << 20, Files: 2})
	if err != nil {
		return err
	}
	for i := range 3 {
		j.Append(event.Record{
			Event: event.Event{
				ID: uint64(i) + 1, Type: event.Exec, Time: time.Unix(1_900_000_000, 0),
				File: event.File{Path: "/srv/tool"},
			},
			Verdict: event.Verdict{Outcome: event.Allowed, Allowed: true, Reason: event.ReasonVoted, Mode: event.Enforce},
		})
	}
	return j.Close()
}
