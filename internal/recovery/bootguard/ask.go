//go:build linux

package bootguard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

// Bounds of a question to the core.
const (
	askTime  = 10 * time.Second
	maxReply = 4 << 20
)

// status is what the core says of itself, as far as a boot is judged by it (docs/control.md).
type status struct {
	Since     time.Time `json:"since"`
	Providers []struct {
		ID       string `json:"id"`
		State    string `json:"state"`
		Mode     string `json:"mode"`
		Restarts int    `json:"restarts"`
	} `json:"providers"`
	Watching []struct {
		Path   string `json:"path"`
		Remote bool   `json:"remote"`
	} `json:"watching"`
	Sensor struct {
		Unasked map[string]uint64 `json:"unasked"`
	} `json:"sensor"`
	Verdicts map[string]uint64 `json:"verdicts"`
}

// events is how many events the core has seen.
func (s *status) events() (n uint64) {
	for _, c := range s.Sensor.Unasked {
		n += c
	}
	for _, name := range []string{"allowed", "denied", "timeout", "unavailable", "unmatched"} {
		n += s.Verdicts[name]
	}
	return n
}

// ask asks the core for its status.
func ask(ctx context.Context, runDir string) (*status, error) {
	s, err := request(ctx, runDir, "status")
	if err == nil && s == nil {
		err = errors.New("the core sent no status")
	}
	return s, err
}

// prove tells the core that canaries are about to be touched.
func prove(ctx context.Context, runDir string) error {
	_, err := request(ctx, runDir, "checkup")
	return err
}

// request sends one request and returns the status in the reply, if there is one. Only what this program needs of the
// protocol is here: the package that speaks all of it links the core's parts.
func request(ctx context.Context, runDir, what string) (*status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(runDir, "keepout.sock"))
	if err != nil {
		return nil, fmt.Errorf("the core cannot be reached: %w", err)
	}
	defer func() { _ = conn.Close() }() // only read from
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, `{"do":"`+what+`"}`+"\n"); err != nil {
		return nil, fmt.Errorf("ask the core: %w", err)
	}
	lines := bufio.NewScanner(io.LimitReader(conn, maxReply))
	lines.Buffer(nil, maxReply)
	for lines.Scan() {
		reply := struct {
			Status *status `json:"status"`
			End    bool    `json:"end"`
		}{}
		if err := json.Unmarshal(lines.Bytes(), &reply); err != nil {
			return nil, fmt.Errorf("the core's answer: %w", err)
		}
		if reply.Status != nil {
			return reply.Status, nil
		}
		if reply.End {
			break
		}
	}
	return nil, lines.Err()
}
