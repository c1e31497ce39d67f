package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// phase is what a connection does, for the watchdog.
type phase uint32

const (
	idle    phase = iota // between requests
	heading              // a head is coming in
	working              // in an exchange, on this side
	silent               // waiting for the upstream
	closing              // about to close
)

// conn is one client connection. Its goroutine owns all fields but the last block.
type conn struct {
	server *Server
	net    net.Conn
	h1     *http1.Conn
	x      exchange

	// Read by the watchdog.
	phase   atomic.Uint32
	since   atomic.Int64 // when the phase began, or when a byte last moved in it
	expires atomic.Int64 // the exchange's deadline; 0: none
	gone    atomic.Bool  // the client went away
	// Of the watchdog alone: since when it has seen the head come in that began after
	// headOf. So the connection need not read the clock for it.
	headOf, headSeen int64

	mu       sync.Mutex
	upstream *upstream.Conn     // guarded by mu; what to interrupt while silent
	cancel   context.CancelFunc // guarded by mu; ends a wait for configuration or a dial
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, net: nc, h1: http1.NewConn(nc, http1.Server, &s.config.Limits)}
	c.x.conn = c
	c.since.Store(s.config.Clock())
	return c
}

// enter tells the watchdog what the connection does from now on.
func (c *conn) enter(p phase, now int64) {
	c.since.Store(now)
	c.phase.Store(uint32(p))
}

// serve carries one exchange after the other until the connection ends.
func (c *conn) serve() {
	defer c.server.ended(c)
	defer c.close()
	for c.exchange() {
	}
}

// exchange reads a request and answers it. It reports whether another may follow.
func (c *conn) exchange() bool {
	x := &c.x
	if c.h1.Await() != nil {
		return false // the client ended the connection, or it broke
	}
	c.phase.Store(uint32(heading))
	err := c.h1.ReadRequest(&x.request)
	now := c.server.config.Clock()
	c.enter(working, now)
	x.begin(now)
	if err != nil {
		return c.badRequest(err)
	}
	x.run()
	now = c.server.config.Clock()
	x.account(now)
	reusable := x.keepAlive && c.h1.EndExchange() == nil && !c.server.draining.Load()
	if !reusable {
		return false
	}
	c.enter(idle, now)
	// A drain that came between the two saw a working connection.
	return !c.server.draining.Load()
}

// badRequest answers a head that could not be read, where that makes sense.
func (c *conn) badRequest(err error) bool {
	x := &c.x
	x.keepAlive = false
	if errors.Is(err, os.ErrDeadlineExceeded) { // the watchdog's
		x.reply(reason.HeadTimeout)
		x.account(c.server.config.Clock())
		return false
	}
	var malformed *wire.Error
	if !errors.As(err, &malformed) {
		return false // the client ended the connection, or it broke
	}
	why := reason.BadRequest
	switch malformed.Status {
	case 414, 431:
		why = reason.HeadTooLarge
	case 501, 505:
		why = reason.UnsupportedProtocol
	}
	x.replyWith(why, malformed.Status, malformed.Text)
	x.account(c.server.config.Clock())
	return false
}

// lingerTime is how long a closing connection waits for what the client is still
// sending, so that the kernel does not throw the response away with a reset
// (RFC 9112 §9.6).
const lingerTime = time.Second

// lingerBytes is how much of it is read.
const lingerBytes = 1 << 20

func (c *conn) close() {
	c.enter(closing, c.server.config.Clock())
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && c.x.linger && half.CloseWrite() == nil {
		_ = c.net.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.net, lingerBytes)
	}
	_ = c.net.Close() // nothing is left to be lost on it
	c.h1.Release()
}

// check is the watchdog's look at the connection.
func (c *conn) check(now int64) {
	since := now - c.since.Load()
	switch phase(c.phase.Load()) {
	case idle:
		if since > int64(c.server.config.IdleTimeout) {
			_ = c.net.Close()
		}
	case heading:
		if at := c.since.Load(); c.headOf != at {
			c.headOf, c.headSeen = at, now
		} else if now-c.headSeen > int64(c.server.config.HeadTimeout) {
			_ = c.net.SetReadDeadline(time.Unix(1, 0)) // the goroutine answers
		}
	case working:
		if since > int64(c.server.config.StallTimeout) {
			c.cut()
		}
	case silent:
		if since > int64(watchEvery) && !c.gone.Load() && c.h1.PeerGone() {
			c.gone.Store(true)
			c.interrupt()
			return
		}
		// Reads end at the deadline by themselves; this ends a write that hangs.
		if at := c.expires.Load(); at > 0 && now > at {
			c.interrupt()
		}
	case closing:
	}
}

// interrupt ends whatever the exchange waits for upstream.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upstream != nil {
		_ = c.upstream.Net.Close()
	}
	if c.cancel != nil {
		c.cancel()
	}
}

// cut ends the connection in the middle of what it does.
func (c *conn) cut() {
	c.gone.Store(true)
	c.interrupt()
	_ = c.net.Close()
}

// closeIfIdle ends a connection that is between requests.
func (c *conn) closeIfIdle() {
	if phase(c.phase.Load()) == idle {
		_ = c.net.Close()
	}
}

// using tells the watchdog which upstream connection to interrupt; nil for none.
func (c *conn) using(up *upstream.Conn) {
	c.mu.Lock()
	c.upstream = up
	c.mu.Unlock()
}

// cancellable returns a context that ends when the client goes away. It is for
// the waits that happen once in a while: a dial, a destination called first.
func (c *conn) cancellable() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	return ctx, func() {
		c.mu.Lock()
		c.cancel = nil
		c.mu.Unlock()
		cancel()
	}
}
