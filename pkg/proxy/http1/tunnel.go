package http1

import (
	"net"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// Tunnel ends HTTP on the connection, behind a head that was read and one that was
// written: from here on Next returns what comes, first what has come already behind the
// head, until the peer ends its half; WriteBody and Flush send bytes as they are, and
// EndBody ends this half. The heads stay pinned. While nothing comes no buffer is held.
// It is called before either half goes on; afterwards each may have its own goroutine.
func (c *Conn) Tunnel() {
	c.body = body{kind: bodyClose}
	c.tunnel = true
	c.writing = frameTunnel
}

// endHalf tells the peer that nothing more comes.
func (c *Conn) endHalf() error {
	if err := c.Flush(); err != nil {
		return err
	}
	c.writing = frameNone
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// ReadSocket returns the socket that a tunnel's next bytes come from, for who carries
// them past this Conn; nil if some have come already, or it is no socket of the kernel's as
// it is. It belongs to the half that reads.
func (c *Conn) ReadSocket() *net.TCPConn {
	if !c.tunnel || c.r < c.w {
		return nil
	}
	tcp, _ := c.nc.(*net.TCPConn)
	return tcp
}

// WriteSocket returns the socket that a tunnel's bytes go to; nil if some wait to be
// flushed, or it is none. It belongs to the half that writes.
func (c *Conn) WriteSocket() *net.TCPConn {
	if c.writing != frameTunnel || len(c.out) > 0 {
		return nil
	}
	tcp, _ := c.nc.(*net.TCPConn)
	return tcp
}

// Reset lets the connection, when it is closed, end with a reset: its peer must not take
// that for a clean end. Any goroutine may call it.
func (c *Conn) Reset() {
	if abrupt, ok := c.nc.(interface{ SetLinger(seconds int) error }); ok {
		_ = abrupt.SetLinger(0)
	}
}

// Broken reports, once Next has come to the end of a stream, and as long as EndBody has not ended
// this half, whether the peer has not ended it but broken the connection: who was writing to it,
// or carries its bytes, may have been told instead. It belongs to the half that reads.
func (c *Conn) Broken() bool {
	raw := c.socket()
	if raw == nil || c.above != nil && !c.above.Truncated() {
		return false
	}
	broken := true // as one that this side has closed
	_ = raw.Control(func(fd uintptr) { broken = sockio.IsBroken(fd) })
	// Whoever was told instead may be about to note what.
	for wait := 0; broken && c.sendFault.Load() == 0 && wait < 20; wait++ {
		time.Sleep(time.Millisecond)
	}
	return broken && syscall.Errno(c.sendFault.Load()) != syscall.EPIPE // as sockio.IsBroken has it
}

// Deliver waits, before a Reset, for the peer to take what was flushed, as [sockio.Deliver] does.
func (c *Conn) Deliver() {
	if raw := c.socket(); raw != nil {
		sockio.Deliver(raw)
	}
}

// socket is that of the kernel's which carries the connection, nil if there is none.
func (c *Conn) socket() syscall.RawConn {
	if above, ok := c.nc.(interface{ RawConn() syscall.RawConn }); ok {
		return above.RawConn()
	}
	return c.raw
}
