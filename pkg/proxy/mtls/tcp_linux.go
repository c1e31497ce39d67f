//go:build linux && (amd64 || arm64)

package mtls

import "syscall"

// acknowledge lets the kernel acknowledge at once what has come (tcp(7), TCP_QUICKACK). A
// client that does not send small segments while others are unacknowledged (RFC 896) would
// otherwise send its request 40 ms after its last flight of the handshake, to which there
// is nothing to answer.
func acknowledge(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // it is a hint
}
