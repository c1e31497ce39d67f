package proxy

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// conn is one client connection that speaks HTTP/1: one exchange after the other,
// each on the connection's goroutine, which waits in place. The goroutine owns all
// fields; others use only the exchange's life and what they close.
type conn struct {
	server *Server
	net    net.Conn
	h1     *http1.Conn
	life   life
	x      *exchange // of the server's pool; nil: between two

	headErr error // why the head of x could not be read

	linger   bool        // the client may still be sending what nobody will read
	aborted  bool        // it must end with a reset
	old      atomic.Bool // the client is one of HTTP/1.0, which may take any end for that of a body
	tired    bool        // it is to rest
	over     bool        // no other request is to be waited for
	from     netip.Addr  // whose connection it is by its PROXY protocol header; none: the socket's peer
	scheme   []byte      // https, or nil where nothing says so
	requests int         // so far
	oldAt    int64       // when it is too old for another

	// Of the watchdog alone: since when it has seen the head come in that began after
	// headOf. So the connection need not read the clock for it.
	headOf, headSeen int64
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, net: nc, h1: http1.NewConn(nc, http1.Server, &s.config.Limits)}
	c.h1.InPlace = c.inPlace
	now := s.config.Clock()
	c.oldAt = s.oldAt(now)
	c.life.enter(idle, now)
	return c
}

// begin takes an exchange. A connection that is idle has none: it would be most of the
// memory that it takes.
func (c *conn) begin() *exchange {
	x := c.server.exchanges.Get().(*exchange)
	x.server, x.source, x.sink, x.client, x.life = c.server, c.h1, c.h1, c, &c.life
	c.x = x
	return x
}

// end gives the exchange back.
func (c *conn) end() {
	x := c.x
	c.x, c.linger = nil, x.linger
	x.request.Reset()
	x.response.Reset()
	c.server.exchanges.Put(x)
}

// serve carries one exchange after the other until the connection ends.
func (c *conn) serve() {
	for c.await() {
		if c.requests == 0 && c.speaksHTTP2() {
			c.goOnAsHTTP2()
			return
		}
		if !c.exchange() {
			break
		}
	}
	if c.tired {
		c.rest()
		return
	}
	c.close()
	c.server.ended(c)
}

// await waits for a request that is not answered in place. It returns false if none will come
// here: the client ended the connection, it broke, it is to rest, or it was ended.
func (c *conn) await() bool {
	err := c.h1.Await()
	switch {
	case c.over:
		return false
	case c.x != nil: // its head has been read
		return true
	case c.life.phase.CompareAndSwap(uint32(idle), uint32(heading)):
		return err == nil
	}
	woken := c.woken()
	c.life.phase.Store(uint32(heading))
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err == nil // the request came first
	case woken == leaving:
		return c.h1.Pending() // it came, and was not looked at
	}
	c.tired = true
	return false
}

// inPlace answers a request where its bytes were read, if nothing more of the client is needed
// for that, and reports whether another is to be waited for there. The first one may be HTTP/2's.
func (c *conn) inPlace() bool {
	if c.requests == 0 || !c.h1.HeadReady() || !c.life.phase.CompareAndSwap(uint32(idle), uint32(heading)) {
		return false
	}
	c.readHead()
	if c.headErr != nil || !c.h1.BodyReady() || c.x.mayTunnel() {
		return false
	}
	c.over = !c.answer()
	return !c.over
}

// speaksHTTP2 reports whether the client begins with HTTP/2's preface, as one does that
// knows that this server speaks it (RFC 9113 §3.3). Where only one version is taken, it is
// for its codec to refuse what is another.
func (c *conn) speaksHTTP2() bool {
	if only := c.server.config.Codec; only != mesh.CodecAuto {
		return only == mesh.CodecHTTP2
	}
	for {
		p := c.h1.Unread()
		n := min(len(p), len(http2.Preface))
		switch {
		case string(p[:n]) != http2.Preface[:n]:
			return isNoRequest(p)
		case n == len(http2.Preface):
			return true
		case c.h1.ReadMore() != nil:
			return false
		}
	}
}

// isNoRequest reports whether a connection begins with a line of words of which none is what HTTP/1 has in its place, neither
// the target nor the version. Who says so does not speak HTTP/1, and is for HTTP/2's codec to refuse, as one whose preface is
// not valid (RFC 9113 §3.4). Whoever just misspells something gets to know what.
func isNoRequest(p []byte) bool {
	line, _, whole := bytes.Cut(p, []byte("\r\n"))
	words := bytes.Split(line, []byte(" "))
	if !whole || len(words) < 3 || !wire.IsToken(words[0]) {
		return false
	}
	target, version := words[1], words[len(words)-1]
	return !bytes.HasPrefix(version, []byte("HTTP")) && !bytes.ContainsAny(target, "/*:")
}

// goOnAsHTTP2 hands the connection over.
func (c *conn) goOnAsHTTP2() {
	h := newH2Conn(c.server, c.net, c.h1.Unread())
	h.from = c.from
	c.server.replace(c, h)
	c.h1.Release()
	if c.server.draining.Load() { // a drain may have seen this one
		h.drain()
	}
	h.serve()
}

// exchange reads a request, unless its head has been read, and answers it. It reports whether
// another may follow.
func (c *conn) exchange() bool {
	if c.x == nil {
		c.readHead()
	}
	return c.answer()
}

// readHead begins an exchange with a request's head, or with headErr.
func (c *conn) readHead() {
	x := c.begin()
	c.headErr = c.h1.ReadRequest(&x.request)
	x.request.Scheme = c.scheme
	if x.request.Proto == wire.HTTP10 {
		c.old.Store(true)
	}
	x.begin(c.server.config.Clock())
	c.requests++
}

// answer answers the request, and reports whether another may follow.
func (c *conn) answer() bool {
	defer c.end()
	if c.headErr != nil {
		return c.badRequest(c.headErr)
	}
	x := c.x
	x.run(x.decide())
	now := c.server.config.Clock()
	x.account(now)
	reusable := x.keepAlive && c.h1.EndExchange() == nil && !c.server.draining.Load()
	if !reusable {
		// A client that did not ask for the end may have sent a further request before it hears of it.
		// RFC 9112 §9.6: were the connection closed at once, "there is a significant risk that the client
		// will not be able to read the last HTTP response".
		x.linger = x.linger || !x.request.Close && !x.tunnelled
		return false
	}
	c.life.enter(idle, now)
	if c.server.draining.Load() { // a drain that came between the two saw a working connection
		c.drain()
	}
	return true
}

// badRequest answers a head that could not be read, where that makes sense.
func (c *conn) badRequest(err error) bool {
	x := c.x
	x.keepAlive = false
	if errors.Is(err, os.ErrDeadlineExceeded) { // the watchdog's
		x.now -= int64(c.server.config.HeadTimeout) // which is how long it took, at the least
		x.beginTrace()
		x.run(x.reply(reason.HeadTimeout))
		x.account(c.server.config.Clock())
		return false
	}
	var malformed *wire.Error
	if !errors.As(err, &malformed) {
		return false // the client ended the connection, or it broke
	}
	x.beginTrace()
	if first := c.h1.Unread(); c.requests == 1 && len(first) > 0 && first[0] == recordHandshake {
		c.server.tellTLS(c.net, "a client speaks TLS to a port without it", "call the port with http, or give the listener TLS")
		x.run(x.replyWith(reason.BadRequest, 400, noTLS))
		x.account(c.server.config.Clock())
		return false
	}
	why := reason.BadRequest
	switch malformed.Status {
	case 414, 431:
		why = reason.HeadTooLarge
	case 501, 505:
		why = reason.UnsupportedProtocol
	}
	x.run(x.replyWith(why, malformed.Status, malformed.Text))
	x.account(c.server.config.Clock())
	return false
}

func (c *conn) peer() netip.Addr {
	if c.from.IsValid() {
		return c.from
	}
	return addressOf(c.net)
}

func (c *conn) isLast() bool { return c.server.isLast(c.requests, c.oldAt, c.x.now) }

// room says that the connection takes all there is: writing waits in place.
func (c *conn) room() int { return math.MaxInt }

// discardLimit is how much of an unwanted request body is read however long it takes, so that
// the connection can be used again. More of it is read for as long as a connection that ends would
// be (lingerTime), since the client may have been told that this one does not.
const discardLimit = 256 << 10

func (c *conn) discard() bool {
	until := c.server.config.Clock() + int64(lingerTime)
	return c.h1.Drain(func(come int64) bool { return come > discardLimit && c.server.config.Clock() > until }) == nil
}

func (c *conn) stopBody(done <-chan struct{}) {
	_ = c.net.SetReadDeadline(time.Unix(1, 0))
	<-done
	_ = c.net.SetReadDeadline(time.Time{})
}

// abort lets the connection end with a reset where the client would take its end
// for the end of the body, as one of HTTP/1.0 does. Others miss the last chunk, or
// the rest of the length.
func (c *conn) abort() {
	if socket, ok := c.net.(interface{ SetLinger(seconds int) error }); ok && c.x.request.Proto == wire.HTTP10 {
		c.aborted = true
		_ = socket.SetLinger(0)
	}
}

// lingerTime is how long a closing connection waits for what the client is still
// sending, so that the kernel does not throw the response away with a reset
// (RFC 9112 §9.6).
const lingerTime = time.Second

// lingerBytes is how much of it is read as it comes. What is more is read in pieces of
// lingerPiece, one in each lingerStep: the client finds its writes waiting rather than
// refused, which is when many look whether there is an answer.
const (
	lingerBytes = 1 << 20
	lingerPiece = 128 << 10
	lingerStep  = 5 * time.Millisecond
)

// linger tells the client that nothing follows, and throws away what it sends until it
// ends, too, or lingerTime has passed. The connection remains to be closed.
func linger(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, err := io.CopyN(io.Discard, nc, lingerBytes)
	for err == nil {
		time.Sleep(lingerStep)
		_, err = io.CopyN(io.Discard, nc, lingerPiece)
	}
}

func (c *conn) close() {
	c.life.enter(closing, c.server.config.Clock())
	switch {
	case c.aborted:
		c.h1.Deliver()
	case c.linger:
		linger(c.net)
	}
	_ = c.net.Close() // nothing is left to be lost on it
	c.h1.Release()
}

func (c *conn) check(now int64) {
	life := &c.life
	life.prove(now)
	since := now - life.since.Load()
	switch phase(life.phase.Load()) {
	case idle:
		if since > int64(c.server.config.IdleTimeout) {
			c.drain()
		} else if since > int64(c.server.config.RestAfter) {
			c.server.tired = append(c.server.tired, c)
		}
	case heading:
		if at := life.since.Load(); c.headOf != at {
			c.headOf, c.headSeen = at, now
		} else if now-c.headSeen > int64(c.server.config.HeadTimeout) {
			_ = c.net.SetReadDeadline(time.Unix(1, 0)) // the goroutine answers
		}
	case working:
		if life.stalled(since, c.server.config.StallTimeout, now) {
			c.breakOff()
		}
	case silent:
		if since > int64(watchEvery) && !life.gone.Load() && c.h1.PeerGone() {
			life.gone.Store(true)
			life.interrupt()
			return
		}
		if life.receiving.Load() && life.stalled(since, c.server.config.StallTimeout, now) {
			_ = c.net.SetReadDeadline(time.Unix(1, 0)) // the upload ends, and the goroutine answers
			return
		}
		// Reads end at the deadline by themselves; this ends a write that hangs.
		life.expire(now)
	case tunnelling:
		if since > int64(c.server.config.TunnelIdleTimeout) {
			life.idled.Store(true)
			c.breakOff()
		}
	case resting, leaving, closing:
	}
}

func (c *conn) cut() {
	c.life.stopped.Store(true)
	c.breakOff()
}

// breakOff ends the connection in the middle of what it does, so that neither the client nor the host
// of a tunnel can take that for the end of what was to come.
func (c *conn) breakOff() {
	c.life.gone.Store(true)
	switch is := phase(c.life.phase.Load()); {
	case is == tunnelling, c.old.Load() && (is == working || is == silent):
		c.h1.Reset()
	}
	c.life.breakOff()
	_ = c.net.Close()
}

func (c *conn) idleSince() (int64, bool) {
	return c.life.since.Load(), phase(c.life.phase.Load()) == idle
}

// drain ends a connection that is between requests. One that is in an exchange looks
// at its end whether the server drains. The connection's goroutine does it, for it alone knows
// whether the next request has come: that is answered, since its client cannot tell whether it was
// acted upon, and could not send it again in general (RFC 9110 §9.2.2).
func (c *conn) drain() { c.wake(leaving) }

func (c *conn) makeRoom() { c.drain() }
