package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// ErrUnreachable reports that no daemon listens.
var ErrUnreachable = errors.New("daemon is not reachable")

// Client talks to a daemon. It is not safe for concurrent use.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to the daemon whose run directory is dir.
func Dial(ctx context.Context, dir string) (*Client, error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, SocketName))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return &Client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// Do sends a request and calls each for every reply before the end. A refusal of the daemon is a health.Problem.
// When ctx ends, Do returns nil: that is how one stops following.
func (c *Client) Do(ctx context.Context, req Request, each func(Reply) error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })
	defer stop()
	b, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if _, err := c.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	for {
		line, err := c.in.ReadBytes('\n')
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it closed the connection", ErrUnreachable)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		var r Reply
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("decode reply: %w", err)
		}
		if r.Error != nil {
			return *r.Error
		}
		if r.End {
			return nil
		}
		if err := each(r); err != nil {
			return err
		}
	}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Unreachable says what to do about a daemon in dir that could not be asked.
func Unreachable(dir string, err error) health.Problem {
	p := health.Problem{Code: "KO-2001", Title: err.Error(), Severity: health.Failure}
	if errors.Is(err, fs.ErrPermission) {
		p.Fix = "become root or a member of the group keepout: sudo " + Command(dir, "status")
	} else {
		p.Fix = "start keepoutd, or name the run directory of one that runs: keepout --run-dir DIR status"
	}
	return p
}
