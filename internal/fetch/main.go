package fetch

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
	"strings"
	"syscall"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/update"
	"github.com/keepout-security/keepout/packaging"
)

// Main is keepout-fetch: it gives up its rights, fetches until SIGTERM or SIGINT, and returns the exit code.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	var o Options
	flags := flag.NewFlagSet("keepout-fetch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.StateDir, "state-dir", "/var/lib/keepout", "the host's state `directory`")
	flags.StringVar(&o.Staging, "staging", "", "staging `folder` (default STATE-DIR/staging)")
	flags.StringVar(&o.From, "from", "", "a `folder` with metadata and packages, instead of a server")
	flags.BoolVar(&o.Once, "once", false, "with --from: look once, and end")
	flags.StringVar(&o.Server, "server", "", "`https://HOST:PORT` to enrol at")
	token := flags.String("token-file", "", "`file` with the one-time token to enrol with")
	flags.StringVar(&o.MachineID, "machine-id", "", "what tells this machine from others (default /etc/machine-id)")
	flags.StringVar(&o.Hostname, "hostname", "", "for people (default: the host's name)")
	labels := flags.String("labels", "", "KEY=VALUE,…: kernel, distro, hardware, customer")
	user := flags.Int("user", update.FetchUser, "user and group `id` to run as, when started by root")
	unit := flags.Bool("print-unit", false, "print the systemd unit for this program, and end")
	inner := flags.Bool("confined", false, "its rights have been given up; for keepout-fetch itself")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "keepout-fetch: there is nothing but flags; see --help")
		return 2
	}
	if *unit {
		return printUnit(stdout, stderr)
	}
	o.Log = slog.New(slog.NewTextHandler(stderr, nil))
	o.complete()
	err := o.describe(*token, *labels)
	if err == nil && !*inner && os.Geteuid() == 0 {
		err = giveUp(&o, *user, *token, args)
	}
	if err == nil {
		err = run(&o, version)
	}
	if err != nil {
		fmt.Fprintln(stderr, "keepout-fetch:", err)
		return 1
	}
	return 0
}

func run(o *Options, version string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, dir := range []string{o.own(), o.outbox()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("its folder: %w", err)
		}
	}
	o.restrict()
	o.Log.Info("fetching", slog.String("version", version), slog.Int("user", os.Geteuid()))
	return Run(ctx, *o)
}

// describe fills in what the host is.
func (o *Options) describe(tokenFile, labels string) error {
	if text := o.copiedToken(); text != "" {
		o.Token = text
	}
	if text, err := os.ReadFile(tokenFile); tokenFile != "" && err == nil {
		o.Token = strings.TrimSpace(string(text))
	}
	if o.MachineID == "" {
		text, err := os.ReadFile("/etc/machine-id")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("tell this machine from others: %w", err)
		}
		o.MachineID = strings.TrimSpace(string(text))
	}
	// The control plane knows a machine by the name under which its recovery environment reports, and never by its own.
	if o.MachineID != "" {
		o.MachineID = protocol.Pseudonym(o.MachineID)
	}
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname() // it is for people
	}
	o.Labels = alike()
	for _, pair := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("label %q: write KEY=VALUE", pair)
		}
		o.Labels[key] = value
	}
	return nil
}

// printUnit prints the unit of the program that runs.
func printUnit(stdout, stderr io.Writer) int {
	program, err := os.Executable()
	if err == nil {
		_, err = stdout.Write(packaging.Fetch(filepath.Dir(program)))
	}
	if err != nil {
		fmt.Fprintln(stderr, "keepout-fetch:", err)
		return 1
	}
	return 0
}

// alike are the labels by which hosts are alike, as far as the system tells: its kernel, distribution and processor.
func alike() map[string]string {
	labels := map[string]string{"hardware": runtime.GOARCH}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts := strings.SplitN(strings.TrimSpace(string(text)), ".", 3)
		labels["kernel"] = strings.Join(parts[:min(2, len(parts))], ".")
	}
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return labels // a system without one is like others without one
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = strings.Trim(value, `"'`)
	}
	if name := strings.TrimSpace(values["ID"] + " " + values["VERSION_ID"]); name != "" {
		labels["distro"] = name[:min(len(name), maxLabel)]
	}
	return labels
}

// maxLabel bounds a label that this program makes, in bytes.
const maxLabel = 64

const (
	// tokenCopy is the one-time token where the fetcher's user can read it; it is worth nothing once it was used.
	tokenCopy = "token"
	maxToken  = 1 << 10 // bytes
)

// copyToken keeps the token for this program as it goes on. It is called when the rights were given up: in a folder
// that the fetcher's user may fill, root writes nothing.
func (o *Options) copyToken() error {
	return durable.WriteFile(filepath.Join(o.own(), tokenCopy), []byte(o.Token), 0o600)
}

// copiedToken is the token that was kept, and empty where there is none. Root reads it, too, where the fetcher's user
// may have put a link to what only root may read, or a pipe that never ends.
func (o *Options) copiedToken() string {
	dir, err := folder.Open(o.own())
	if err != nil {
		return ""
	}
	defer func() { _ = dir.Close() }() // only read
	f, err := dir.Open(tokenCopy)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil || len(text) > maxToken {
		return ""
	}
	return strings.TrimSpace(string(text))
}
