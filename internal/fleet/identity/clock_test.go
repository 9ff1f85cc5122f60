package identity

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"
)

// shake makes a connection between a server and a client and returns the client's error.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	end := time.Now().Add(time.Minute)
	if err := errors.Join(near.SetDeadline(end), far.SetDeadline(end)); err != nil {
		t.Fatal(err)
	}
	go func() { _ = tls.Server(far, server).Handshake() }() // the client's error says it
	return tls.Client(near, client).Handshake()
}

// TestWrongClock: a host whose clock is ten years off, in either direction, still reaches its control plane, and no
// other; a person's client does not.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	const decade = 10 * 365 * 24 * time.Hour
	const name = "fleet.example"
	for what, off := range map[string]time.Duration{
		"right": 0, "the host is behind": decade + 24*time.Hour, "the host is ahead": -decade - 24*time.Hour,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			clock := func() time.Time { return time.Now().Add(off) } // the server's; the client's is this machine's
			a, err := OpenAuthority(t.TempDir(), clock())
			if err != nil {
				t.Fatal(err)
			}
			other, err := OpenAuthority(t.TempDir(), clock())
			if err != nil {
				t.Fatal(err)
			}
			server := a.ServerTLS([]string{name}, clock)
			if err := shake(t, server, HostTLS(a.Root, name)); err != nil {
				t.Errorf("a host: %v", err)
			}
			if err := shake(t, server, PinnedTLS(a.Fingerprint(), name)); err != nil {
				t.Errorf("a host that enrols: %v", err)
			}
			if err := shake(t, server, HostTLS(other.Root, name)); err == nil {
				t.Error("a host believes another fleet's server")
			}
			if err := shake(t, server, HostTLS(a.Root, "evil.example")); err == nil {
				t.Error("a host believes a server of another name")
			}
			person := ClientTLS(a.Root)
			person.ServerName = name
			if err := shake(t, server, person); (err == nil) != (off == 0) {
				t.Errorf("a person: %v", err)
			}
		})
	}
}
