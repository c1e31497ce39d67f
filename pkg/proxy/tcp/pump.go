package tcp

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// bulkAt is so many bytes at once that a pipe is worth its calls.
const bulkAt = 16 << 10

// end is one of the two ends of a relayed connection.
type end struct {
	net net.Conn
	raw syscall.RawConn // nil if it is not a socket of the kernel's as it is
}

func newEnd(nc net.Conn) end {
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			return end{nc, raw}
		}
	}
	return end{nc, nil}
}

// closeWrite says that nothing more comes. A connection that cannot say so is closed.
func (e end) closeWrite() {
	if half, ok := e.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails only on a connection that has broken
		return
	}
	_ = e.net.Close()
}

// reset closes the end so that its peer does not take it for a clean end.
func (e end) reset() {
	if socket, ok := e.net.(interface{ SetLinger(seconds int) error }); ok {
		_ = socket.SetLinger(0) // closing TLS says no good-bye then
	}
	_ = e.net.Close()
}

// isBroken reports whether a connection that seems to have ended, and whose own side has not, has
// done so otherwise than by its peer's FIN. Of TLS its records say so.
func (e end) isBroken() bool {
	if e.raw == nil {
		return false
	}
	broken := true // as one that this side has closed
	_ = e.raw.Control(func(fd uintptr) { broken = sockio.IsBroken(fd) })
	return broken
}

// deliver lets what was sent to the end arrive before it is reset.
func (e end) deliver() {
	raw := e.raw
	if secure, ok := e.net.(*mtls.Conn); ok {
		raw = secure.RawConn() // which has all of the records that were written
	}
	if raw != nil {
		sockio.Deliver(raw)
	}
}

// Which side of a pump failed.
type failed uint8

const (
	neither failed = iota
	reading
	writing
)

// pump carries bytes one way. It is used by one goroutine, but for moved and ended.
type pump struct {
	from, to end
	pipes    *pipes
	moved    atomic.Uint64 // bytes that to has taken
	ended    atomic.Bool   // from has ended, and to was told

	buf, rest []byte // a buffer, and what of it is to be sent
	pipe      *pipe  // or a pipe, with so many bytes to be sent
	pending   int
	bulk      bool // the last bytes were many at once
	copies    bool // these ends take no pipe
	eof       bool
	truncated bool // reading failed: the end of TLS was none that its peer has told of
	errno     syscall.Errno

	// Made once, so that a call allocates nothing.
	readable, writable func(fd uintptr) bool
}

func (p *pump) init(from, to end, pipes *pipes) {
	p.from, p.to, p.pipes = from, to, pipes
	p.readable, p.writable = p.onReadable, p.onWritable
}

// run carries until from ends or one of the two fails. It blocks.
func (p *pump) run() failed {
	if p.from.raw == nil || p.to.raw == nil {
		return p.copy()
	}
	for {
		if p.from.raw.Read(p.readable) != nil || p.errno != 0 {
			return reading
		}
		if p.eof {
			return neither
		}
		err := p.to.raw.Write(p.writable)
		p.release()
		if err != nil || p.errno != 0 {
			return writing
		}
	}
}

// onReadable takes what is there, or reports that there is nothing, holding nothing.
func (p *pump) onReadable(fd uintptr) bool {
	if p.bulk && p.splice(fd) {
		return p.pipe != nil || p.eof || p.errno != 0
	}
	buf := sockio.Get(sockio.Large)
	n, errno := sockio.Recv(fd, buf)
	for errno == syscall.EINTR {
		n, errno = sockio.Recv(fd, buf)
	}
	if n <= 0 || errno != 0 {
		sockio.Put(buf)
		p.errno, p.eof = errno, errno == 0
		if errno == syscall.EAGAIN {
			p.errno = 0
			return false
		}
		return true
	}
	p.buf, p.rest = buf, buf[:n]
	p.bulk = n == len(buf) && !p.copies
	return true
}

// splice fills a pipe from the socket. It reports false if that is to be done with a
// buffer instead; if there is nothing, p is left as it was.
func (p *pump) splice(fd uintptr) bool {
	pipe := p.pipes.get()
	if pipe == nil {
		return false
	}
	n, errno := pipe.fill(fd)
	switch {
	case errno == 0 && n > 0:
		p.pipe, p.pending, p.bulk = pipe, n, n >= bulkAt
		return true
	case errno == syscall.EINVAL || errno == syscall.ENOSYS: // what the kernel cannot do
		p.bulk, p.copies = false, true
		p.pipes.put(pipe)
		return false
	case errno != syscall.EAGAIN:
		p.errno, p.eof = errno, errno == 0
	}
	p.pipes.put(pipe)
	return true
}

// onWritable sends what was taken, or as much as the socket takes.
func (p *pump) onWritable(fd uintptr) bool {
	for p.pending > 0 || len(p.rest) > 0 {
		var n int
		var errno syscall.Errno
		if p.pipe != nil {
			n, errno = p.pipe.drain(fd, p.pending)
		} else {
			n, errno = sockio.Send(fd, p.rest, nil)
		}
		switch errno {
		case 0:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			p.errno = errno
			return true
		}
		if p.pipe != nil {
			p.pending -= n
		} else {
			p.rest = p.rest[n:]
		}
		p.moved.Add(uint64(n))
	}
	return true
}

// release gives back what bytes were carried in.
func (p *pump) release() {
	switch {
	case p.pipe == nil:
		sockio.Put(p.buf)
	case p.pending > 0:
		p.pipes.drop(p.pipe) // there are bytes in it
	default:
		p.pipes.put(p.pipe)
	}
	p.buf, p.rest, p.pipe, p.pending = nil, nil, nil, 0
}

// copy is run for what is no plain socket: TLS, or a connection within the process.
func (p *pump) copy() failed {
	secure, _ := p.from.net.(*mtls.Conn)
	for {
		var err error
		switch {
		case p.buf != nil: // what was read before the client was known to want it
		case secure != nil:
			err = p.poll(secure)
		default:
			p.buf = sockio.Get(sockio.Large)
			var n int
			n, err = p.from.net.Read(p.buf)
			p.rest = p.buf[:n]
		}
		if n := len(p.rest); n > 0 {
			if _, err := p.to.net.Write(p.rest); err != nil {
				p.release()
				return writing
			}
			p.moved.Add(uint64(n))
		}
		p.release()
		switch {
		case errors.Is(err, io.EOF):
			if p.truncated = secure != nil && secure.Truncated(); p.truncated {
				return reading
			}
			return neither
		case err != nil:
			return reading
		}
	}
}

// poll reads from TLS, holding nothing while there is nothing. It blocks, and fails past the
// read deadline too.
func (p *pump) poll(secure *mtls.Conn) error {
	var failed error
	err := secure.Poll(func() bool {
		buf := sockio.Get(sockio.Large)
		n, wait, err := secure.TryRead(buf)
		if wait || n == 0 {
			sockio.Put(buf)
			failed = err
			return !wait && err != nil
		}
		p.buf, p.rest, failed = buf, buf[:n], err
		return true
	})
	if err == nil {
		err = failed
	}
	return err
}
