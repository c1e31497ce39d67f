package sidecar

import (
	"net"
	"net/netip"
	"testing"
)

func TestAddressThatIsAdvertisedIsOneThatPeersCanReach(t *testing.T) {
	at := func(s string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for _, c := range []struct{ flag, inbound, want string }{
		{"", "127.0.0.2:5", "127.0.0.2:5"},
		{"", "[::ffff:10.0.0.1]:5", "10.0.0.1:5"},
		{"", "0.0.0.0:5", "127.0.0.1:5"}, // from which the control plane is reached
		{"", "[::]:5", "127.0.0.1:5"},
		{"", "[fe80::1%eth0]:5", ""}, // a zone means something on one machine only
		{"10.0.0.9", "0.0.0.0:5", "10.0.0.9:5"},
		{"10.0.0.9:6", "0.0.0.0:5", "10.0.0.9:6"},
		{"::ffff:10.0.0.9", "0.0.0.0:5", "10.0.0.9:5"},
		{"[fd00::1]:6", "[fe80::1%eth0]:5", "[fd00::1]:6"},
		{"10.0.0.9:0", "0.0.0.0:5", ""},
		{"255.255.255.255", "0.0.0.0:5", ""},
		{"224.0.0.1", "0.0.0.0:5", ""},
		{"::ffff:0.0.0.0", "0.0.0.0:5", ""},
	} {
		address, port, err := advertised(c.flag, at(c.inbound), "127.0.0.1:1")
		if got := netip.AddrPortFrom(address, port); (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("--advertise-addr %q at %s: %v, %v, want %q", c.flag, c.inbound, got, err, c.want)
		}
	}
}
