package tcp_test

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bound is a socket with a port, which nobody else gets until the test ends.
func bound(tb testing.TB) (fd int, at netip.AddrPort) {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
}

// refusing is an address at which nobody listens.
func refusing(tb testing.TB) netip.AddrPort {
	tb.Helper()
	_, at := bound(tb)
	return at
}

// deaf is the address of a listener whose backlog is full: who connects hears nothing.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, at := bound(t)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		nc, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = nc.Close() })
	}
}

// acknowledged waits until the peer's kernel has all that was written, which a reset would
// otherwise throw away.
func acknowledged(nc *net.TCPConn) {
	raw, err := nc.SyscallConn()
	for left := 1; left > 0 && err == nil; time.Sleep(time.Millisecond) {
		err = raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
}
