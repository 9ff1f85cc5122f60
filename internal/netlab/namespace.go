package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It lives until Close and as long as a process is in it. It is safe for concurrent
// use.
type Namespace struct{ file *os.File }

// New makes a namespace whose loopback is up. It needs CAP_SYS_ADMIN.
func New() (*Namespace, error) {
	n := &Namespace{}
	err := OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("keep the network namespace: %w", err)
		}
		n.file = f
		if err := up("lo"); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// OnThread runs f on a thread that nothing else uses meanwhile or afterwards, so that f may change what threads have of
// their own.
func OnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and is what others take for the process. While it is held here, f gets another.
			defer runtime.UnlockOSThread()
			done <- OnThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// Enter moves the calling thread into the namespace. The caller has locked its goroutine to the thread, for good;
// processes that it starts are in the namespace, too.
func (n *Namespace) Enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	return nil
}

// Do runs f in the namespace, on a thread of its own. Sockets that f opens stay there; goroutines that it starts do not
// run there.
func (n *Namespace) Do(f func() error) error {
	return OnThread(func() error {
		if err := n.Enter(); err != nil {
			return err
		}
		return f()
	})
}

// Dial connects from inside the namespace. The address holds a number, no name: a name would be looked up elsewhere.
func (n *Namespace) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Close lets the namespace end with the last process in it.
func (n *Namespace) Close() error { return n.file.Close() }

// up starts an interface of the thread's namespace.
func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("start the interface %s: %w", name, err)
	}
	return nil
}
