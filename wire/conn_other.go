//go:build !linux

package wire

import (
	"errors"
	"os"
)

// Conn exists only on Linux; elsewhere every call returns errors.ErrUnsupported.
type Conn struct{}

// ErrFull reports that the peer does not keep up.
var ErrFull = errors.New("socket buffer full")

// ErrTooLong reports a received packet over the size of the buffer.
var ErrTooLong = errors.New("packet too long")

// NewConn is not supported on this system.
func NewConn(int) (*Conn, error) { return nil, errors.ErrUnsupported }

// Pair is not supported on this system.
func Pair(int) (*Conn, *os.File, error) { return nil, nil, errors.ErrUnsupported }

// Send is not supported on this system.
func (c *Conn) Send([]byte, int) error { return errors.ErrUnsupported }

// SendWait is not supported on this system.
func (c *Conn) SendWait([]byte, int) error { return errors.ErrUnsupported }

// Recv is not supported on this system.
func (c *Conn) Recv([]byte) (int, error) { return 0, errors.ErrUnsupported }

// RecvFile is not supported on this system.
func (c *Conn) RecvFile([]byte) (n, file int, err error) { return 0, -1, errors.ErrUnsupported }

// Shutdown does nothing on this system.
func (c *Conn) Shutdown() {}

// ShutdownRead does nothing on this system.
func (c *Conn) ShutdownRead() {}

// Close is not supported on this system.
func (c *Conn) Close() error { return errors.ErrUnsupported }

// ErrQuiet reports that nothing came for a while.
var ErrQuiet = errors.New("no packet for a while")

// Receiver exists only on Linux; elsewhere every call returns errors.ErrUnsupported.
type Receiver struct{}

// NewReceiver makes a Receiver that receives nothing.
func NewReceiver(*Conn, bool, bool) *Receiver { return &Receiver{} }

// SlotsToSpare is false on this system.
func SlotsToSpare(int) bool { return false }

// Recv is not supported on this system.
func (*Receiver) Recv([]byte) (n, file int, err error) { return 0, -1, errors.ErrUnsupported }

// Soon is not supported on this system.
func (*Receiver) Soon([]byte) (n, file int, err error) { return 0, -1, errors.ErrUnsupported }

// Await is not supported on this system.
func (*Receiver) Await() error { return errors.ErrUnsupported }

// Try is not supported on this system.
func (*Receiver) Try([]byte) (n, file int, err error) { return 0, -1, errors.ErrUnsupported }
