package fleet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/rollout"
)

// The defaults.
const (
	DefaultListen = "127.0.0.1:8440"
	DefaultState  = "/var/lib/keepout/fleet"
	checkIn       = 5 * time.Minute
	maxConns      = 20_000
	requestTime   = 20 * time.Second
	maxBusy       = 2_000
)

// Config is how a control plane runs. The zero value of each field is its default.
type Config struct {
	Listen   string   // address and port
	StateDir string   // database, keys and the first login
	Packages string   // folder with metadata and blobs; below the state directory unless set
	Names    []string // host names and addresses of this server, for its certificate
	CheckIn  time.Duration
	Tick     time.Duration // between looks at silent hosts
	// RequestTime is how long a client may take to send a request.
	RequestTime time.Duration
	MaxConns    int // connections at once
	MaxBusy     int // requests at once, without those that wait
	// Schedule gives the numbers of a schedule; nil is rollout.Schedule.
	Schedule func(name string) (rollout.Numbers, error)
	Clock    func() time.Time
	Open     func(ctx context.Context, path string) (store.Store, error) // nil is SQLite
	Log      *slog.Logger
}

// complete fills in the defaults.
func (c *Config) complete() error {
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.StateDir == "" {
		c.StateDir = DefaultState
	}
	if c.Packages == "" {
		c.Packages = filepath.Join(c.StateDir, "packages")
	}
	if c.CheckIn == 0 {
		c.CheckIn = checkIn
	}
	if c.RequestTime == 0 {
		c.RequestTime = requestTime
	}
	if c.MaxConns == 0 {
		c.MaxConns = maxConns
	}
	if c.MaxBusy == 0 {
		c.MaxBusy = maxBusy
	}
	if c.Schedule == nil {
		c.Schedule = rollout.Schedule
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	c.Names = append(c.Names, "localhost", "127.0.0.1", "::1")
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		c.Names = append([]string{host}, c.Names...)
	}
	return nil
}

func (c *Config) open(ctx context.Context) (store.Store, error) {
	path := filepath.Join(c.StateDir, "fleet.db")
	if c.Open != nil {
		return c.Open(ctx, path)
	}
	return store.OpenSQLite(ctx, path)
}

// shortCheckIn is the shortest time between check-ins: a machine on which a whole fleet is tried out is busy, and hosts
// that are late for three of them are silent.
const shortCheckIn = 2 * time.Second

// shortGrant is the shortest life of a grant: a host keeps the nonce of its wish for a minute.
const shortGrant = 90 * time.Second

// faster divides the times of a schedule, for trying things out.
func faster(speed int) func(string) (rollout.Numbers, error) {
	return func(name string) (rollout.Numbers, error) {
		n, err := rollout.Schedule(name)
		by := time.Duration(speed)
		for _, d := range []*time.Duration{&n.Soak, &n.CheckIn, &n.Idle, &n.Watch, &n.Recent, &n.LoadAfter} {
			*d = max(*d/by, time.Second)
		}
		n.CheckIn, n.Idle = max(n.CheckIn, shortCheckIn), max(n.Idle, shortCheckIn)
		n.GrantLife = max(n.GrantLife/by, shortGrant)
		return n, err
	}
}

// Main runs keepout-fleet and returns its exit code.
func Main(args []string, version string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("keepout-fleet", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cfg := Config{}
	flags.StringVar(&cfg.Listen, "listen", DefaultListen, "address and port")
	flags.StringVar(&cfg.StateDir, "state-dir", DefaultState, "database, keys and the first login")
	flags.StringVar(&cfg.Packages, "packages", "", "folder with metadata and packages (default STATE-DIR/packages)")
	names := flags.String("name", "", "names and addresses of this server, separated by commas, the one for people first")
	flags.DurationVar(&cfg.CheckIn, "check-in", checkIn, "how often hosts check in while nothing happens")
	speed := flags.Int("speed", 1, "divide the times of rollouts, to try things out; never in earnest")
	verify := flags.Bool("verify-audit", false, "check the audit trail in the state directory, and end")
	show := flags.Bool("version", false, "print the version, and end")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	switch {
	case flags.NArg() > 0 || *speed < 1:
		fmt.Fprintln(stderr, "keepout-fleet: there is nothing but flags, and a speed is at least 1; see --help")
		return 2
	case *show:
		fmt.Fprintln(stdout, version)
		return 0
	case *verify:
		return verifyFile(filepath.Join(cfg.StateDir, "fleet.db"), stdout, stderr)
	}
	if *names != "" {
		cfg.Names = strings.Split(*names, ",")
	}
	if *speed > 1 {
		cfg.Schedule, cfg.Tick = faster(*speed), time.Second
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg, stdout); err != nil {
		fmt.Fprintln(stderr, "keepout-fleet:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, cfg Config, stdout io.Writer) error {
	s, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "keepout-fleet serves %s\nlog in with:\n  export KEEPOUT_FLEET_LOGIN=%s\n  keepout fleet hosts\n",
		s.URL(), s.AdminFile())
	go tuneGarbage(ctx)
	return s.Run(ctx)
}

func verifyFile(path string, stdout, stderr io.Writer) int {
	if _, err := os.Stat(path); err != nil {
		fmt.Fprintln(stderr, "keepout-fleet:", err)
		return 1
	}
	entries, head, err := VerifyFile(context.Background(), path)
	var broken *audit.Broken
	switch {
	case errors.As(err, &broken):
		fmt.Fprintf(stderr, "keepout-fleet: KO-2214: the audit trail was changed: %v\n", broken)
		return 1
	case err != nil:
		fmt.Fprintln(stderr, "keepout-fleet:", err)
		return 1
	}
	fmt.Fprintf(stdout, "%d entries, unbroken, head %s\n", entries, head)
	return 0
}
