package controlplane

import (
	"net"
	"net/netip"
	"testing"
)

func TestWhereOtherControlPlanesReachThisOneIsWhatItIsBoundToIfTheyCan(t *testing.T) {
	near, far := []string{"127.0.0.1:2379", "http://localhost:1", "unix:///etcd"}, []string{"127.0.0.1:2379", "http://10.0.0.9:2379/"}
	for _, c := range []struct {
		etcd  []string
		flag  string
		bound string
		want  string
	}{
		{nil, "", "127.0.0.1:15010", ""},
		{near, "", "127.0.0.1:15010", "127.0.0.1:15010"},
		{near, "", "[::1]:15010", "[::1]:15010"},
		{near, "", "0.0.0.0:15010", "127.0.0.1:15010"},
		{near, "", "[::]:15010", "127.0.0.1:15010"},
		{near, "", "10.0.0.1:15010", "10.0.0.1:15010"},
		{far, "", "10.0.0.1:15010", "10.0.0.1:15010"},
		{far, "", "127.0.0.1:15010", ""},
		{far, "", "[::1]:15010", ""},
		{far, "", "0.0.0.0:15010", ""},
		{far, "cp-1.mesh:15010", "0.0.0.0:15010", "cp-1.mesh:15010"},
		{near, "10.0.0.1:443", "127.0.0.1:15010", "10.0.0.1:443"},
	} {
		config := Config{SagaEtcdEndpoints: c.etcd, SagaPeerAddr: c.flag}
		if got := config.sagaPeerAddr(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.bound))); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
