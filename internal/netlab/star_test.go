package netlab_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/netlab"
	"github.com/keepout-security/keepout/internal/testenv"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func star(t *testing.T, n int) *netlab.Star {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.NetNS)
	s, err := netlab.NewStar(n)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// echo answers each connection to the hub with the caller's address.
func echo(t *testing.T, s *netlab.Star) (address string) {
	t.Helper()
	var l net.Listener
	must(t, s.Hub.Do(func() (err error) {
		l, err = net.Listen("tcp", netlab.HubAddress+":0")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// said is what the hub answers a leaf within a time.
func said(t *testing.T, n *netlab.Namespace, address string, patience time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	text, err := io.ReadAll(c)
	return string(text), err
}

func TestLeavesReachTheHubAndNothingElse(t *testing.T) {
	s := star(t, 3)
	at := echo(t, s)
	for i, leaf := range s.Leaves {
		if got, err := said(t, leaf, at, 20*time.Second); err != nil || got != netlab.LeafAddress(i) {
			t.Errorf("leaf %d: %q %v, want %s", i, got, err, netlab.LeafAddress(i))
		}
	}
	for _, elsewhere := range []string{netlab.LeafAddress(1) + ":1", "192.0.2.1:1"} {
		_, err := said(t, s.Leaves[0], elsewhere, 20*time.Second)
		if err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("%s: %v, want no way there", elsewhere, err)
		}
	}
}

func TestCutAndHeal(t *testing.T) {
	s := star(t, 2)
	at := echo(t, s)
	must(t, s.Cut(0))
	if got, err := said(t, s.Leaves[0], at, 300*time.Millisecond); err == nil {
		t.Errorf("a leaf that is cut off was answered: %q", got)
	}
	if _, err := said(t, s.Leaves[1], at, 20*time.Second); err != nil {
		t.Errorf("the other leaf: %v", err)
	}
	must(t, s.Heal(0))
	if _, err := said(t, s.Leaves[0], at, 20*time.Second); err != nil {
		t.Errorf("after healing: %v", err)
	}
}

// TestTheMachineIsNotTouched: this process stays where it is, sees no new interface, and what it starts inside is
// inside.
func TestTheMachineIsNotTouched(t *testing.T) {
	before, err := net.Interfaces()
	must(t, err)
	here, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	s := star(t, 2)
	after, err := net.Interfaces()
	must(t, err)
	if len(after) != len(before) {
		t.Errorf("%d interfaces, before %d", len(after), len(before))
	}
	var there string
	must(t, s.Leaves[1].Do(func() error {
		out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
		there = strings.TrimSpace(string(out))
		return err
	}))
	if there == here || !strings.HasPrefix(there, "net:[") {
		t.Errorf("what is started inside has %q, this process %q", there, here)
	}
	for range 100 { // a thread that stayed inside would be used again some time
		runtime.Gosched()
		if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != here {
			t.Fatalf("a thread is in %q (%v), this process was in %q", now, err, here)
		}
	}
}

func TestNewStarRefuses(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 0, netlab.MaxLeaves + 1} {
		if _, err := netlab.NewStar(n); err == nil {
			t.Errorf("a star of %d leaves was made", n)
		}
	}
}
