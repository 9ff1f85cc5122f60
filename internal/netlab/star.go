package netlab

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// HubAddress is where every namespace of a star reaches the hub.
	HubAddress = "10.88.0.1"
	// MaxLeaves is the most leaves of a star.
	MaxLeaves = 1000

	eachNet = 250 // leaves that share the third number of their addresses
)

// Star is a hub and leaves, each in a namespace of its own. A leaf reaches the hub and nobody else. It is safe for
// concurrent use, but for Close.
type Star struct {
	Hub    *Namespace
	Leaves []*Namespace
}

// NewStar makes a star of n leaves, 1 to MaxLeaves. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
func NewStar(n int) (s *Star, err error) {
	if n < 1 || n > MaxLeaves {
		return nil, fmt.Errorf("a star of %d leaves: 1 to %d", n, MaxLeaves)
	}
	s = &Star{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if s.Hub, err = New(); err != nil {
		return s, err
	}
	if err := s.Hub.Do(func() error { return address("lo", HubAddress) }); err != nil {
		return s, err
	}
	for i := range n {
		leaf, err := New()
		if err != nil {
			return s, err
		}
		s.Leaves = append(s.Leaves, leaf)
		if err := s.join(i); err != nil {
			return s, fmt.Errorf("join leaf %d: %w", i, err)
		}
	}
	return s, nil
}

// LeafAddress is the address of a leaf.
func LeafAddress(i int) string { return fmt.Sprintf("10.88.%d.%d", 1+i/eachNet, 1+i%eachNet) }

// The names of a pair's ends. Each leaf has only one.
const leafEnd = "eth0"

func hubEnd(i int) string { return fmt.Sprintf("leaf%d", i) }

// join makes the pair of a leaf, with an address at the leaf's end and a route at each.
func (s *Star) join(i int) error {
	leaf := s.Leaves[i]
	err := s.Hub.Do(func() error {
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: hubEnd(i), TxQLen: -1}, PeerName: leafEnd,
			PeerNamespace: netlink.NsFd(leaf.file.Fd()),
		}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
		return attach(hubEnd(i), LeafAddress(i))
	})
	if err != nil {
		return err
	}
	return leaf.Do(func() error {
		if err := address(leafEnd, LeafAddress(i)); err != nil {
			return err
		}
		return attach(leafEnd, HubAddress)
	})
}

// Cut takes a leaf off the network: nothing gets through, and nobody is told.
func (s *Star) Cut(i int) error {
	return s.Hub.Do(func() error {
		link, err := netlink.LinkByName(hubEnd(i))
		if err == nil {
			err = netlink.LinkSetDown(link)
		}
		if err != nil {
			return fmt.Errorf("cut leaf %d off: %w", i, err)
		}
		return nil
	})
}

// Heal undoes Cut.
func (s *Star) Heal(i int) error {
	return s.Hub.Do(func() error { return attach(hubEnd(i), LeafAddress(i)) })
}

// Close ends the star once no process is in it any more.
func (s *Star) Close() error {
	var errs []error
	for _, n := range append([]*Namespace{s.Hub}, s.Leaves...) {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// attach starts an interface of the thread's namespace and makes the route to the one address behind it. The kernel
// drops the route when the interface is stopped.
func attach(name, peer string) error {
	if err := up(name); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the interface %s: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: only(peer), Scope: unix.RT_SCOPE_LINK}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %s: %w", peer, err)
	}
	return nil
}

// address gives an interface of the thread's namespace its one address.
func address(name, ip string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: only(ip)})
	}
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, ip, err)
	}
	return nil
}

// only is the network of one address.
func only(ip string) *net.IPNet {
	return &net.IPNet{IP: net.ParseIP(ip).To4(), Mask: net.CIDRMask(32, 32)}
}
