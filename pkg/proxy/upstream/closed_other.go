//go:build !linux

package upstream

import (
	"net"
	"time"
)

// closedFor returns how long ago the peer of a connection ended its side; 0 if that is not known.
func closedFor(net.Conn) time.Duration { return 0 }
