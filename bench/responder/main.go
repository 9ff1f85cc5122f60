// Command responder is the least that a monitor can be in Go: one thread that allows every open on one file system,
// after -delay. It is what the platform is measured against; bench/testdata/responder.c is the same in C.
//
//	responder [-delay 1ms] [-life 10m] DIR
//
// It guarantees: the file system that it marks is not the one of "/" nor of DIR's parent, and -life after its start it
// is gone, so that it can hold up nobody else and nobody for ever.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/sensor/fanotify"
)

func main() {
	delay := flag.Duration("delay", 0, "wait so `long` before each answer")
	life := flag.Duration("life", 10*time.Minute, "exit `after`")
	flag.Parse()
	time.AfterFunc(*life, func() { os.Exit(3) })
	if err := respond(flag.Arg(0), *delay); err != nil {
		fmt.Fprintln(os.Stderr, "responder:", err)
		os.Exit(1)
	}
}

// ownFilesystem refuses a path that is not the root of a file system of its own.
func ownFilesystem(path string) error {
	var own unix.Stat_t
	if err := unix.Stat(path, &own); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	for _, other := range []string{"/", filepath.Join(path, "..")} {
		var st unix.Stat_t
		if err := unix.Stat(other, &st); err != nil || st.Dev == own.Dev {
			return fmt.Errorf("%s is not a file system of its own", path)
		}
	}
	return nil
}

func respond(dir string, delay time.Duration) error {
	if err := ownFilesystem(dir); err != nil {
		return err
	}
	g, err := fanotify.NewPermission()
	if err != nil {
		return err
	}
	if err := g.MarkFilesystem(dir, fanotify.OpenPerm|fanotify.OpenExecPerm); err != nil {
		return err
	}
	fmt.Println("ready")
	runtime.LockOSThread()
	buf := make([]byte, 4096)
	for {
		n, err := g.ReadBlocking(buf)
		switch {
		case errors.Is(err, fanotify.ErrTaken):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		for rest := buf[:n]; len(rest) > 0; {
			var ev fanotify.Event
			if ev, rest, err = fanotify.Parse(rest); err != nil {
				return err
			}
			if delay > 0 {
				time.Sleep(delay)
			}
			if err := g.Answer(ev.File, true); err != nil {
				return err
			}
			_, _ = unix.Close(ev.File), unix.Close(ev.PIDFD)
		}
	}
}
