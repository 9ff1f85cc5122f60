package fleet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/fleet/access"
	"github.com/keepout-security/keepout/internal/fleet/bus"
	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/fleet/identity"
	"github.com/keepout-security/keepout/internal/fleet/store"
)

// Timeouts of connections. Handshakes get as long as they need when all hosts come back at once.
const (
	headerTime   = 20 * time.Second
	idleTime     = 15 * time.Minute
	shutdownTime = 10 * time.Second
	maxHeaders   = 16 << 10
)

// Server is one control plane. Make it with New, then Run it once.
type Server struct {
	cfg       Config
	log       *slog.Logger
	clock     func() time.Time
	lock      *durable.FileLock
	store     store.Store
	authority *identity.Authority
	bus       bus.Bus
	conductor *conductor.Conductor
	roll      *roll
	tokens    *tokens
	writer    *writer
	root      *os.Root
	listener  net.Listener
	closing   chan struct{} // closed when long-polls should end
	busy      atomic.Int64  // requests that are worked on
	waiting   atomic.Int64  // long-polls

	revocations revocations
}

// New opens the state directory, makes what is missing in it, and listens. Who calls it runs the server, or closes
// it.
func New(ctx context.Context, cfg Config) (s *Server, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s = &Server{cfg: cfg, log: cfg.Log, clock: cfg.Clock, bus: bus.NewLocal(), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if s.lock, err = durable.Lock(filepath.Join(cfg.StateDir, "lock")); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if s.authority, err = identity.OpenAuthority(cfg.StateDir, cfg.Clock()); err != nil {
		return nil, err
	}
	if s.store, err = cfg.open(ctx); err != nil {
		return nil, err
	}
	if s.roll, err = loadRoll(ctx, s.store); err != nil {
		return nil, err
	}
	if s.tokens, err = loadTokens(ctx, s.store); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Packages, 0o755); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if s.root, err = os.OpenRoot(cfg.Packages); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s.writer = newWriter(s.store, cfg.Log)
	s.conductor = conductor.New(conductor.Options{
		Store: s.store, Bus: s.bus, Clock: cfg.Clock, Director: s.authority.Director, Schedule: cfg.Schedule,
		Hosts: s.activeHosts, Lookup: s.lookupHost, Tick: cfg.Tick, Log: cfg.Log,
	})
	err = s.firstLogin(ctx, s.URL())
	return s, err
}

// URL is where the server listens.
func (s *Server) URL() string {
	host, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		return "https://" + s.listener.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = s.cfg.Names[0]
	}
	return "https://" + net.JoinHostPort(host, port)
}

// AdminFile is where the first start wrote how to log in.
func (s *Server) AdminFile() string { return filepath.Join(s.cfg.StateDir, AdminFile) }

func (s *Server) activeHosts() iter.Seq[conductor.Host] {
	return func(yield func(conductor.Host) bool) {
		for _, m := range s.roll.all() {
			if m.snapshotState() == store.Active && !yield(m.facts()) {
				return
			}
		}
	}
}

func (s *Server) lookupHost(id string) (conductor.Host, bool) {
	m := s.roll.find(id)
	if m == nil || m.snapshotState() != store.Active {
		return conductor.Host{}, false
	}
	return m.facts(), true
}

// Run serves until ctx ends or something that it needs fails. It closes all that New opened.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	// The parts end in another order than ctx: first nobody is served any more, then nothing is left to write.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	work.Go(func() {
		if err := s.conductor.Run(inner); err != nil {
			cancel(err)
		}
	})
	work.Go(func() { s.writer.run(inner) })
	work.Go(func() { s.forward(inner) })
	web := s.web()
	work.Go(func() {
		if !s.conductor.Leads(ctx) { // before that, hosts would be told that there is nothing for them
			return
		}
		if err := web.Serve(greet(s.listener, web.TLSConfig, s.cfg.MaxConns)); !errors.Is(err, http.ErrServerClosed) {
			cancel(err)
		}
	})
	<-ctx.Done()
	close(s.closing)
	bye, done := context.WithTimeout(inner, shutdownTime)
	defer done()
	err := web.Shutdown(bye)
	if err != nil {
		err = web.Close()
	}
	stop()
	work.Wait()
	err = errors.Join(err, s.close())
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// forward wakes the long-polls that a hint is about.
func (s *Server) forward(ctx context.Context) {
	sub := s.bus.Subscribe(conductor.Topic)
	defer sub.Close()
	for {
		hints, missed, err := sub.Next(ctx)
		if err != nil {
			return
		}
		all := missed
		for _, h := range hints {
			if m := s.roll.find(h.Key); m != nil {
				m.wake()
			}
			all = all || h.Key == ""
		}
		if all {
			for _, m := range s.roll.all() {
				m.wake()
			}
		}
	}
}

// close ends what New opened.
func (s *Server) close() error {
	var errs []error
	if s.listener != nil {
		_ = s.listener.Close() // usually the server has done it
	}
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// web is the HTTP server.
func (s *Server) web() *http.Server {
	return &http.Server{
		Handler: s.door(s.paths()), TLSConfig: s.authority.ServerTLS(s.cfg.Names, s.clock),
		ReadTimeout: s.cfg.RequestTime, WriteTimeout: maxWait + answerTime, ReadHeaderTimeout: headerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 32, MaxReadFrameSize: 16 << 10,
			MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10,
		},
	}
}

// paths says what serves which path; access.Allowed has one entry for each.
func (s *Server) paths() *http.ServeMux {
	options := []connect.HandlerOption{connect.WithReadMaxBytes(maxBody), connect.WithCompressMinBytes(1024)}
	mux := http.NewServeMux()
	prefix, machines := fleetpbconnect.NewHostServiceHandler(hosts{s}, options...)
	mux.Handle(prefix, machines)
	mux.Handle(access.HostService+"CheckIn", lean{s: s, others: machines, errs: connect.NewErrorWriter()})
	mux.Handle(fleetpbconnect.NewFleetServiceHandler(people{s}, options...))
	mux.Handle(access.Packages, packages{s.root})
	mux.Handle("/recovery/v1/", s.recovery())
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(fleetpb.OpenAPI()) // the client has gone, there is nobody to tell
	})
	mux.HandleFunc("/ca.pem", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(identity.PEM("CERTIFICATE", s.authority.Root.Raw))
	})
	return mux
}
