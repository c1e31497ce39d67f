//go:build !linux

package tcp_test

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func refusing(tb testing.TB) netip.AddrPort {
	tb.Skip("a port without a listener is made for Linux")
	return netip.AddrPort{}
}

func deaf(t *testing.T) netip.AddrPort {
	t.Skip("how a backlog is filled is known of Linux")
	return netip.AddrPort{}
}

func acknowledged(*net.TCPConn) { time.Sleep(100 * time.Millisecond) }
