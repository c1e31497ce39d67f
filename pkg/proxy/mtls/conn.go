package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
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
	serves bool
	quit   chan struct{} // of a listener's; see GiveUp
	given  atomic.Bool   // quit is closed
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
func (c *Conn) Handshake() error { return c.handshake(context.Background(), c.quit) }

// HandshakeContext is Handshake that ends with ctx.
func (c *Conn) HandshakeContext(ctx context.Context) error { return c.handshake(ctx, ctx.Done()) }

// GiveUp ends a listener's handshake that waits for others to be done. Any goroutine may call it,
// and more than once. It does not block.
func (c *Conn) GiveUp() {
	if c.given.CompareAndSwap(false, true) {
		close(c.quit)
	}
}

func (c *Conn) handshake(ctx context.Context, done <-chan struct{}) error {
	s := c.socket
	s.keeper, s.done = c.of.keeper, done
	err := s.enter()
	if err == nil {
		err = c.Conn.HandshakeContext(ctx)
	}
	s.leave()
	s.established.Store(err == nil)
	if err == nil && c.serves && s.raw != nil {
		_ = s.raw.Control(acknowledge) // fails only on a closed connection, as reading will
	}
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

// RawConn returns the socket below, to ask it about itself; nil if there is none.
func (c *Conn) RawConn() syscall.RawConn { return c.socket.raw }

// HasSocket reports whether Poll waits for a socket. Without one TryRead waits in place.
func (c *Conn) HasSocket() bool { return c.socket.raw != nil }

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

// maxRecord is how many bytes one record takes. RFC 8446 §5.1: "The length MUST NOT exceed 2^14
// bytes."
const maxRecord = 16 << 10

// TryWrite is Write that does not wait: of p it takes as much as the socket has room for,
// in whole records. wait says that the socket is full, and holds a part of a record: then
// Write must be called, if only with nothing, to wait until the rest of it is sent.
func (c *Conn) TryWrite(p []byte) (n int, wait bool, err error) {
	s := c.socket
	if s.raw == nil {
		return 0, true, nil
	}
	for n < len(p) && err == nil && !s.isFull() {
		var taken int
		taken, err = c.Conn.Write(p[n:min(len(p), n+maxRecord)])
		n += taken
	}
	return n, s.isFull(), err
}

// Write blocks until the kernel has taken all of p, and what TryWrite has left. Of a record
// of which it has taken a part, nothing counts.
func (c *Conn) Write(p []byte) (n int, err error) {
	s := c.socket
	if s.raw == nil {
		return c.Conn.Write(p)
	}
	for err = s.flush(); n < len(p) && err == nil; {
		var taken int
		if taken, err = c.Conn.Write(p[n:min(len(p), n+maxRecord)]); err == nil {
			err = s.flush()
		}
		if err == nil {
			n += taken
		}
	}
	return n, err
}

// Alive reports, without blocking, whether a connection that lies idle is still good: its
// peer has neither ended it nor sent anything unasked. Tickets and changes of keys
// (RFC 8446 §4.6) are no such thing, and are taken. It is for the goroutine that reads.
func (c *Conn) Alive() bool {
	if c.socket.raw == nil {
		return true
	}
	return c.socket.raw.Control(c.lookFD) == nil && c.alive
}

func (c *Conn) look(fd uintptr) {
	c.socket.fd = fd
	_, c.alive, _ = c.TryRead(c.looked[:])
}

// Truncated reports, once reading has come to an end, whether that was the socket's alone,
// which anybody on the way can bring about: the peer has sent no close_notify before it (RFC 8446
// §6.1). Not all do, so reading says io.EOF all the same where no record was cut in two, and who
// has no other way to tell that all has come asks here. It is for the goroutine that reads.
func (c *Conn) Truncated() bool { return c.socket.ended }

// maxNotify is more bytes than a close_notify alert takes with any cipher.
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
		switch n, err := sockio.Peek(fd, some[:]); {
		case err != 0:
			gone = err != syscall.EAGAIN
		case n == 0:
			gone = true
		case n < maxNotify:
			gone = sockio.HasEnded(fd)
		}
	})
	return err != nil || gone
}

// Pending reports, without blocking, whether bytes of further records have come on the socket. Any
// goroutine may ask.
func (c *Conn) Pending() bool { return sockio.Pending(c.socket) }

// CloseWrite sends close_notify and ends the sending side of the socket. It blocks for five
// seconds at most.
func (c *Conn) CloseWrite() error {
	c.socket.established.Store(false) // the last write may wait
	err := c.Conn.CloseWrite()
	c.socket.established.Store(true)
	if err != nil {
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

// socket is what crypto/tls reads from and writes to. Once the handshake is done, its Write
// does not wait: the goroutine that reads writes too, alerts and answers to changes of keys,
// and whoever waits while a peer reads nothing would hold up who must not wait.
type socket struct {
	net.Conn
	raw         syscall.RawConn // nil: not a socket
	established atomic.Bool     // the handshake is done

	// Of the goroutine that reads.
	f      func() bool
	poll   func(fd uintptr) bool // calls f
	fd     uintptr               // valid while f runs
	trying bool                  // Read must not wait
	ended  bool                  // Read has come to the end

	// Of the goroutine that does the handshake.
	keeper *Keeper
	done   <-chan struct{} // nobody wants the handshake any more
	placed bool            // it has one of the keeper's places
	taken  int             // bytes that have come
	serves bool            // the peer is a client
	// answered: something was sent. Until then a peer that has gone is not computed for.
	answered bool

	send    func(fd uintptr) bool // sends what waits, until all of it is sent
	sendNow func(fd uintptr)      // sends of out and left what the kernel takes
	writing atomic.Bool           // somebody may be waiting for the kernel to take more

	writer  sync.Mutex
	left    []byte // guarded by writer; of Get
	unsent  []byte // guarded by writer; the part of left that the kernel has not taken
	out     []byte // guarded by writer; what is to be sent behind it
	sendErr error  // guarded by writer; the first one, after which nothing is sent

	closing atomic.Bool // nobody may wait
	abrupt  atomic.Bool
}

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw, s.poll, s.send, s.sendNow = raw, s.pollOnce, s.sendAll, s.sendSome
		}
	}
	return s
}

// SyscallConn lets the socket below be asked about itself.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	if s.raw == nil {
		return nil, errors.ErrUnsupported
	}
	return s.raw, nil
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

// maxHandshake is how many bytes a peer may send in a handshake: a chain of ten certificates
// with the longest keys in use takes less than a third of it. crypto/tls alone would hold 256 kB.
const maxHandshake = 64 << 10

var (
	errLong = errors.New("the handshake is longer than 64 kB: are there certificates in the chain that do not belong to it?")
	errBusy = errors.New("too many other handshakes were to be done before this one")
	errGone = fmt.Errorf("the peer went away while other handshakes were done before this one: %w", io.EOF)
)

// enter waits for a place among the handshakes that compute.
func (s *socket) enter() error {
	select {
	case s.keeper.places <- struct{}{}:
		s.placed = true
		return nil
	default:
	}
	s.keeper.waiting.Add(1)
	defer s.keeper.waiting.Add(-1)
	select {
	case s.keeper.places <- struct{}{}:
		s.placed = true
	case <-s.done:
		return errBusy
	}
	if s.serves && !s.answered && s.hasGone() {
		s.leave()
		return errGone
	}
	return nil
}

// hasGone reports, without blocking, whether the peer has ended its side, or the connection has
// broken. A client that has done so before it was answered cannot end the handshake (RFC 8446 §2: its
// Finished is yet to come), and computing its answer would be for nobody.
func (s *socket) hasGone() bool {
	if s.raw == nil {
		return false
	}
	gone := false
	err := s.raw.Control(func(fd uintptr) {
		var one [1]byte
		n, err := sockio.Peek(fd, one[:])
		gone = err != 0 && err != syscall.EAGAIN || err == 0 && n == 0 || sockio.HasEnded(fd)
	})
	return err != nil || gone
}

// leave gives the place back, if there is one.
func (s *socket) leave() {
	if s.placed {
		<-s.keeper.places
		s.placed = false
	}
}

// readHandshake reads without holding a place: peers that say nothing hold up nobody.
func (s *socket) readHandshake(p []byte) (int, error) {
	s.leave()
	n, err := s.Conn.Read(p)
	s.taken += n
	switch {
	case err != nil:
		return n, err
	case s.taken > maxHandshake:
		return 0, errLong
	}
	if err := s.enter(); err != nil {
		return 0, err
	}
	return n, nil
}

func (s *socket) Read(p []byte) (int, error) {
	if s.placed {
		return s.readHandshake(p)
	}
	if !s.trying {
		n, err := s.Conn.Read(p)
		s.ended = s.ended || err == io.EOF //nolint:errorlint // sockets return itself
		return n, err
	}
	for {
		switch n, err := sockio.Recv(s.fd, p); {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errWait
		case err != 0:
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
		case n <= 0:
			s.ended = true
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// maxLeft is how many bytes may wait for a peer that reads nothing: the answers to changes of keys
// that it asks for all the same.
const maxLeft = 64 << 10

var errReadsNothing = errors.New("the peer asks for more and more, and reads nothing")

// Write sends p behind what is left. What the kernel does not take at once is left, or
// waited for during the handshake.
func (s *socket) Write(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Write(p)
	}
	if !s.established.Load() {
		s.answered = true // of the goroutine that does the handshake
	}
	s.writer.Lock()
	s.out = p
	err := s.raw.Control(s.sendNow)
	if err == nil {
		err = s.sendErr
	}
	switch {
	case err != nil:
	case len(s.unsent)+len(s.out) > maxLeft && s.established.Load():
		s.sendErr = errReadsNothing
		err = s.sendErr
	case len(s.out) > 0:
		s.keep()
	}
	s.out = nil
	s.writer.Unlock()
	if err == nil && !s.established.Load() {
		placed := s.placed && s.isFull()
		if placed {
			s.leave()
		}
		if err = s.flush(); err == nil && placed {
			err = s.enter()
		}
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// keep leaves out, behind what is unsent already. It needs writer.
func (s *socket) keep() {
	kept := sockio.Get(len(s.unsent) + len(s.out))
	n := copy(kept, s.unsent)
	n += copy(kept[n:], s.out)
	sockio.Put(s.left)
	s.left, s.unsent = kept, kept[:n]
}

// isFull reports whether something is left.
func (s *socket) isFull() bool {
	s.writer.Lock()
	defer s.writer.Unlock()
	return len(s.unsent) > 0
}

// flush waits until nothing is left.
func (s *socket) flush() error {
	if !s.isFull() {
		return nil
	}
	s.writing.Store(true)
	defer s.writing.Store(false)
	if err := s.raw.Write(s.send); err != nil {
		return err
	}
	s.writer.Lock()
	defer s.writer.Unlock()
	if s.sendErr == nil && len(s.unsent) > 0 {
		return net.ErrClosed
	}
	return s.sendErr
}

// sendAll reports whether there is nothing to wait for any more.
func (s *socket) sendAll(fd uintptr) bool {
	s.writer.Lock()
	defer s.writer.Unlock()
	s.sendSome(fd)
	return len(s.unsent) == 0 || s.sendErr != nil || s.closing.Load()
}

// sendSome sends what is unsent, and then out, until the kernel takes no more for now. It
// needs writer.
func (s *socket) sendSome(fd uintptr) {
	for len(s.unsent)+len(s.out) > 0 && s.sendErr == nil {
		first := &s.unsent
		if len(s.unsent) == 0 {
			first = &s.out
		}
		switch n, err := sockio.Send(fd, *first, nil); err {
		case 0:
			*first = (*first)[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return
		default:
			s.sendErr = &net.OpError{Op: "write", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
		}
	}
	if len(s.unsent) == 0 && s.left != nil {
		sockio.Put(s.left)
		s.left, s.unsent = nil, nil
	}
}
