package sockio

import (
	"syscall"
	"time"
)

const (
	// lingerTime bounds the wait for a peer to take what it was sent.
	lingerTime = time.Second
	// lingerStep is how soon it is looked at first; then less and less often, up to lingerSteps,
	// for whoever takes little at a time may take long.
	lingerStep  = 5 * time.Millisecond
	lingerSteps = 100 * time.Millisecond
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
	step := lingerStep
	for waited := time.Duration(0); before > 0 && waited < lingerTime; waited += step {
		time.Sleep(step)
		step = min(2*step, lingerSteps)
		if now := ask(); now < before {
			before, waited = now, 0
		}
	}
}
