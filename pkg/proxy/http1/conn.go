package http1

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Role is which half of the protocol a connection plays.
type Role uint8

// The roles.
const (
	Server Role = iota // reads requests, writes responses
	Client             // writes requests, reads responses
)

// Conn speaks HTTP/1.1 on one connection. See the package comment for who may
// call what at the same time.
type Conn struct {
	// InPlace may read a message that is here whole, answer it, end the exchange and return true:
	// then Await goes on without the read that would find that the next message has not come yet.
	// It must not read what is not here; it returns false where it leaves the message to who called
	// Await, or where none is to follow. Set it before the first Await, or leave it nil.
	InPlace func() bool

	nc      net.Conn
	raw     syscall.RawConn // nil: not a socket of ours to read from directly
	readFD  func(fd uintptr) bool
	awaitFD func(fd uintptr) bool
	askFD   func(fd uintptr) bool
	sendFD  func(fd uintptr) bool
	peekFD  func(fd uintptr)
	peeked  peeked  // by the owner; others have their own
	above   layered // nil: not TLS
	tryFn   func() bool
	role    Role
	limits  Limits

	// The reading half. head holds the pinned head; in is where body bytes are read
	// to and is head itself until the body needs more room. in[r:w] is unread.
	head  []byte
	in    []byte
	base  int // in[:base] is pinned
	r, w  int
	n     int           // of the last raw read
	err   syscall.Errno // of the last raw read
	asked bool          // the last raw read was Ask's, and nobody has looked at it yet
	fail  error         // of the last read from above, or by Await
	body  body
	eager bool  // of a client: the next response is likely to be large, as the last one was
	fault error // why the stream cannot be trusted any more; nil: it can
	// tunnel: what is read is not HTTP any more.
	tunnel bool
	// What came behind a chunked body, and the lists of Connection before it.
	trailers  []wire.Field
	nominated [][]byte

	// The writing half.
	out       []byte        // nil: nothing waits to be flushed
	iov       [2][]byte     // being sent
	bufs      net.Buffers   // iov, for what is not a socket of ours
	sendErr   syscall.Errno // of the last raw send
	sendFault atomic.Uint32 // the first errno of raw sends, for the reading half too; 0: none
	unsent    bool          // what Ask is to send
	written   int64
	writing   framing
	left      int64 // of the body being written, if its length is known

	// Of a server: what is answered is a HEAD, of HTTP/1.0, a CONNECT.
	toHead    bool
	to10      bool
	toConnect bool
}

// layered is a connection above a socket, such as one of TLS, that can be waited for, and
// asked about its peer, as a socket can.
type layered interface {
	// Poll calls f now and whenever bytes may have come, until it returns true.
	Poll(f func() bool) error
	// TryRead is Read that says to wait instead of waiting.
	TryRead(p []byte) (n int, wait bool, err error)
	// Truncated reports whether the end that was read may be somebody else's than the peer's.
	Truncated() bool
	Alive() bool
	PeerGone() bool
	Pending() bool
}

// NewConn starts an exchange of messages on nc. limits may be nil; they are
// copied. The caller closes nc and calls Release afterwards.
func NewConn(nc net.Conn, role Role, limits *Limits) *Conn {
	c := &Conn{nc: nc, role: role, limits: limits.withDefaults()}
	if sc, ok := nc.(*net.TCPConn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.readFD, c.awaitFD, c.askFD = c.readOnce, c.awaitOnce, c.askOnce
			c.sendFD, c.peekFD = c.sendAll, c.peeked.look
		}
	}
	if above, ok := nc.(layered); ok {
		c.above, c.tryFn = above, c.tryOnce
	}
	return c
}

// Release gives the buffers back. The Conn must not be used afterwards.
func (c *Conn) Release() {
	if len(c.in) > 0 && (len(c.head) == 0 || &c.in[0] != &c.head[0]) {
		sockio.Put(c.in)
	}
	sockio.Put(c.head)
	sockio.Put(c.out[:0])
	c.head, c.in, c.out = nil, nil, nil
}

// readOnce is one recv(2). On an idle connection it gives its buffer back before
// it lets the runtime wait for bytes.
func (c *Conn) readOnce(fd uintptr) bool {
	c.buffer()
	for {
		if c.n, c.err = sockio.Recv(fd, c.in[c.w:]); c.err != syscall.EINTR {
			break
		}
	}
	if c.err != syscall.EAGAIN {
		return true
	}
	c.rest()
	return false
}

// tryOnce is readOnce above a socket.
func (c *Conn) tryOnce() bool {
	c.buffer()
	var wait bool
	c.n, wait, c.fail = c.above.TryRead(c.in[c.w:])
	if wait {
		c.rest()
	}
	return !wait
}

// buffer sees to it that there is one to read to.
func (c *Conn) buffer() {
	if c.head == nil {
		c.firstBuffer()
	}
	if c.in == nil { // of a tunnel that was silent
		c.in = sockio.Get(sockio.Large)
	}
}

// rest gives the buffer back if the connection is idle, or a tunnel is silent.
func (c *Conn) rest() {
	if c.base == 0 && c.w == 0 && c.body.kind == bodyNone {
		sockio.Put(c.head)
		c.head, c.in = nil, nil
	}
	if c.tunnel && c.w == 0 && &c.in[0] != &c.head[0] {
		sockio.Put(c.in)
		c.in = nil
	}
}

// firstBuffer takes the buffer that a message's head is read to, and the rest of
// the message too, if it fits: what comes in one read goes out in one write.
func (c *Conn) firstBuffer() {
	size := sockio.Small
	if c.eager {
		size = sockio.Large
	}
	c.head = sockio.Get(size)
	c.in = c.head
}

// read appends at least one byte to in[:w]; there must be room.
func (c *Conn) read() error {
	if c.above != nil {
		if err := c.above.Poll(c.tryFn); err != nil {
			return err // closed, or past the deadline
		}
		c.w += c.n
		if c.n > 0 {
			return nil
		}
		return c.fail
	}
	if c.raw == nil {
		if c.head == nil {
			c.firstBuffer()
		}
		n, err := c.nc.Read(c.in[c.w:])
		c.w += n
		if n > 0 {
			return nil
		}
		return err
	}
	if !c.asked {
		if err := c.raw.Read(c.readFD); err != nil {
			return err // closed, or past the deadline
		}
	}
	c.asked = false
	return c.took()
}

// took counts what the last raw read brought, or says why it brought nothing.
func (c *Conn) took() error {
	switch {
	case c.err != 0:
		return &net.OpError{Op: "read", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.err}
	case c.n <= 0:
		return io.EOF
	}
	c.w += c.n
	return nil
}

// fill reads at least one more byte behind in[r:w], making room where it must. It
// fails with full if the unread bytes already fill the buffer.
func (c *Conn) fill(full error) error {
	if c.r == c.w {
		c.r, c.w = c.base, c.base
	}
	if c.w == len(c.in) && c.in != nil {
		if c.r == c.base {
			return full
		}
		c.w = c.base + copy(c.in[c.base:], c.in[c.r:c.w])
		c.r = c.base
	}
	return c.read()
}

// Await blocks until bytes of the next message are here, or the connection ends. Those that come
// from a socket it tells InPlace, if that is set.
//
// If the stream ended right with a message that was answered in place, that may not be noticed
// before something else wakes the reader, such as a read deadline. The kernel would tell with the
// message itself (TCP_INQ), but only of a recvmsg(2) with a control message in place of each recv(2).
func (c *Conn) Await() error {
	if c.raw != nil && c.above == nil && c.r == c.w {
		if err := c.raw.Read(c.awaitFD); err != nil {
			return err // closed, or past the deadline
		}
		return c.fail
	}
	for c.r == c.w {
		if err := c.fill(errNotAtEnd); err != nil {
			return err
		}
	}
	return nil
}

// awaitOnce is readOnce, and what InPlace makes of it. The runtime tells of bytes that come
// from now on, so that it is safe to wait once a read has not filled its buffer.
func (c *Conn) awaitOnce(fd uintptr) bool {
	if !c.readOnce(fd) {
		return false
	}
	c.fail = c.took()
	return c.fail != nil || c.w == len(c.in) || c.InPlace == nil || !c.InPlace() || c.r < c.w
}

// Unread returns what was read and belongs to no message yet. It is valid until the next
// read.
func (c *Conn) Unread() []byte { return c.in[c.r:c.w] }

// ReadMore reads at least one byte more of it. It blocks, and fails if what is unread fills
// the buffer.
func (c *Conn) ReadMore() error { return c.fill(errHeadTooLarge) }

// EndExchange ends the exchange: the head is unpinned, bytes that came behind the
// message are kept for the next one. It fails if the message was not read to its
// end, for then no next one can be found.
func (c *Conn) EndExchange() error {
	if c.fault != nil || c.body.kind != bodyNone {
		return errNotAtEnd
	}
	if len(c.in) > 0 && &c.in[0] != &c.head[0] {
		sockio.Put(c.head)
		c.head = c.in
	}
	c.w = copy(c.head, c.head[c.r:c.w])
	c.r, c.base = 0, 0
	c.in = c.head
	if c.w == 0 {
		sockio.Put(c.head)
		c.head, c.in = nil, nil
	}
	c.trailers, c.nominated = c.trailers[:0], c.nominated[:0]
	return nil
}

var errNotAtEnd = errors.New("the message was not read to its end")

// Alive reports, without blocking, whether a connection that lies idle is still
// good: its peer has neither closed it nor sent anything unasked.
func (c *Conn) Alive() bool {
	if c.w > c.r || c.fault != nil {
		return false
	}
	if c.above != nil {
		return c.above.Alive()
	}
	if c.raw == nil {
		return true
	}
	return c.peeked.at(c.raw, c.peekFD) == sawNothing
}

// PeerGone reports, without blocking, whether the peer has ended its side or the
// connection has broken. Bytes of a next message mean that it has not. Any
// goroutine may ask.
func (c *Conn) PeerGone() bool {
	if c.above != nil {
		return c.above.PeerGone()
	}
	if c.raw == nil {
		return false
	}
	var p peeked
	return p.at(c.raw, p.look) == sawEnd
}

// Readable reports, without blocking, whether a socket has bytes that were not read, or has ended.
// Above a socket it is false. Any goroutine may ask.
func (c *Conn) Readable() bool {
	if c.raw == nil || c.above != nil {
		return false
	}
	var p peeked
	return p.at(c.raw, p.look) != sawNothing
}

// Pending reports, without blocking, whether bytes have come that were not read from the socket,
// be they but of TLS. Any goroutine may ask.
func (c *Conn) Pending() bool {
	if c.above != nil {
		return c.above.Pending()
	}
	if c.raw == nil {
		return false
	}
	var p peeked
	return p.at(c.raw, p.look) == sawBytes
}

// sight is what a look at a socket finds, which reads nothing.
type sight uint8

const (
	sawNothing sight = iota
	sawBytes         // that were not read
	sawEnd           // of the stream, by either side, or a fault
)

// peeked looks for one byte.
type peeked struct {
	n   int
	err syscall.Errno
	one [1]byte
}

// at looks at a socket by p's own look, which the caller may have made before.
func (p *peeked) at(raw syscall.RawConn, look func(fd uintptr)) sight {
	switch err := raw.Control(look); {
	case err != nil: // closed here
		return sawEnd
	case p.err == syscall.EAGAIN:
		return sawNothing
	case p.err == 0 && p.n > 0:
		return sawBytes
	}
	return sawEnd
}

func (p *peeked) look(fd uintptr) {
	for {
		if p.n, p.err = sockio.Peek(fd, p.one[:]); p.err != syscall.EINTR {
			return
		}
	}
}
