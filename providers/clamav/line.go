package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A session that is idle longer is not used again: clamd ends it after CommandReadTimeout.
const maxIdle = 2 * time.Second

// line is a session with clamd (clamd(8), IDSESSION), which spares a connection for each file. One file at a time is
// asked about on it, so that there are as many as scans at one time; clamd numbers its answers, so that one can never
// be taken for the answer about another file.
type line struct {
	conn  *net.UnixConn
	asked int
	idle  time.Time // since when
}

// lines are the sessions that are not in use. A nil one holds none.
type lines chan *line

func openLine(ctx context.Context, socket string) (*line, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte("zIDSESSION\x00")); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("send to clamd: %w", err)
	}
	return &line{conn: conn}, nil
}

// take returns a session to use again, or nil.
func (ls lines) take() *line {
	for {
		select {
		case l := <-ls:
			if time.Since(l.idle) < maxIdle {
				return l
			}
			_ = l.conn.Close()
		default:
			return nil
		}
	}
}

// put keeps a session whose last answer was whole.
func (ls lines) put(l *line) {
	l.idle = time.Now()
	select {
	case ls <- l:
	default:
		_ = l.conn.Close()
	}
}

// hangUp ends the sessions that are not in use.
func (ls lines) hangUp() {
	for {
		select {
		case l := <-ls:
			_ = l.conn.Close()
		default:
			return
		}
	}
}

// scan has clamd look at a descriptor, on a session that is free or a new one.
func (d *daemon) scan(ctx context.Context, file int) (finding, error) {
	for {
		l, used := d.lines.take(), true
		if l == nil {
			var err error
			if l, err = openLine(ctx, d.socket); err != nil {
				return finding{}, err
			}
			used = false
		}
		reply, err := l.ask(ctx, file)
		if err == nil {
			found, err := parseFinding(reply)
			if err != nil {
				_ = l.conn.Close()
				return finding{}, err
			}
			d.lines.put(l)
			return found, nil
		}
		_ = l.conn.Close()
		if !used || ctx.Err() != nil {
			return finding{}, err
		}
		// It had gone stale, or its last user left something behind: a new one says what is the matter.
	}
}

// ask passes one descriptor and waits for the answer.
func (l *line) ask(ctx context.Context, file int) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := l.conn.Write([]byte("zFILDES\x00")); err != nil {
		return "", fmt.Errorf("send to clamd: %w", err)
	}
	// The descriptor travels with one byte of its own.
	if _, _, err := l.conn.WriteMsgUnix([]byte{0}, syscall.UnixRights(file), nil); err != nil {
		return "", fmt.Errorf("pass the descriptor to clamd: %w", err)
	}
	l.asked++
	reply, err := readReply(l.conn)
	if err != nil {
		return "", err
	}
	if !stop() { // the deadline may be set at any moment: nobody can use this connection again
		return "", fmt.Errorf("wait for clamd: %w", context.Cause(ctx))
	}
	return cutNumber(reply, l.asked)
}

// readReply reads up to the end of one message.
func readReply(from io.Reader) (string, error) {
	var reply []byte
	buf := make([]byte, 512)
	for {
		n, err := from.Read(buf)
		reply = append(reply, buf[:n]...)
		if bytes.IndexByte(reply, 0) >= 0 || len(reply) > maxReply || err == io.EOF {
			return cutReply(reply)
		}
		if err != nil {
			return "", fmt.Errorf("read from clamd: %w", err)
		}
	}
}

// cutNumber takes "N: " off an answer in a session.
func cutNumber(reply string, want int) (string, error) {
	rest, ok := strings.CutPrefix(reply, strconv.Itoa(want)+": ")
	if !ok {
		return "", fmt.Errorf("%w: to question %d: %.80q", errReply, want, reply)
	}
	return rest, nil
}
