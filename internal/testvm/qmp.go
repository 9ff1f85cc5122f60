package testvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	qmpTime    = 20 * time.Second // for one command; a busy host is slow
	qmpConnect = 30 * time.Second // until QEMU listens
)

// monitor speaks QEMU's machine protocol: one JSON object a line, events between the answers.
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	dec  *json.Decoder
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	QMP   json.RawMessage `json:"QMP"`
	Event string          `json:"event"`
}

var errEnded = errors.New("the machine ended at once")

// connect waits until QEMU listens, and leaves the mode in which only capabilities are spoken about.
func connect(socket string, done <-chan struct{}) (*monitor, error) {
	for end := time.Now().Add(qmpConnect); ; {
		conn, err := net.Dial("unix", socket) //nolint:noctx // a local socket answers at once
		if err == nil {
			m := &monitor{conn: conn, dec: json.NewDecoder(conn)}
			err = m.do("qmp_capabilities", nil)
			return m, err
		}
		select {
		case <-done:
			return nil, errEnded
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// ask has QEMU's own monitor carry out a line, as a person would type it, and returns what it prints.
func (m *monitor) ask(line string) (printed string, err error) {
	answer, err := m.call("human-monitor-command", map[string]any{"command-line": line})
	if err != nil {
		return "", err
	}
	err = json.Unmarshal(answer, &printed)
	return printed, err
}

func (m *monitor) do(command string, arguments map[string]any) error {
	_, err := m.call(command, arguments)
	return err
}

func (m *monitor) call(command string, arguments map[string]any) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conn.SetDeadline(time.Now().Add(qmpTime)); err != nil {
		return nil, err
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return nil, fmt.Errorf("send %s: %w", command, err)
	}
	for {
		var r qmpReply
		if err := m.dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("read the answer to %s: %w", command, err)
		}
		switch {
		case r.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, r.Error.Desc)
		case r.Return != nil:
			return r.Return, nil
		}
	}
}

func (m *monitor) close() { _ = m.conn.Close() }
