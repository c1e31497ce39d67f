//go:build linux && (amd64 || arm64)

package sockio

import (
	"syscall"
	"unsafe"
)

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

// IsBroken reports, of a TCP socket whose stream seems to have ended, and whose own side was not
// ended, whether that was otherwise than by its peer's FIN. Whoever writes first after a reset is
// told of it, and who reads then sees an end like any other; so it has to be asked for. A reset
// behind the FIN, which says that the peer does not want what is still sent to it, is EPIPE
// (tcp_reset). Where the system does not tell, it is false.
func IsBroken(fd uintptr) bool {
	if !IsGone(fd) {
		return false
	}
	pending, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
	return syscall.Errno(pending) != syscall.EPIPE
}

// Unsent returns how many bytes the peer of a TCP socket has not acknowledged yet (SIOCOUTQ), and
// may; 0 where the system does not tell.
func Unsent(fd uintptr) int {
	var n int32
	if !IsGone(fd) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	}
	return int(n)
}
