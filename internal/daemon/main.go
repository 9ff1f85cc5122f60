package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
)

// Exit codes of keepoutd.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// Main is keepoutd: it reads args, runs until SIGTERM or SIGINT, reloads on SIGHUP, and returns the exit code.
func Main(args []string, version string, stderr io.Writer) int {
	opt := Options{Version: version}
	flags := flag.NewFlagSet("keepoutd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opt.Config, "config", "/etc/keepout/keepout.yaml", "configuration `file`")
	flags.StringVar(&opt.StateDir, "state-dir", "/var/lib/keepout", "`directory` of journal and state")
	flags.StringVar(&opt.RunDir, "run-dir", "/run/keepout", "`directory` of the admin socket")
	flags.StringVar(&opt.ProvidersDir, "providers-dir", besideBinary(), "`directory` of the installed providers")
	verbose := flags.Bool("verbose", false, "log every change of a provider's state")
	asJSON := flags.Bool("log-json", false, "log one JSON object a line")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		_, _ = fmt.Fprintf(stderr, "keepoutd: unexpected argument %q; keepoutd -h lists the flags\n", flags.Arg(0))
		return exitUsage
	}
	log := slog.New(logTo(stderr, *verbose, *asJSON))
	tuneRuntime()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	// Nobody reads our log any more, which is no reason to end. Not ignored, which providers would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := Run(ctx, opt, log, reload); err != nil {
		_, _ = fmt.Fprintln(stderr, "keepoutd:", err)
		return exitFailure
	}
	return exitOK
}

// tuneRuntime fits Go's scheduler and collector to threads that mostly block in the kernel. With a processor slot
// (P) to spare, a thread that comes back from a system call finds one at once, and the runtime's monitor leaves the
// slots of blocked threads alone instead of moving them every 20 µs. A small heap would be collected many times a
// second under load; the limit keeps it small all the same.
func tuneRuntime() {
	runtime.GOMAXPROCS(2*runtime.NumCPU() + 18) // for each reader, each provider's receiver, and others beside
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(heapLimit)
}

// heapLimit is where the collector begins to work harder, in bytes.
const heapLimit = 40 << 20

func logTo(w io.Writer, verbose, asJSON bool) slog.Handler {
	opt := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		opt.Level = slog.LevelDebug
	}
	if asJSON {
		return slog.NewJSONHandler(w, opt)
	}
	return slog.NewTextHandler(w, opt)
}

// besideBinary is the providers folder that the build leaves beside keepoutd.
func besideBinary() string {
	return filepath.Join(filepath.Dir(os.Args[0]), "providers") // the program itself runs from memory
}
