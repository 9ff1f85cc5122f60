package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// total adds up the lanes' results and prints them; its last line is the count,
// which it also leaves in total.txt. It reports whether all
// passed.
func total(w io.Writer, dir string, lanes []string) (bool, error) {
	sum := Result{Needs: map[string]Need{}}
	fmt.Fprintln(w)
	for _, lane := range lanes {
		r, err := load(dir, lane)
		if err != nil {
			r.Failures = []string{lane + ": no result: " + err.Error()}
		}
		fmt.Fprintf(w, "%-12s %4d passed %4d failed %4d skipped %7.1fs\n",
			lane, r.Passed, len(r.Failures), r.Skipped, r.Seconds)
		sum.add(r)
	}
	for _, f := range sum.Failures {
		fmt.Fprintln(w, "FAIL ", f)
	}
	for _, name := range slices.Sorted(maps.Keys(sum.Needs)) {
		fmt.Fprintf(w, "%d need %s: %s\n", sum.Needs[name].Tests, name, sum.Needs[name].Error)
	}
	last := fmt.Sprintf("%d passed, %d failed, %d skipped\n", sum.Passed, len(sum.Failures), sum.Skipped)
	if err := os.WriteFile(filepath.Join(dir, "total.txt"), []byte(last), 0o644); err != nil {
		return false, fmt.Errorf("write the total: %w", err)
	}
	_, err := io.WriteString(w, last)
	return len(sum.Failures) == 0, err
}

func load(dir, lane string) (Result, error) {
	text, err := os.ReadFile(filepath.Join(dir, filepath.Base(lane)+".json"))
	if err != nil {
		return Result{}, err
	}
	var r Result
	if err := json.Unmarshal(text, &r); err != nil {
		return Result{}, err
	}
	return r, nil
}

func (r *Result) add(o Result) {
	r.Passed += o.Passed
	r.Skipped += o.Skipped
	r.Failures = append(r.Failures, o.Failures...)
	for name, n := range o.Needs {
		have := r.Needs[name]
		if have.Tests == 0 {
			have.Error = n.Error
		}
		have.Tests += n.Tests
		r.Needs[name] = have
	}
}
