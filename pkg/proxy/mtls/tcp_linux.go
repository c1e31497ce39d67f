//go:build linux && (amd64 || arm64)

package mtls

import "syscall"

// hasEnded reports whether the peer has ended its side of a TCP connection, even where
// bytes that came before wait to be read. The state is the first byte of tcp_info
// (tcp(7), linux/tcp.h).
func hasEnded(fd uintptr) bool {
	const closed, closeWait = 7, 8 // TCP_CLOSE, TCP_CLOSE_WAIT
	info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
	state := info & 0xff
	return err != nil || state == closed || state == closeWait
}

// acknowledge lets the kernel acknowledge at once what has come (tcp(7), TCP_QUICKACK). A
// client that does not send small segments while others are unacknowledged (RFC 896) would
// otherwise send its request 40 ms after its last flight of the handshake, to which there
// is nothing to answer.
func acknowledge(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // it is a hint
}
