package fleet

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"time"
)

// Bounds of what is not a connection yet.
const (
	handshakeTime = 20 * time.Second
	handshakes    = 16 // at once, for each processor: more would only make all of them late
)

// greeter accepts connections and does the handshake of TLS before it hands them on. It bounds how many there are, and
// how many shake hands at once: when a whole fleet comes back, those that are served are served quickly, and the others
// wait in the kernel. And the deep stack of a handshake ends with it, while the connection may stay for days.
type greeter struct {
	net.Listener

	config *tls.Config
	conns  chan struct{} // one token for each connection
	ready  chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
}

// greet begins to accept.
func greet(l net.Listener, config *tls.Config, conns int) *greeter {
	g := &greeter{
		Listener: l, config: config, conns: make(chan struct{}, conns), ready: make(chan net.Conn),
		failed: make(chan error, 1), closed: make(chan struct{}),
	}
	go g.run()
	return g
}

func (g *greeter) run() {
	busy := make(chan struct{}, handshakes*runtime.GOMAXPROCS(0))
	for {
		select {
		case g.conns <- struct{}{}:
		case <-g.closed:
			return
		}
		select {
		case busy <- struct{}{}:
		case <-g.closed:
			return
		}
		c, err := g.Listener.Accept()
		if err != nil {
			g.failed <- err
			return
		}
		go func() {
			g.shake(&counted{Conn: c, release: sync.OnceFunc(func() { <-g.conns })})
			<-busy
		}()
	}
}

// shake does the handshake and hands the connection on.
func (g *greeter) shake(c net.Conn) {
	conn := tls.Server(c, g.config)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // it is over either way
		return
	}
	select {
	case g.ready <- conn:
	case <-g.closed:
		_ = conn.Close() // as above
	}
}

// Accept implements net.Listener.
func (g *greeter) Accept() (net.Conn, error) {
	select {
	case c := <-g.ready:
		return c, nil
	case err := <-g.failed:
		return nil, err
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *greeter) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// counted gives its token back when it is closed.
type counted struct {
	net.Conn

	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
