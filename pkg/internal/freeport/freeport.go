// Package freeport finds ports for processes that tests start.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Find returns a port that nothing listens on at 127.0.0.1. It is below those that the kernel gives out by
// itself, so that nobody gets it meanwhile, and who was there finds it free again when it comes back. No other call of
// Find returns it, in whatever process of this machine, as long as the process lives that found it.
func Find() (int, error) {
	for range 100 {
		port := 15_000 + rand.IntN(17_000)
		claimed, err := claim(port)
		if err != nil {
			return 0, err
		}
		if !claimed {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// claim takes a name that only one process can have and that the kernel frees when it ends: an abstract Unix address
// (unix(7)). Its socket stays open on purpose.
func claim(port int) (bool, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	err = unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("@fairlead/freeport/%d", port)})
	if err == nil {
		return true, nil
	}
	_ = unix.Close(s)
	if errors.Is(err, unix.EADDRINUSE) {
		return false, nil
	}
	return false, err
}

// For is Find for a test, which ends without one.
func For(t testing.TB) int {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
