package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/health"
)

// SocketName is the admin socket's name in the run directory.
const SocketName = "keepout.sock"

// Serve answers one request by calling reply for each line; the server adds the end. ctx ends when the client hangs
// up or the server closes.
type Serve func(ctx context.Context, req Request, reply func(Reply) error) error

// Server listens on the admin socket.
type Server struct {
	listener *net.UnixListener
	serve    Serve
	ctx      context.Context //nolint:containedctx // the life of the server, handed to every request
	cancel   context.CancelFunc
	slots    chan struct{}
	wg       sync.WaitGroup
}

// Listen makes the socket in dir, which is created, and starts to serve. A socket that nobody answers on is left over
// and replaced.
func Listen(dir string, serve Serve) (*Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	path := filepath.Join(dir, SocketName)
	if other, err := Dial(context.Background(), dir); err == nil {
		_ = other.Close() // it answered, which is all that was asked
		return nil, health.Problem{
			Code: "KO-1101", Title: "another keepoutd answers on " + path, Severity: health.Failure,
			Fix: "stop the other daemon, or choose another --run-dir",
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := restrict(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &Server{listener: l, serve: serve, slots: make(chan struct{}, maxConnections)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// restrict gives the socket to root and the group keepout, where there is one.
func restrict(path string) error {
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	g, err := user.LookupGroup("keepout")
	if err != nil || os.Geteuid() != 0 {
		return nil //nolint:nilerr // without the group, only the owner may connect
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group keepout: %w", err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors; they come back
			continue
		}
		select {
		case s.slots <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.slots }()
				s.talk(conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// talk serves one connection until it ends.
func (s *Server) talk(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(s.ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	in := bufio.NewScanner(conn)
	in.Buffer(nil, maxRequest)
	broken := false // a line may have been written in part: nothing can follow it
	reply := func(r Reply) error {
		err := write(conn, r)
		broken = broken || err != nil
		return err
	}
	for {
		// The context is looked at after the deadline is set, which would otherwise undo the one that Close sets.
		if conn.SetReadDeadline(time.Now().Add(readTimeout)) != nil || s.ctx.Err() != nil || !in.Scan() {
			return
		}
		var req Request
		err := json.Unmarshal(in.Bytes(), &req)
		if err != nil {
			err = health.Problem{
				Code: "KO-2005", Title: "not a request: " + err.Error(), Severity: health.Failure,
				Fix: "see docs/control.md",
			}
		} else {
			err = s.whileConnected(conn, func(ctx context.Context) error { return s.serve(ctx, req, reply) })
		}
		end := Reply{End: true}
		if err != nil {
			var p health.Problem
			if !errors.As(err, &p) {
				p = health.Problem{Code: "KO-2006", Title: err.Error(), Severity: health.Failure}
			}
			end.Error = &p
		}
		if broken || reply(end) != nil {
			return
		}
	}
}

// whileConnected runs f with a context that ends when the client hangs up, so that a follower on a quiet host does
// not stay until the next event. Who only closes the sending side still gets the answer.
func (s *Server) whileConnected(conn *net.UnixConn, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	socket, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("watch connection: %w", err)
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		// It waits, without reading, until something happens on the socket; the deadline below ends it.
		_ = socket.Read(func(fd uintptr) (done bool) {
			fds := []unix.PollFd{{Fd: int32(fd)}} // hanging up is reported unasked
			if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
				return false
			}
			cancel()
			return true
		})
	})
	defer watch.Wait()
	defer func() { _ = conn.SetReadDeadline(time.Now()) }()
	return f(ctx)
}

func write(conn *net.UnixConn, r Reply) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return nil
}

// Close stops serving and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.wg.Wait()
	if err != nil {
		return fmt.Errorf("close admin socket: %w", err)
	}
	return nil
}
