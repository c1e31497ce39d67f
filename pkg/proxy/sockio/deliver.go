package sockio

import (
	"syscall"
	"time"
)

const (
	// lingerTime bounds the wait for a peer to take what it was sent.
	lingerTime = time.Second
	// lingerStep is how often it is looked at.
	lingerStep = 5 * time.Millisecond
)

// Deliver lets what was sent on a socket arrive before it is reset, for a reset throws away
// what is under way. It waits while bytes do get through, and not for more than a second
// otherwise; whoever closes the socket ends it. Where the system does not tell, it does nothing.
func Deliver(socket syscall.RawConn) {
	left := 0
	look := func(fd uintptr) { left = Unsent(fd) }
	ask := func() int {
		if socket.Control(look) != nil {
			return 0 // it is closed, and sends nothing
		}
		return left
	}
	before := ask()
	for waited := time.Duration(0); before > 0 && waited < lingerTime; waited += lingerStep {
		time.Sleep(lingerStep)
		if now := ask(); now < before {
			before, waited = now, 0
		}
	}
}
