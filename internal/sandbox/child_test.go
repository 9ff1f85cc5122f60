package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/wire"
)

const patience = 10 * time.Second

// childName is the program name under which this test binary plays a provider.
const childName = "sandbox-child"

func TestMain(m *testing.M) {
	if IsLauncher() {
		os.Exit(Launch())
	}
	if filepath.Base(os.Args[0]) == childName {
		os.Exit(beChild())
	}
	os.Exit(m.Run())
}

// report is what a child says about itself.
type report struct {
	Args, Env []string
	Dir       string
	UID, GID  int
	PPID, PID int
	Groups    []int
	Files     map[string]string // descriptor → what it is
	Umask     int
	Status    string // /proc/self/status
	Limits    map[string]unix.Rlimit
	UserNS    string // /proc/self/ns/user
	WriteErr  string // of an attempt to write to the folder of its own program
}

// beChild reports, and then does what the control socket says: "exit", "fork" or the end of the connection.
func beChild() int {
	auth, err := wire.NewConn(wire.AuthFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	control, err := wire.NewConn(wire.ControlFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := json.Marshal(describe())
	if err == nil {
		err = auth.SendWait(b, -1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	buf := make([]byte, 1024)
	n, err := control.Recv(buf)
	for err == nil && touch(control, string(buf[:n])) {
		n, err = control.Recv(buf)
	}
	switch {
	case err != nil:
		return 0
	case string(buf[:n]) == "exit":
		fmt.Fprint(os.Stderr, strings.Repeat("noise\n", maxLog), "last words\n\n")
		return 7
	case string(buf[:n]) == "fork":
		if err := fork(control); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	case string(buf[:n]) == "spin":
		for { //nolint:staticcheck // that is what it is for
		}
	}
	select {}
}

// touch reads or writes a file, or connects to a socket, if that is the order, and says what came of it.
func touch(control *wire.Conn, order string) bool {
	do, path, _ := strings.Cut(order, " ")
	var made io.Closer
	var err error
	switch do {
	case "read":
		made, err = os.Open(path)
	case "write":
		made, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	case "dial":
		var d net.Dialer
		made, err = d.DialContext(context.Background(), "unix", path)
	default:
		return false
	}
	said := "ok"
	if err == nil {
		err = made.Close()
	}
	if err != nil {
		said = err.Error()
	}
	return control.SendWait([]byte(said), -1) == nil
}

// fork starts a process that leaves this one's process group and keeps the control socket open.
func fork(control *wire.Conn) error {
	const copied = 9
	if err := unix.Dup2(wire.ControlFD, copied); err != nil { // without close-on-exec
		return err
	}
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.ExtraFiles = []*os.File{os.NewFile(copied, "control")}
	if err := cmd.Start(); err != nil {
		return err
	}
	return control.SendWait([]byte("forked"), -1)
}

func describe() report {
	r := report{
		Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), PPID: os.Getppid(), PID: os.Getpid(),
		Files: map[string]string{}, Umask: unix.Umask(0), Limits: map[string]unix.Rlimit{},
	}
	r.Dir, _ = os.Getwd()
	r.UserNS, _ = os.Readlink("/proc/self/ns/user")
	r.Groups, _ = os.Getgroups()
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			r.Files[filepath.Base(l)] = to
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	r.Status = string(status)
	for name, resource := range map[string]int{
		"core": unix.RLIMIT_CORE, "data": unix.RLIMIT_DATA,
		"nproc": unix.RLIMIT_NPROC, "nofile": unix.RLIMIT_NOFILE,
	} {
		var l unix.Rlimit
		if unix.Getrlimit(resource, &l) == nil {
			r.Limits[name] = l
		}
	}
	if err := os.WriteFile("/sandbox-child-was-here", nil, 0o600); err != nil {
		r.WriteErr = err.Error()
	}
	return r
}
