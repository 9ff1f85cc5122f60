package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// laneTime bounds one command; "go test" has a limit of its own for each package, which is shorter.
const laneTime = 40 * time.Minute

// Result is what one lane leaves behind for the total.
type Result struct {
	Passed   int             `json:"passed"`
	Skipped  int             `json:"skipped"`
	Failures []string        `json:"failures"` // one line each: package and test, or what else went wrong
	Needs    map[string]Need `json:"needs"`    // by capability
	Seconds  float64         `json:"seconds"`
}

// Need says how many tests lacked a capability, and why one of them did.
type Need struct {
	Tests int    `json:"tests"`
	Error string `json:"error"`
}

var errUsage = errors.New("usage: tally run|check -dir D -lane NAME -- COMMAND, or tally total -dir D NAME")

func dispatch(verb, dir, lane string, args []string) (ok bool, err error) {
	switch {
	case dir == "", len(args) == 0, verb != "total" && (lane == "" || lane != filepath.Base(lane)):
		return false, errUsage
	case verb == "total":
		return total(os.Stdout, dir, args)
	case verb == "run":
		result, err := run(os.Stdout, args)
		return record(dir, lane, result, err)
	case verb == "check":
		return record(dir, lane, check(os.Stdout, lane, args), nil)
	default:
		return false, errUsage
	}
}

// record writes the lane's result; the total reads it even when the lane failed.
func record(dir, lane string, r Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make the results' folder: %w", err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return false, fmt.Errorf("encode the result: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, lane+".json"), text, 0o644); err != nil {
		return false, fmt.Errorf("write the result: %w", err)
	}
	return len(r.Failures) == 0, nil
}

// run runs a "go test -json" command and counts its tests.
func run(w io.Writer, args []string) (Result, error) {
	started := time.Now()
	cmd := command(args)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return Result{}, fmt.Errorf("connect to %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("start %s: %w", args[0], err)
	}
	stop := time.AfterFunc(laneTime, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	c := newCount(w)
	readErr := c.read(bufio.NewReader(stdout))
	waitErr := cmd.Wait()
	r := c.result()
	if readErr != nil {
		r.Failures = append(r.Failures, fmt.Sprintf("read what %s says: %v", args[0], readErr))
	}
	if waitErr != nil && len(r.Failures) == 0 {
		r.Failures = append(r.Failures, strings.Join(args, " ")+": "+waitErr.Error())
	}
	if r.Passed+r.Skipped+len(r.Failures) == 0 {
		r.Failures = append(r.Failures, strings.Join(args, " ")+": ran no test")
	}
	r.Seconds = time.Since(started).Seconds()
	return r, nil
}

// check runs a command that is no test: it can only add a failure.
func check(w io.Writer, lane string, args []string) Result {
	started := time.Now()
	cmd := command(args)
	cmd.Stdout, cmd.Stderr = w, w
	var r Result
	if err := cmd.Run(); err != nil {
		r.Failures = []string{fmt.Sprintf("%s: %s: %v", lane, strings.Join(args, " "), err)}
	}
	r.Seconds = time.Since(started).Seconds()
	return r
}

func command(args []string) *exec.Cmd {
	return exec.Command(args[0], args[1:]...) //nolint:noctx // run bounds it
}
