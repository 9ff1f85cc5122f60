package vm

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// cardMAC is the address of a test machine's first network card.
const cardMAC = "52:54:00:12:34:56"

// proxy is an HTTP proxy that connects whatever a guest names to this host, and counts.
func proxy(t testing.TB) (address string, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, err := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || err != nil {
			http.Error(w, "want CONNECT", http.StatusBadRequest)
			return
		}
		asked.Add(1)
		out, err := new(net.Dialer).DialContext(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 Connected\r\n\r\n")
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(hostAddress, port), asked
}

// TestRecoveryFullStaticNetwork: an address that was written down when the image was built is used in place of DHCP,
// and the server is reached through a proxy.
func TestRecoveryFullStaticNetwork(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		return o.seal(o.targeted("fix-proxy", q.Digest, guilty), o.keys[0], o.keys[1])
	}
	address, asked := proxy(t)
	source := o.source()
	source.Settings.Network = settings.Network{Proxy: address, Links: []settings.Link{{
		MAC: cardMAC, Address: netip.MustParsePrefix("10.0.2.77/24"), Gateway: netip.MustParseAddr(hostAddress),
	}}}
	img := buildImage(t, source)
	disk := testvm.NewDisk(t, espFiles(t, worn()))
	m := testvm.Start(t, "static", testvm.Spec{
		Kernel: testvm.DebianKernel(t, testvm.Cloud).Image, Initramfs: inFile(t, "recovery.cpio", img.Archive),
		Cmdline: consoles, Disk: disk.File,
	})
	m.ExpectWithin(`Network: wired - 10\.0\.2\.77`, storyTime)
	m.ExpectWithin("Next start: fix fix-proxy", storyTime)
	m.ExpectWithin("keepout-rescue: restart", storyTime)
	m.WaitExit(storyTime)
	if asked.Load() == 0 {
		t.Error("nobody asked the proxy")
	}
}

// A frame on the wire: two addresses, a tag of 802.1Q with the network's number, and what it carries.
const (
	tagged, carriesIPv4 = 0x8100, 0x0800
	headerBytes         = 18
	network             = 42
)

// TestRecoveryFullVLAN: the card is used on the virtual network that was written down when the image was built: what
// it asks bears the tag, and the address that comes back with it is taken.
func TestRecoveryFullVLAN(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	wire, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })
	spare, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	machineEnd := spare.LocalAddr().String()
	if err := spare.Close(); err != nil { // QEMU takes it
		t.Fatal(err)
	}
	go answerDHCP(wire)
	source := newOrganisation(t).source()
	source.Settings.NetworkSeconds, source.Settings.OneScan = 60, true
	source.Settings.Network = settings.Network{Links: []settings.Link{{MAC: cardMAC, VLAN: network}}}
	img := buildImage(t, source)
	disk := testvm.NewDisk(t, espFiles(t, boot.New()))
	m := testvm.Start(t, "vlan", testvm.Spec{
		Kernel: testvm.DebianKernel(t, testvm.Cloud).Image, Initramfs: inFile(t, "recovery.cpio", img.Archive),
		Cmdline: consoles, Disk: disk.File, Offline: true, Extra: []string{
			"-netdev", "socket,id=n0,udp=" + wire.LocalAddr().String() + ",localaddr=" + machineEnd,
			"-device", "virtio-net-pci,netdev=n0,romfile=,mac=" + cardMAC,
		},
	})
	m.ExpectWithin(`Network: wired - 192\.0\.2\.42`, storyTime)
}

// answerDHCP gives an address to whoever asks for one on the virtual network, and hears nobody else.
func answerDHCP(wire *net.UDPConn) {
	frame := make([]byte, 64<<10)
	for {
		n, from, err := wire.ReadFromUDP(frame)
		if err != nil {
			return
		}
		const ip, udp = 20, 8
		if n < headerBytes+ip+udp || binary.BigEndian.Uint16(frame[12:]) != tagged ||
			binary.BigEndian.Uint16(frame[14:])&0xfff != network || binary.BigEndian.Uint16(frame[16:]) != carriesIPv4 {
			continue
		}
		asked, err := dhcpv4.FromBytes(frame[headerBytes+ip+udp : n])
		if err != nil {
			continue
		}
		kind := dhcpv4.MessageTypeOffer
		if asked.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		server := net.IPv4(192, 0, 2, 1)
		answer, err := dhcpv4.NewReplyFromRequest(asked, dhcpv4.WithMessageType(kind),
			dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 42)), dhcpv4.WithServerIP(server),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(uint32(time.Hour/time.Second)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)))
		if err != nil {
			continue
		}
		_, _ = wire.WriteToUDP(onTheWire(asked.ClientHWAddr, server, answer.ToBytes()), from)
	}
}

// onTheWire is a DHCP answer as a frame of the virtual network.
func onTheWire(to net.HardwareAddr, server net.IP, payload []byte) []byte {
	const ip, udp = 20, 8
	frame := make([]byte, headerBytes+ip+udp, headerBytes+ip+udp+len(payload))
	copy(frame, to)
	copy(frame[6:], []byte{0x02, 0, 0, 0, 0, 1})
	put := binary.BigEndian.PutUint16
	put(frame[12:], tagged)
	put(frame[14:], network)
	put(frame[16:], carriesIPv4)
	header := frame[headerBytes:]
	header[0], header[8], header[9] = 0x45, 64, 17 // version 4, 5 words; time to live; UDP
	put(header[2:], uint16(ip+udp+len(payload)))
	copy(header[12:], server.To4())
	copy(header[16:], net.IPv4bcast.To4())
	put(header[10:], checksum(header[:ip]))
	put(header[ip:], 67)
	put(header[ip+2:], 68)
	put(header[ip+4:], uint16(udp+len(payload))) // and no checksum, which UDP allows
	return append(frame, payload...)
}

// checksum is that of RFC 791.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
