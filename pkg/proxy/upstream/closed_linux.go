package upstream

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// closeWait is the state of a socket whose peer has ended its side (RFC 9293 §3.3.2).
const closeWait = 8

// closedFor returns how long ago the peer of a connection that was left idle ended its side; 0 if
// that is not known. The segment that says so is the last one that has come, and none is
// sent behind it.
func closedFor(nc net.Conn) (ago time.Duration) {
	if above, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = above.NetConn()
	}
	socket, ok := nc.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // of a closed one, nothing is known
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && info.State == closeWait {
			ago = time.Duration(info.Last_ack_recv) * time.Millisecond
		}
	})
	return ago
}
