package testvm

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ShellUnit is a unit of systemd that gives a system a shell on its second serial port, once it has come up. The first
// port is told, too. The line stays open from before that word on: what comes while nobody has it open is lost.
const ShellUnit = `[Unit]
Description=A shell for the test
After=multi-user.target

[Service]
ExecStart=/bin/sh -c 'exec < /dev/ttyS1 > /dev/ttyS1 2>&1; stty raw -echo clocal; \
  echo "guest: system is up" > /dev/console; echo; echo "shell: ready"; /bin/sh -s 2>&1 | cat'

[Install]
WantedBy=multi-user.target
`

// shell is the other end of the guest's second serial port.
type shell struct {
	conn net.Conn
	said *Serial
	asks int
}

func shellSocket(dir string) string { return filepath.Join(dir, "shell") }

// dialShell connects to the port. QEMU listens on it before its monitor answers.
func dialShell(dir string, log io.Writer) (*shell, error) {
	conn, err := net.Dial("unix", shellSocket(dir)) //nolint:noctx // a local socket answers at once
	if err != nil {
		return nil, fmt.Errorf("connect to the guest's shell: %w", err)
	}
	s := &shell{conn: conn, said: newSerial(log)}
	go func() {
		_, _ = io.Copy(s.said, conn) // its end is the machine's
		s.said.end()
	}()
	return s, nil
}

// AwaitShell waits until the system has come up and has a shell, again after each start.
func (m *Machine) AwaitShell(within time.Duration) {
	m.t.Helper()
	if _, err := m.shell.said.expect("^shell: ready$", within); err != nil {
		m.fail(err)
	}
}

// runTime bounds a command in a guest: an image is built in one.
const runTime = 6 * time.Minute

// Try runs a command in the guest's shell and returns what it printed and its exit code.
func (m *Machine) Try(command string) (out string, code int) {
	m.t.Helper()
	s := m.shell
	s.asks++
	begin, end := fmt.Sprintf("begin-%d", s.asks), fmt.Sprintf("end-%d", s.asks)
	line := fmt.Sprintf("echo %s; { %s\n} < /dev/null; code=$?; echo; echo %s $code\n", begin, command, end)
	if _, err := io.WriteString(s.conn, line); err != nil {
		m.t.Fatalf("ask the guest: %v", err)
	}
	last, err := s.said.expect("^"+end+" [0-9]+$", runTime)
	if err != nil {
		m.fail(fmt.Errorf("%s: %w\n%s", command, err, s.said.Tail()))
	}
	if code, err = strconv.Atoi(strings.TrimPrefix(last, end+" ")); err != nil {
		m.t.Fatal(err)
	}
	return between(s.said.Lines(), begin, end), code
}

// between returns the lines after the last one that is begin, up to the one that starts with end.
func between(lines []string, begin, end string) string {
	var out []string
	for i := len(lines) - 1; i >= 0 && lines[i] != begin; i-- {
		if !strings.HasPrefix(lines[i], end+" ") {
			out = append(out, lines[i])
		}
	}
	var b strings.Builder
	for i := len(out) - 1; i >= 0; i-- {
		b.WriteString(out[i] + "\n")
	}
	return strings.TrimSpace(b.String())
}

// Run is Try for a command that must succeed.
func (m *Machine) Run(command string) string {
	m.t.Helper()
	out, code := m.Try(command)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d\n%s", command, code, out)
	}
	return out
}
