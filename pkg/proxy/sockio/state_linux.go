//go:build linux && (amd64 || arm64)

package sockio

import "syscall"

// The states of a socket (tcp_states.h).
const (
	stateClose     = 7
	stateCloseWait = 8
)

// state is the first byte of struct tcp_info.
func state(fd uintptr) int {
	info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
	if err != nil {
		return stateClose
	}
	return info & 0xff
}

// HasEnded reports whether the peer of a TCP socket has ended its side, or the connection is
// gone, even where bytes that came before wait to be read. Where the system does not tell,
// which is so outside of Linux, it is false.
func HasEnded(fd uintptr) bool {
	is := state(fd)
	return is == stateCloseWait || is == stateClose
}

// IsGone reports whether a TCP socket is without a connection, as after a reset. Where the
// system does not tell, it is false.
func IsGone(fd uintptr) bool { return state(fd) == stateClose }
