package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// Conn is a TLS connection. One goroutine may read and one may write at the same time;
// PeerGone, Close and the deadlines are for all.
type Conn struct {
	*tls.Conn
	socket *socket
	of     *kept
	lookFD func(fd uintptr)
	looked [1]byte // by Alive
	alive  bool
}

func newConn(c *tls.Conn, s *socket, of *kept) *Conn {
	conn := &Conn{Conn: c, socket: s, of: of}
	conn.lookFD = conn.look
	return conn
}

// Handshake does the handshake, which comes before anything else, and counts how it ended. It
// is called once. It blocks, up to the deadline.
func (c *Conn) Handshake() error { return c.HandshakeContext(context.Background()) }

// HandshakeContext is Handshake that ends with ctx.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	err := c.Conn.HandshakeContext(ctx)
	result := resultOK
	switch {
	case err != nil:
		result = Cause(err)
	case c.ConnectionState().DidResume:
		result = resultResumed
	}
	c.of.ended[slices.Index(Results(), result)].Add(1)
	return err
}

// Poll calls f now and whenever something may have come, until it returns true. f reads with
// TryRead. Poll blocks, and fails past the read deadline and when the connection is closed.
// The handshake must be done.
func (c *Conn) Poll(f func() bool) error {
	s := c.socket
	if s.raw == nil {
		for !f() {
		}
		return nil
	}
	s.f = f
	return s.raw.Read(s.poll)
}

// TryRead is Read for the function of Poll: where nothing has come, it does not block, but
// says that there is something to wait for.
func (c *Conn) TryRead(p []byte) (n int, wait bool, err error) {
	if c.socket.raw == nil {
		n, err = c.Read(p)
		return n, false, err
	}
	c.socket.trying = true
	n, err = c.Read(p)
	c.socket.trying = false
	if err == errWait { //nolint:errorlint // itself is returned by the socket, and by crypto/tls
		return 0, true, nil
	}
	return n, false, err
}

// Alive reports, without blocking, whether a connection that lies idle is still good: its
// peer has neither ended it nor sent anything unasked. Tickets and changes of keys
// (RFC 8446 §4.6) are no such thing, and are taken. It is for the goroutine that reads.
func (c *Conn) Alive() bool {
	if c.socket.raw == nil {
		return true
	}
	c.alive = false
	return c.socket.raw.Control(c.lookFD) == nil && c.alive
}

func (c *Conn) look(fd uintptr) {
	c.socket.fd = fd
	_, c.alive, _ = c.TryRead(c.looked[:])
}

// maxNotify is more than a close_notify alert takes with any cipher.
const maxNotify = 128

// PeerGone reports, without blocking, whether the peer has ended its side or the
// connection has broken. It decrypts nothing, so any goroutine may ask: bytes that are
// there mean that the peer has not gone, unless they are so few that they can be a
// close_notify, and the end of the stream has come behind them.
func (c *Conn) PeerGone() bool {
	if c.socket.raw == nil {
		return false
	}
	gone := false
	err := c.socket.raw.Control(func(fd uintptr) {
		var some [maxNotify]byte
		switch n, _, err := syscall.Recvfrom(int(fd), some[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); {
		case err != nil:
			gone = !errors.Is(err, syscall.EAGAIN)
		case n == 0:
			gone = true
		case n < maxNotify:
			gone = hasEnded(fd)
		}
	})
	return err != nil || gone
}

// CloseWrite sends close_notify and ends the sending side of the socket.
func (c *Conn) CloseWrite() error {
	if err := c.Conn.CloseWrite(); err != nil {
		return err
	}
	if half, ok := c.socket.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SetLinger is that of [net.TCPConn]. With 0, Close sends no close_notify either, so that
// the peer cannot take the end for the end of what it was to get.
func (c *Conn) SetLinger(seconds int) error {
	c.socket.abrupt.Store(seconds == 0)
	if tcp, ok := c.socket.Conn.(*net.TCPConn); ok {
		return tcp.SetLinger(seconds)
	}
	return nil
}

// Close sends close_notify (RFC 8446 §6.1), if the socket takes it at once, and closes the
// connection. It does not block, unless the connection is no socket.
func (c *Conn) Close() error {
	s := c.socket
	s.closing.Store(true)
	if s.writing.Load() || s.abrupt.Load() {
		return s.Conn.Close()
	}
	return c.Conn.Close()
}

// socket is what crypto/tls reads from and writes to.
type socket struct {
	net.Conn
	raw syscall.RawConn // nil: not a socket

	// Of the goroutine that reads.
	f      func() bool
	poll   func(fd uintptr) bool // calls f
	fd     uintptr               // valid while f runs
	trying bool                  // Read must not wait

	// Of the one that writes.
	out     []byte
	send    func(fd uintptr) bool
	sendErr error
	writing atomic.Bool

	closing atomic.Bool // writing must not wait
	abrupt  atomic.Bool
}

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw, s.poll, s.send = raw, s.pollOnce, s.sendAll
		}
	}
	return s
}

func (s *socket) pollOnce(fd uintptr) bool {
	s.fd = fd
	return s.f()
}

// errWait says that nothing has come. It is temporary, so that crypto/tls goes on
// after it.
var errWait error = waitError{}

type waitError struct{}

func (waitError) Error() string   { return "nothing has come" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

func (s *socket) Read(p []byte) (int, error) {
	if !s.trying {
		return s.Conn.Read(p)
	}
	for {
		switch n, err := sockio.Recv(s.fd, p); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errWait
		case err != 0:
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
		case n <= 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write blocks until the kernel has taken all of p. crypto/tls lets one write at a time.
func (s *socket) Write(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Write(p)
	}
	s.writing.Store(true)
	s.out, s.sendErr = p, nil
	err := s.raw.Write(s.send)
	n := len(p) - len(s.out)
	s.out = nil
	s.writing.Store(false)
	if err == nil {
		err = s.sendErr
	}
	return n, err
}

// sendAll sends what is left of out, until the kernel takes no more for now.
func (s *socket) sendAll(fd uintptr) bool {
	for len(s.out) > 0 {
		n, err := sockio.Send(fd, s.out, nil)
		switch err {
		case 0:
			s.out = s.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			if !s.closing.Load() {
				return false
			}
			s.sendErr = net.ErrClosed
			return true
		default:
			s.sendErr = &net.OpError{Op: "write", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
			return true
		}
	}
	return true
}
