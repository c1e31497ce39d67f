package proxy

import (
	"net"
	"net/netip"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// h2Conn is one client connection that speaks HTTP/2: many exchanges at once. Its reader
// carries each as far as nothing has to be waited for.
type h2Conn struct {
	server *Server
	net    net.Conn
	h2     *http2.Conn
	from   netip.Addr // as of conn

	mu      sync.Mutex
	under   *h2Exchange   // guarded by mu; the exchanges under way, in a list
	free    []*h2Exchange // guarded by mu
	oldAt   int64         // when it is too old for further exchanges
	begun   int           // guarded by mu; how many there were
	since   int64         // guarded by mu; when the last exchange ended, or the connection began
	drained bool          // guarded by mu
	evicted bool          // guarded by mu; others needed its place
	over    chan struct{} // guarded by mu; not nil: closed with the last exchange
}

// h2Exchange is an exchange on a stream. It is its own client, and what its stream wakes.
type h2Exchange struct {
	exchange
	life   life
	conn   *h2Conn
	stream *http2.Stream
	id     uint32
	at     stage // where it goes on when it is woken

	prev, next *h2Exchange // guarded by conn.mu
}

func newH2Conn(s *Server, nc net.Conn, already []byte) *h2Conn {
	now, o := s.config.Clock(), s.config.HTTP2
	c := &h2Conn{server: s, net: nc, since: now, oldAt: s.oldAt(now)}
	c.h2 = http2.NewConn(nc, http2.Server, already, c, http2.Config{
		HeadBytes: s.config.Limits.HeadBytes, Fields: s.config.Limits.Fields, PortNames: s.config.Limits.PortNames,
		MaxStreams: int(o.MaxConcurrentStreams), StreamWindow: int(o.InitialStreamWindow), ConnWindow: int(o.InitialConnectionWindow),
		PingEvery: o.Keepalive.Interval, PingJitter: int(o.Keepalive.Jitter), PingTimeout: o.Keepalive.Timeout,
		HeadTimeout: s.config.HeadTimeout, StallTimeout: s.config.StallTimeout, Clock: s.config.Clock,
	})
	return c
}

func (c *h2Conn) serve() {
	defer c.server.ended(c)
	_ = c.h2.Serve() // who closes it, and why, is of no interest to others
	c.await()
}

// await waits for the exchanges that are still under way: each has learnt by now that its
// client went away.
func (c *h2Conn) await() {
	c.mu.Lock()
	c.over = make(chan struct{})
	if c.under == nil {
		close(c.over)
	}
	c.mu.Unlock()
	<-c.over
}

// Request begins an exchange.
func (c *h2Conn) Request(s *http2.Stream, bad *wire.Error, b *http2.Batch) {
	x := c.begin(s)
	_ = s.ReadHead(&x.request) // it is here
	x.exchange.begin(c.server.config.Clock())
	x.hold(b)
	if bad == nil {
		x.advance(x.decide())
		return
	}
	x.beginTrace()
	why := reason.BadRequest
	if bad.Status == 431 {
		why = reason.HeadTooLarge
	}
	// RFC 9113 §8.1.1: "For malformed requests, a server MAY send an HTTP response prior to closing or
	// resetting the stream." Who is only reset does not learn what is wrong: net/http, for one, sends
	// such a request again for a minute.
	x.advance(x.replyWith(why, bad.Status, bad.Text))
}

// begin takes an exchange for a stream.
func (c *h2Conn) begin(s *http2.Stream) *h2Exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	var x *h2Exchange
	if n := len(c.free); n > 0 {
		x = c.free[n-1]
		c.free[n-1] = nil
		c.free = c.free[:n-1]
	} else {
		x = &h2Exchange{conn: c}
		x.server, x.client, x.exchange.life = c.server, x, &x.life
	}
	x.stream, x.source, x.sink, x.id = s, s, s, s.ID()
	s.User = x
	x.life.gone.Store(false)
	x.life.stopped.Store(false)
	x.life.idled.Store(false)
	x.prev, x.next = nil, c.under
	if c.under != nil {
		c.under.prev = x
	}
	c.under = x
	if c.begun++; c.server.config.MaxRequestsPerConnection > 0 && c.begun >= c.server.config.MaxRequestsPerConnection {
		c.drainLocked()
	}
	return x
}

// maxFreeExchanges is how many exchanges a connection keeps to be used again.
const maxFreeExchanges = 64

// end gives an exchange back.
func (c *h2Conn) end(x *h2Exchange, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		c.under = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	x.prev, x.next, x.stream, x.source, x.sink, x.id = nil, nil, nil, nil, nil, 0
	x.request.Reset()
	x.response.Reset()
	if len(c.free) < maxFreeExchanges {
		c.free = append(c.free, x)
	}
	c.since = now
	if c.under == nil && c.over != nil {
		close(c.over)
	}
}

// Cancelled ends an exchange whose client has given it up.
func (c *h2Conn) Cancelled(user any, stream uint32) {
	x := user.(*h2Exchange)
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.id == stream { // and not another's by now
		x.life.gone.Store(true)
		x.life.breakOff()
	}
}

// Changed does nothing: a server opens no streams.
func (c *h2Conn) Changed() {}

func (c *h2Conn) check(now int64) {
	config := &c.server.config
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := c.under; x != nil; x = x.next {
		x.check(now)
	}
	if c.under == nil {
		c.free = nil // an idle connection keeps nothing
		if idle := now - c.since; idle > int64(config.IdleTimeout)+int64(config.HeadTimeout) {
			_ = c.net.Close() // its client had the time to see that it is to end
		} else if idle > int64(config.IdleTimeout) {
			c.drainLocked()
		}
	}
	if now >= c.oldAt {
		c.drainLocked()
	}
	c.h2.Check(now)
}

// check looks at one exchange. It needs conn.mu.
func (x *h2Exchange) check(now int64) {
	x.life.prove(now)
	since := now - x.life.since.Load()
	switch phase(x.life.phase.Load()) {
	case working:
		if x.life.stalled(since, x.server.config.StallTimeout, now) {
			x.life.gone.Store(true)
			x.life.interrupt()
			x.stream.Abort()
		}
	case silent:
		if x.life.receiving.Load() && !x.life.patient.Load() && x.life.stalled(since, x.server.config.StallTimeout, now) {
			x.stream.StopReading() // the upload ends, and who holds the exchange answers
			return
		}
		x.life.expire(now)
	case tunnelling:
		if since > int64(x.server.config.TunnelIdleTimeout) {
			x.life.idled.Store(true)
			x.life.gone.Store(true)
			x.life.breakOff()
			x.stream.Abort()
		}
	}
}

func (c *h2Conn) idleSince() (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since, c.under == nil && !c.evicted
}

func (c *h2Conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drainLocked()
}

// makeRoom does not wait for the client to take note, as a drain does: it may not care.
func (c *h2Conn) makeRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.under == nil { // or a request came just now
		c.evicted = true
		c.h2.End()
	}
}

func (c *h2Conn) drainLocked() {
	if !c.drained {
		c.drained = true
		c.h2.Drain()
	}
}

func (c *h2Conn) cut() {
	c.mu.Lock()
	for x := c.under; x != nil; x = x.next {
		x.life.stopped.Store(true)
		x.life.gone.Store(true)
		x.life.breakOff()
	}
	c.mu.Unlock()
	c.h2.Cut()
}

// hold says who carries the exchange from here on: a reader, which flushes b when it is
// through and must not wait, or, with nil, a goroutine that may.
func (x *h2Exchange) hold(b *http2.Batch) {
	x.batch = b
	x.stream.Hold(b)
	if x.up != nil && !x.upload.running {
		x.up.Hold(b)
	}
}

// advance goes on from a stage for as long as nothing has to be waited for. Then the
// exchange is left with what will wake it, or handed to a goroutine that waits.
func (x *h2Exchange) advance(s stage) {
	for s != atEnd {
		if x.upload.running || !x.ready(s) {
			if x.parked(s) {
				return
			}
			x.at = s
			x.hold(nil)
			x.server.workers.carry(x)
			return
		}
		s = x.step(s)
	}
	x.over()
}

// parked leaves the exchange with its upstream's stream, if that is what it waits for. It
// is somebody else's after true.
func (x *h2Exchange) parked(s stage) bool {
	if s != atHead && s != atBody || x.upload.running {
		return false
	}
	if x.answered && x.sink.Flush() != nil {
		return false
	}
	x.at = s
	return x.up.Park(x)
}

// Wake goes on with what an exchange was parked for.
func (x *h2Exchange) Wake(b *http2.Batch) {
	if b == nil {
		x.carryOn()
		return
	}
	x.hold(b)
	x.advance(x.at)
}

// carryOn carries the exchange to its end, and waits in place.
func (x *h2Exchange) carryOn() {
	x.hold(nil)
	x.run(x.at)
	x.over()
}

// over ends the exchange.
func (x *h2Exchange) over() {
	now := x.server.config.Clock()
	x.account(now)
	s := x.stream
	x.conn.end(x, now)
	s.Release()
}

// room is how many bytes the client's stream takes without waiting.
func (x *h2Exchange) room() int { return x.stream.Room() }

func (x *h2Exchange) peer() netip.Addr {
	if x.conn.from.IsValid() {
		return x.conn.from
	}
	return addressOf(x.conn.net)
}

// isLast is false: it is the connection that says so, with GOAWAY.
func (x *h2Exchange) isLast() bool { return false }

// discard leaves the rest of the request's body to Release, which resets the stream.
func (x *h2Exchange) discard() bool { return true }

func (x *h2Exchange) stopBody(done <-chan struct{}) {
	x.stream.StopReading()
	<-done
	x.stream.GoOnReading() // for a second attempt, which sends what is still to come
}

func (x *h2Exchange) abort() {
	code := http2.InternalError
	switch {
	case x.tunnelled && x.connect:
		code = http2.ConnectError // RFC 9113 §8.5
	case x.tunnelled:
		code = http2.Cancel // RFC 8441 §5
	}
	x.stream.Reset(code)
}
