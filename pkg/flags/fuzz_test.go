package flags

import (
	"maps"
	"net"
	"net/netip"
	"testing"
)

func FuzzAnAcceptedAddressCanBeSplitAgain(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:8080", "[::1]:1", ":0", "a.b.:65535", "[fe80::1%eth0]:80", "[]:1", "http://a:1", "a:b:c", "8080", "\x00:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var address Address
		var listen ListenAddress
		reachable, listenable := address.Set(s) == nil, listen.Set(s) == nil
		if reachable && !listenable {
			t.Errorf("%q can be connected to and not listened on", s)
		}
		if !listenable {
			return
		}
		host, port, err := net.SplitHostPort(string(listen))
		if err != nil || port == "" {
			t.Errorf("%q was taken: port %q, %v", s, port, err)
		}
		if _, err := netip.ParseAddr(host); err != nil && len(host) > 253 {
			t.Errorf("%q was taken: a host of %d bytes", s, len(host))
		}
	})
}

func FuzzKeyValuesComeBackAsTheyWentIn(f *testing.F) {
	for _, seed := range []string{"a=b", "a=1,b=2", " a=1 , b==", "=", "a,b", "a=\x00", "a =b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var kv, again KeyValues
		if kv.Set(s) != nil {
			return
		}
		if err := again.Set(kv.String()); err != nil || !maps.Equal(kv, again) {
			t.Errorf("%q: %v became %v, %v", s, kv, again, err)
		}
	})
}
