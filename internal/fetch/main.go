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
	"strings"
	"syscall"

	"github.com/keepout-security/keepout/internal/update"
)

// Main is keepout-fetch: it gives up its rights, fetches until SIGTERM or SIGINT, and returns the exit code.
func Main(args []string, version string, stderr io.Writer) int {
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
	inner := flags.Bool("confined", false, "its rights have been given up; for keepout-fetch itself")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "keepout-fetch: there is nothing but flags; see --help")
		return 2
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
	if err := os.MkdirAll(o.own(), 0o700); err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	o.restrict()
	o.Log.Info("fetching", slog.String("version", version), slog.Int("user", os.Geteuid()))
	return Run(ctx, *o)
}

// describe fills in what the host is.
func (o *Options) describe(tokenFile, labels string) error {
	if text, err := os.ReadFile(filepath.Join(o.own(), tokenCopy)); err == nil {
		o.Token = strings.TrimSpace(string(text))
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
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname() // it is for people
	}
	o.Labels = map[string]string{}
	for _, pair := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("label %q: write KEY=VALUE", pair)
		}
		o.Labels[key] = value
	}
	return nil
}
