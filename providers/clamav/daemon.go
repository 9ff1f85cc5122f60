package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	startLimit = 2 * time.Minute       // the official signatures take a slow machine most of a minute
	pollEvery  = 20 * time.Millisecond // between tries to reach a clamd that is starting
	pingLimit  = 2 * time.Second       // for one answer
	maxSocket  = 107                   // bytes in a socket's path: sun_path is 108 with its NUL (unix(7))
	maxLogLine = 512                   // bytes
	childPath  = "/usr/sbin:/usr/bin:/sbin:/bin"
	maxContent = 100 << 20 // bytes of a file that clamd is asked about
	scanLimit  = 5000      // ms for one file: ends what no vote waits for any more
)

// daemon is one running clamd.
type daemon struct {
	name   string
	socket string
	owned  []string // paths to remove in the end
	pid    int
	began  time.Time
	done   chan struct{} // closed when it has ended
	exit   string        // how it ended; set before done is closed
	ready  atomic.Bool   // it has loaded
	said   atomic.Pointer[string]
	lines  lines

	use     sync.RWMutex // held shared by scans, so that stop lets them finish
	stopped bool
}

// findClamd returns the path of the program. A provider's environment is empty, so that the usual folders are
// tried.
func findClamd() (string, error) {
	if path, err := exec.LookPath("clamd"); err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"} {
		if path, err := exec.LookPath(folder + "/clamd"); err == nil {
			return path, nil
		}
	}
	return "", errors.New("clamd is not installed: apt-get install clamav-daemon")
}

// startDaemon starts clamd and waits until it answers, which it does once it has loaded the signatures. name
// sets apart what two of them keep in the state folder.
func startDaemon(ctx context.Context, program, stateDir, name string, db database) (*daemon, error) {
	d := &daemon{
		name:   name,
		socket: filepath.Join(stateDir, name+".sock"),
		began:  time.Now(),
		done:   make(chan struct{}),
		lines:  make(lines, workers),
	}
	if len(d.socket) > maxSocket {
		return nil, fmt.Errorf("path of clamd's socket has %d bytes, limit %d: shorten the state folder: %s",
			len(d.socket), maxSocket, stateDir)
	}
	conf, temp := filepath.Join(stateDir, name+".conf"), filepath.Join(stateDir, name+".tmp")
	d.owned = []string{d.socket, conf, temp}
	if err := d.prepare(conf, temp, db); err != nil {
		return nil, err
	}
	if err := d.run(program, conf, stateDir, temp); err != nil {
		d.remove()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := d.awaitReady(ctx); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// prepare writes the configuration, and removes what a killed predecessor left.
func (d *daemon) prepare(conf, temp string, db database) error {
	for _, path := range []string{conf, temp, db.folder} {
		if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == '"' || r == '#' }) {
			return fmt.Errorf("path %q cannot be written into clamd.conf: rename it", path)
		}
	}
	d.remove()
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return fmt.Errorf("prepare state folder: %w", err)
	}
	text := fmt.Sprintf(`# Written by keepout-clamav at each start.
Foreground yes
LocalSocket %s
LocalSocketMode 600
FixStaleSocket yes
DatabaseDirectory %s
TemporaryDirectory %s
LogSyslog no
ExtendedDetectionInfo no
MaxThreads %d
MaxQueue 64
MaxConnectionQueueLength 64
CommandReadTimeout 5
ReadTimeout 10
# The content changes when Keepout says so, and never by itself.
SelfCheck 0
ConcurrentDatabaseReload no
ExitOnOOM yes
# Without it, clamd says OK about what it gave up on.
AlertExceedsMax yes
MaxScanTime %d
MaxFileSize %d
MaxScanSize %d
`, d.socket, db.folder, temp, workers, scanLimit, maxContent, 4*maxContent)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write clamd.conf: %w", err)
	}
	return nil
}

// run starts the process. The kernel ends it when the thread that started it ends (prctl(2),
// PR_SET_PDEATHSIG), so that thread is kept until then.
func (d *daemon) run(program, conf, home, temp string) error {
	// Not bound to the context of the load, which ends long before the process.
	cmd := exec.Command(program, "--config-file="+conf) //nolint:noctx // see above
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + childPath, "HOME=" + home, "TMPDIR=" + temp, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start clamd: %w", err)
	}
	cmd.Stderr = cmd.Stdout
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			d.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		d.log(out)
		_ = cmd.Wait()
		d.exit = cmd.ProcessState.String()
		close(d.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start clamd: %w", err)
	}
	return nil
}

// log passes on what clamd prints about trouble, and keeps what explains its end best: of loading, the first
// two errors, which name the place and the file; later, the last one.
func (d *daemon) log(out io.Reader) {
	lines := bufio.NewReaderSize(out, maxLogLine)
	var errorsSeen []string
	for continued := false; ; {
		raw, err := lines.ReadSlice('\n')
		if line := strings.TrimSpace(string(raw)); line != "" && !continued {
			lower := strings.ToLower(line)
			isError := strings.Contains(lower, "error") && !strings.HasSuffix(line, " FOUND") // the vote says it
			if isError || strings.Contains(lower, "warning") {
				fmt.Fprintln(os.Stderr, "clamd:", line)
			}
			line = strings.TrimPrefix(strings.TrimPrefix(line, "LibClamAV Error: "), "ERROR: ")
			switch {
			case isError && d.ready.Load():
				d.said.Store(&line)
			case isError && len(errorsSeen) < 2:
				errorsSeen = append(errorsSeen, line)
				line = strings.Join(errorsSeen, "; ")
				d.said.Store(&line)
			case len(errorsSeen) == 0 && !d.ready.Load():
				d.said.Store(&line)
			}
		}
		continued = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !continued {
			return
		}
	}
}

// why returns clamd's last words that matter, and how it ended.
func (d *daemon) why() string {
	words := ""
	if said := d.said.Load(); said != nil {
		words = *said
	}
	select {
	case <-d.done:
		return strings.TrimPrefix(words+" ("+d.exit+")", " ")
	default:
		return words
	}
}

func (d *daemon) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if d.ping(ctx) == nil {
			d.ready.Store(true)
			d.said.Store(nil) // loading may have ended with any harmless line
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("clamd ended while loading: %s", d.why())
		case <-ctx.Done():
			return fmt.Errorf("wait for clamd to load: %w: %s", ctx.Err(), d.why())
		case <-tick.C:
		}
	}
}

func (d *daemon) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return ping(ctx, d.socket)
}

// begin reports whether the daemon may be used; end must follow if so.
func (d *daemon) begin() bool {
	d.use.RLock()
	if d.stopped {
		d.use.RUnlock()
		return false
	}
	return true
}

func (d *daemon) end() { d.use.RUnlock() }

// stop lets scans finish, which their deadlines bound, ends the process and removes what it kept.
func (d *daemon) stop() {
	d.use.Lock()
	defer d.use.Unlock()
	if d.stopped {
		return
	}
	d.stopped = true
	d.lines.hangUp()
	d.kill()
	<-d.done
	d.remove()
}

// kill ends the process if it is still there. Until done is closed the number cannot be another's: the
// process is waited for before that.
func (d *daemon) kill() {
	select {
	case <-d.done:
	default:
		_ = syscall.Kill(d.pid, syscall.SIGKILL)
	}
}

func (d *daemon) remove() {
	for _, path := range d.owned {
		_ = os.RemoveAll(path)
	}
}
