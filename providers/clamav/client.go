package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// maxReply bounds what clamd may say to one command, in bytes.
const maxReply = 4 << 10

// errReply marks an answer that does not have the form that the protocol gives it (clamd(8), "COMMANDS").
var errReply = errors.New("clamd gave an unknown answer")

// finding is what clamd found.
type finding struct {
	name   string // the signature; empty: nothing found
	trying string // not empty: clamd could not finish, and why
}

func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to clamd: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("connect to clamd: got a %T", c)
	}
	return conn, nil
}

// ask opens a connection for one command.
func ask(ctx context.Context, socket, command string) (string, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	// Ends the wait when its deadline has passed.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte("z" + command + "\x00")); err != nil {
		return "", fmt.Errorf("send to clamd: %w", err)
	}
	return readReply(conn)
}

// cutReply takes the one message that a reply must consist of.
func cutReply(reply []byte) (string, error) {
	switch end := bytes.IndexByte(reply, 0); {
	case len(reply) == 0:
		return "", fmt.Errorf("%w: it hung up", errReply)
	case len(reply) > maxReply:
		return "", fmt.Errorf("%w: more than %d bytes", errReply, maxReply)
	case end != len(reply)-1:
		return "", fmt.Errorf("%w: %.80q", errReply, reply)
	default:
		return string(reply[:end]), nil
	}
}

// parseFinding reads "fd[N]: OK", "fd[N]: NAME FOUND" or "fd[N]: REASON ERROR", where N is clamd's number.
func parseFinding(reply string) (finding, error) {
	bad := fmt.Errorf("%w: %.80q", errReply, reply)
	rest, ok := strings.CutPrefix(reply, "fd[")
	if !ok {
		return finding{}, bad
	}
	number, rest, ok := strings.Cut(rest, "]: ")
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return finding{}, bad
	}
	if rest == "OK" {
		return finding{}, nil
	}
	if reason, ok := strings.CutSuffix(rest, " ERROR"); ok && reason != "" {
		return finding{trying: reason}, nil
	}
	name, ok := strings.CutSuffix(rest, " FOUND")
	if !ok || name == "" {
		return finding{}, bad
	}
	// AlertExceedsMax makes clamd say so when it gave up at a limit; without it, it says OK.
	if strings.HasPrefix(name, "Heuristics.Limits.Exceeded") {
		return finding{trying: name}, nil
	}
	return finding{name: name}, nil
}

// ping reports whether clamd answers.
func ping(ctx context.Context, socket string) error {
	reply, err := ask(ctx, socket, "PING")
	if err == nil && reply != "PONG" {
		err = fmt.Errorf("%w: %.80q", errReply, reply)
	}
	return err
}

// contentVersion asks clamd for its version, which names the daily signatures where there are any, and adds
// what identifies the folder as a whole.
func contentVersion(ctx context.Context, socket string, db database) (string, error) {
	reply, err := ask(ctx, socket, "VERSION")
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(reply, "ClamAV ") {
		return "", fmt.Errorf("%w: %.80q", errReply, reply)
	}
	parts := strings.SplitN(reply, "/", 3) // ClamAV 1.4.6/27800/Mon Nov 17 08:59:40 2025
	daily := strings.Join(parts[:min(len(parts), 2)], "/")
	return fmt.Sprintf("%.60s, %s, %s", daily, plural(db.files, "file"), db.digest), nil
}

// plural is a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
