// Command load does one measured piece of work and prints how long it took, as JSON. It is what the benchmarks run in
// place of a person: a process of its own, so that whoever watches sees an ordinary caller, and a watchdog can end it.
//
//	load make DIR COUNT             COUNT files of almost 4 KiB, each with other content
//	load copies DIR COUNT PROGRAM   COUNT copies of a program, each with other content
//	load renew DIR COUNT            changes the content of each without opening it: every verdict is out of date
//	load write DIR COUNT            opens each, writes to it and closes it, and waits two seconds
//	load open DIR COUNT THREADS     open, read and close each
//	load exec DIR COUNT REPEAT      fork, execute and wait for each, all of it REPEAT times
//	load run -- COMMAND …           run a command
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// took is what a piece of work needed.
type took struct {
	Ops int   `json:"ops"`
	NS  int64 `json:"ns"`            // all of it, wall clock
	P50 int64 `json:"p50,omitempty"` // ns of one operation
	P99 int64 `json:"p99,omitempty"`
}

const (
	fileSize  = 4000                  // bytes; each renewal adds one, and they shall stay within a page
	perFolder = 200                   // files in one folder
	soon      = 2 * time.Second       // after which a file that was written is opened
	settled   = 50 * time.Millisecond // a file that has just changed is judged each time: another change may not show
)

var errUsage = errors.New("usage: load make|copies|renew|write|open|exec DIR COUNT [N|PROGRAM], or load run -- COMMAND")

func main() {
	t, err := act(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(t)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func act(args []string) (took, error) {
	if len(args) > 2 && args[0] == "run" && args[1] == "--" {
		return measure(1, func(int) error { return run(args[2:]) })
	}
	if len(args) < 3 {
		return took{}, errUsage
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return took{}, errUsage
	}
	n := 1
	if len(args) > 3 && args[0] != "copies" {
		if n, err = strconv.Atoi(args[3]); err != nil || n < 1 {
			return took{}, errUsage
		}
	}
	dir := args[1]
	switch args[0] {
	case "make":
		return measure(count, func(i int) error { return write(dir, i, random(i), 0o644) })
	case "copies":
		return copies(dir, count, args[len(args)-1])
	case "renew":
		t, err := measure(count, func(i int) error { return renew(name(dir, i)) })
		time.Sleep(settled)
		return t, err
	case "write":
		t, err := measure(count, func(i int) error { return rewrite(name(dir, i)) })
		time.Sleep(soon)
		return t, err
	case "open":
		return openAll(dir, count, n)
	case "exec":
		return measure(count*n, func(i int) error { return run([]string{name(dir, i%count)}) })
	}
	return took{}, errUsage
}

func measure(ops int, one func(i int) error) (took, error) {
	began := time.Now()
	for i := range ops {
		if err := one(i); err != nil {
			return took{}, err
		}
	}
	return took{Ops: ops, NS: time.Since(began).Nanoseconds()}, nil
}

// name is the path of one file.
func name(dir string, i int) string {
	return filepath.Join(dir, strconv.Itoa(i/perFolder), strconv.Itoa(i%perFolder))
}

func write(dir string, i int, content []byte, mode os.FileMode) error {
	path := name(dir, i)
	if i%perFolder == 0 {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
	}
	return os.WriteFile(path, content, mode)
}

// random is the content of one file, the same in every arena.
func random(i int) []byte {
	content := make([]byte, fileSize)
	r := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // no secret
	for at := 0; at < fileSize; at += 8 {
		binary.NativeEndian.PutUint64(content[at:], r.Uint64())
	}
	return content
}

// copies makes programs that differ in what follows the program.
func copies(dir string, count int, program string) (took, error) {
	text, err := os.ReadFile(program)
	if err != nil {
		return took{}, fmt.Errorf("read the program: %w", err)
	}
	return measure(count, func(i int) error {
		return write(dir, i, append(text[:len(text):len(text)], random(i)[:8]...), 0o755)
	})
}

// renew adds a zero to a file by its path: no monitor of opens sees it, while an ignore mark is cleared, and size,
// times and digest change.
func renew(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if err := unix.Truncate(path, st.Size+1); err != nil {
		return fmt.Errorf("extend %s: %w", path, err)
	}
	return nil
}

// rewrite changes the first byte of a file as its writer would.
func rewrite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("write to a file: %w", err)
	}
	var first [1]byte
	_, err = f.ReadAt(first[:], 0)
	if err == nil {
		first[0]++
		_, err = f.WriteAt(first[:], 0)
	}
	return errors.Join(err, f.Close())
}

// openAll opens each file once, from several threads that share them out.
func openAll(dir string, count, threads int) (took, error) {
	paths := make([]string, count)
	for i := range paths {
		paths[i] = name(dir, i)
	}
	each := make([]int64, count) // ns
	failed := make([]error, threads)
	var wg sync.WaitGroup
	began := time.Now()
	for t := range threads {
		wg.Go(func() {
			buf := make([]byte, fileSize)
			for i := t; i < count && failed[t] == nil; i += threads {
				start := time.Now()
				failed[t] = openOne(paths[i], buf)
				each[i] = time.Since(start).Nanoseconds()
			}
		})
	}
	wg.Wait()
	t := took{Ops: count, NS: time.Since(began).Nanoseconds()}
	slices.Sort(each)
	t.P50, t.P99 = each[count/2], each[count*99/100]
	return t, errors.Join(failed...)
}

func openOne(path string, buf []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	_, err = unix.Read(fd, buf)
	return errors.Join(err, unix.Close(fd))
}

// run starts a program the shortest way and waits for it.
func run(argv []string) error {
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{2, 2, 2}, // standard output is ours
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	var status syscall.WaitStatus
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil || status != 0 {
		return fmt.Errorf("%s: status %#x, %w", argv[0], uint32(status), err)
	}
	return nil
}
