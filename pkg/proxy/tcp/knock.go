package tcp

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/knock"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// heed waits for the client's first bytes, and answers them if they are a knock. A client that
// does not knock may be one whose host speaks first: heed reports false if that has spoken, or
// ended, while the client had said too little. An end without a word is kept for a while from
// a client whose knock may be on its way, for who knocks takes it for a refusal.
func (c *Conn) heed() bool {
	heard := knock.TooLittle
	hear := func(fd uintptr) bool {
		heard = hearKnock(fd)
		return heard != knock.TooLittle
	}
	_ = c.client.raw.Control(func(fd uintptr) { hear(fd) }) // fails only on a closed connection, as all below does
	if heard == knock.TooLittle {
		spoken := make(chan struct{})
		go func() {
			defer close(spoken)
			until := past()
			if errors.Is(sockio.Await(c.upstream.net.(syscall.Conn)), io.EOF) {
				until = time.Now().Add(c.relay.config.KnockTimeout)
			}
			_ = c.client.net.SetReadDeadline(until)
		}()
		_ = c.client.raw.Read(hear)
		_ = c.upstream.net.SetReadDeadline(past())
		<-spoken
		_ = c.client.net.SetReadDeadline(time.Time{})
		_ = c.upstream.net.SetReadDeadline(time.Time{})
	}
	if heard == knock.Whole && knock.Take(c.client.net) == nil {
		_ = knock.Answer(c.client.net) // who cannot be answered is found to be gone when it is relayed
	}
	return heard != knock.TooLittle
}

// takeLate takes a knock that comes after the host has spoken, which answers it.
func (c *Conn) takeLate() {
	heard := knock.TooLittle
	_ = c.client.raw.Read(func(fd uintptr) bool {
		heard = hearKnock(fd)
		return heard != knock.TooLittle
	})
	if heard == knock.Whole {
		_ = knock.Take(c.client.net)
	}
}

// hearKnock looks whether a connection begins with a knock, and leaves it where it is. What
// has ended, or broken, does not.
func hearKnock(fd uintptr) knock.Heard {
	var b [knock.Size]byte
	n, errno := sockio.Peek(fd, b[:])
	for errno == syscall.EINTR {
		n, errno = sockio.Peek(fd, b[:])
	}
	switch {
	case errno == syscall.EAGAIN:
		return knock.TooLittle
	case errno != 0 || n == 0:
		return knock.Nothing
	}
	heard := knock.Hear(b[:n])
	if heard == knock.TooLittle && sockio.HasEnded(fd) {
		return knock.Nothing
	}
	return heard
}
