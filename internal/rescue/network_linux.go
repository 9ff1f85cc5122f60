package rescue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/recovery/settings"
)

const (
	carrierWait = 8 * time.Second // until a cable answers
	leaseTry    = 3 * time.Second // for one DHCP request, and
	leaseTries  = 3               // so many of them for each link and round
	roundPause  = time.Second
)

// wiredLink is a network card that the environment may use.
type wiredLink struct {
	netlink.Link
	fixed settings.Link // zero but for those that the configuration names
}

// connect brings up wired links until one has an address, and says which. It returns only then, or when ctx ends.
func connect(ctx context.Context, config settings.Network, log func(format string, args ...any)) (string, error) {
	loopback()
	said := map[string]bool{} // each trouble once: it is tried again every second
	once := func(text string) {
		if !said[text] {
			said[text] = true
			log("network: %s", text)
		}
	}
	for {
		links, err := wired(config)
		if err != nil {
			once(err.Error())
		}
		for _, l := range links {
			address, err := l.bringUp(ctx)
			if err == nil {
				return address, nil
			}
			once(l.Attrs().Name + ": " + err.Error())
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(roundPause):
		}
	}
}

func loopback() {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
}

// wired lists the cards with a cable's socket, those that the configuration names first. Wireless cards are left out:
// their secrets are not in the image.
func wired(config settings.Network) ([]wiredLink, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network cards: %w", err)
	}
	var named, others []wiredLink
	for _, link := range all {
		attrs := link.Attrs()
		ethernet := attrs.Flags&net.FlagLoopback == 0 && len(attrs.HardwareAddr) == 6
		if link.Type() != "device" || !ethernet || wireless(attrs.Name) {
			continue
		}
		i := slices.IndexFunc(config.Links, func(l settings.Link) bool {
			return strings.EqualFold(l.MAC, attrs.HardwareAddr.String())
		})
		if i < 0 {
			others = append(others, wiredLink{Link: link})
			continue
		}
		named = append(named, wiredLink{Link: link, fixed: config.Links[i]})
	}
	if len(named)+len(others) == 0 {
		return nil, errors.New("there is no wired network card; Wi-Fi is not used here")
	}
	return append(named, others...), nil
}

// sysNet is where the kernel lists network cards.
const sysNet = "/sys/class/net"

func wireless(name string) bool {
	_, err := os.Stat(filepath.Join(sysNet, name, "phy80211"))
	return err == nil
}

func (l *wiredLink) bringUp(ctx context.Context) (string, error) {
	if err := netlink.LinkSetUp(l); err != nil {
		return "", fmt.Errorf("switch it on: %w", err)
	}
	if err := l.waitCarrier(ctx); err != nil {
		return "", err
	}
	link := l.Link
	if l.fixed.VLAN != 0 {
		vlan, err := l.vlan()
		if err != nil {
			return "", err
		}
		link = vlan
	}
	if l.fixed.Address.IsValid() {
		address := &net.IPNet{
			IP:   l.fixed.Address.Addr().AsSlice(),
			Mask: net.CIDRMask(l.fixed.Address.Bits(), l.fixed.Address.Addr().BitLen()),
		}
		var resolvers []net.IP
		for _, r := range l.fixed.Resolvers {
			resolvers = append(resolvers, r.AsSlice())
		}
		return configure(link, address, l.fixed.Gateway.AsSlice(), resolvers)
	}
	return lease(ctx, link)
}

func (l *wiredLink) waitCarrier(ctx context.Context) error {
	for end := time.Now().Add(carrierWait); time.Now().Before(end); {
		link, err := netlink.LinkByIndex(l.Attrs().Index)
		if err != nil {
			return fmt.Errorf("look at it: %w", err)
		}
		if link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("no cable, or nothing at its other end")
}

func (l *wiredLink) vlan() (netlink.Link, error) {
	name := fmt.Sprintf("vlan%d", l.fixed.VLAN)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, l.Attrs().Index
	vlan := &netlink.Vlan{LinkAttrs: attrs, VlanId: l.fixed.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	err := netlink.LinkAdd(vlan)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make VLAN %d: %w", l.fixed.VLAN, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find VLAN %d: %w", l.fixed.VLAN, err)
	}
	return link, netlink.LinkSetUp(link)
}

// lease asks for an address. The lease is not renewed: a visit is shorter, or asks again.
func lease(ctx context.Context, link netlink.Link) (string, error) {
	client, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(leaseTry), nclient4.WithRetry(leaseTries))
	if err != nil {
		return "", fmt.Errorf("ask for an address: %w", err)
	}
	defer func() { _ = client.Close() }() // the lease is there or not
	got, err := client.Request(ctx, dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer))
	if err != nil {
		return "", fmt.Errorf("ask for an address: %w", err)
	}
	ack := got.ACK
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	var gateway net.IP
	if routers := ack.Router(); len(routers) > 0 {
		gateway = routers[0]
	}
	return configure(link, &net.IPNet{IP: ack.YourIPAddr, Mask: mask}, gateway, ack.DNS())
}

func configure(link netlink.Link, address *net.IPNet, gateway net.IP, resolvers []net.IP) (string, error) {
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: address}); err != nil {
		return "", fmt.Errorf("set the address %v: %w", address, err)
	}
	if len(gateway) > 0 && !gateway.IsUnspecified() {
		if err := route(link, gateway); err != nil {
			return "", err
		}
	}
	var conf strings.Builder
	for _, r := range resolvers[:min(len(resolvers), 3)] {
		fmt.Fprintf(&conf, "nameserver %s\n", r)
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(conf.String()), 0o644); err != nil {
		return "", fmt.Errorf("write down the name servers: %w", err)
	}
	return address.IP.String(), nil
}

// route sets the default route, and first one to a gateway that is not on the link's own network, as some clouds have
// it.
func route(link netlink.Link, gateway net.IP) error {
	index := link.Attrs().Index
	err := netlink.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gateway})
	if errors.Is(err, unix.ENETUNREACH) {
		bits := 8 * len(gateway)
		_ = netlink.RouteReplace(&netlink.Route{
			LinkIndex: index, Scope: netlink.SCOPE_LINK,
			Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(bits, bits)},
		})
		err = netlink.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gateway})
	}
	if err != nil {
		return fmt.Errorf("set the route to %v: %w", gateway, err)
	}
	return nil
}
