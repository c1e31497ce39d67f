package tcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/proxyproto"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// provenAfter is how long a host must have kept a connection, without a byte, to count as
// one that works.
const provenAfter = int64(time.Second)

// cause is why a connection ended otherwise than by both its ends.
type cause struct {
	why    reason.Reason
	detail string // a sentence that says more; "": that of the reason
}

// Conn is a connection that is relayed, or will be. One goroutine serves it; Check,
// IdleSince, Drain and Cut are called from any.
type Conn struct {
	relay  *Relay
	client end
	began  int64

	// Of the goroutine that serves.
	source, destination netip.AddrPort // of the client's connection, by its header if there is one
	said                seen           // by its first bytes
	introduced          bool           // the host has been told whose connection it is
	route               *Route         // nil: there is none
	host                *upstream.Host // nil: none was tried
	retries             int
	connectTime         time.Duration

	in, out pump         // from the client, and to it
	moving  atomic.Int64 // since when they run; 0: they do not yet
	served  atomic.Bool  // a route was found, and TLS is there: something may be lost if the connection ends

	mu       sync.Mutex
	cause    cause            // guarded by mu; the first
	over     bool             // guarded by mu; it was ended from without, or broke
	handed   bool             // guarded by mu; it is HTTP's from now on
	upstream end              // guarded by mu; of no net until connected
	cancel   func()           // guarded by mu; ends the wait for a route, a connection or a handshake
	attempt  upstream.Attempt // guarded by mu; that of upstream
	settled  bool             // guarded by mu; the breaker was told that the host works
	counted  *metrics.Connections
	received uint64 // guarded by mu; as counted
	sent     uint64 // guarded by mu; as counted

	// Of the watchdog alone.
	seen   uint64 // bytes moved
	seenAt int64  // and when it saw the last of them
}

// Serve relays until the connection ends, or hands it to who speaks HTTP. It blocks.
func (c *Conn) Serve() {
	opened := make(chan bool)
	go func() { opened <- c.open() }() // for this needs a stack four times as large, and large it would stay
	if <-opened {
		c.carry()
	}
	if c.isHanded() {
		c.route.HTTP(c.client.net)
		return
	}
	c.close()
	c.account()
}

// open finds the route, by what the listener wants read and looked at, and connects to a host.
// It reports whether there is one.
func (c *Conn) open() bool {
	c.counted = c.relay.config.Unrouted
	found := c.greet() && c.inspect()
	if found && c.route.HTTP != nil {
		if c.hand() {
			return false
		}
		found = false
	}
	if found {
		c.counted = c.route.Counted
	}
	c.counted.Begin()
	if !found || !c.secure() {
		return false
	}
	c.served.Store(true) // who does not end its handshake loses nothing
	if c.upstream.net != nil {
		return true // ahead
	}
	failed := c.connect(context.Background(), c.route)
	if failed.why != reason.None {
		c.fail(failed)
	}
	return failed.why == reason.None
}

// hand lets the connection be another's, and reports false if it has ended before.
func (c *Conn) hand() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handed = !c.over
	return c.handed
}

func (c *Conn) isHanded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handed
}

// secure does the handshake of a client whose TLS ends here.
func (c *Conn) secure() bool {
	if c.route.TLS == nil {
		return true
	}
	secure := c.route.TLS.Conn(c.client.net)
	c.cancelBy(secure.GiveUp)                                                   // it may wait for others to be done,
	late := time.AfterFunc(c.relay.config.PrefaceTimeout, secure.GiveUp)        // which no deadline of its own ends
	_ = c.client.net.SetDeadline(time.Now().Add(c.relay.config.PrefaceTimeout)) // fails only on a closed one
	err := secure.Handshake()
	late.Stop()
	c.cancelBy(nil)
	switch {
	case err == nil:
	case mtls.Cause(err) == "closed":
		c.fail(cause{why: reason.ClientGone})
		return false
	default:
		c.fail(cause{reason.BadPreface, "the TLS handshake with the client failed: " + mtls.ExplainClient(err)})
		return false
	}
	_ = c.client.net.SetDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = newEnd(secure)
	return !c.over
}

// greet reads the header that comes before all else, if the listener wants one. It reports
// whether that came about.
func (c *Conn) greet() bool {
	c.source, c.destination = address(c.client.net.RemoteAddr()), address(c.client.net.LocalAddr())
	config := &c.relay.config
	if !config.ProxyProtocol {
		return true
	}
	_ = c.client.net.SetReadDeadline(time.Now().Add(config.PrefaceTimeout))
	err := c.readHeader()
	if err == nil {
		err = c.client.net.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return true
	}
	var badHeader *proxyproto.Error
	switch {
	case errors.As(err, &badHeader):
		c.fail(cause{reason.BadPreface, err.Error()})
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(cause{why: reason.BadPreface})
	default:
		c.fail(cause{why: reason.ClientGone})
	}
	return false
}

func (c *Conn) readHeader() error {
	h, err := proxyproto.Read(c.client.net, 0)
	if err == nil && h.Known() {
		c.source, c.destination = h.Source, h.Destination
	}
	return err
}

// await finds a route that may have to be learnt first. Who ends the connection ends the
// wait.
func (c *Conn) await() bool {
	c.served.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.cancelBy(cancel)
	defer c.cancelBy(nil)
	var why reason.Reason
	if c.route, why = c.relay.config.Find(ctx); c.route == nil {
		c.fail(cause{why: why})
	}
	return c.route != nil
}

// connect connects to a host, if need be to one after the other, until ctx ends.
func (c *Conn) connect(ctx context.Context, route *Route) cause {
	var tried lb.Tried
	var first cause
	for n := 1; ; n++ {
		attempt, failed := c.pick(route, &tried, n > 1)
		if failed.why == reason.None {
			c.retries = n - 1
			if failed = c.dial(ctx, attempt); failed.why == reason.None {
				return failed
			}
		}
		if first.why == reason.None {
			first = failed // what went wrong first says more than that no host is left
		}
		if attempt.Host == nil || n >= route.Attempts || c.isOver() || ctx.Err() != nil {
			return first
		}
	}
}

// pick asks the cluster for a host other than those tried; if all were, for any again.
func (c *Conn) pick(route *Route, tried *lb.Tried, again bool) (upstream.Attempt, cause) {
	now := c.relay.config.Clock()
	attempt, _, refusal := route.Cluster.Begin(now, tried)
	if refusal == upstream.AllTried && again {
		*tried = lb.Tried{}
		attempt, _, refusal = route.Cluster.Begin(now, tried)
	}
	switch refusal {
	case upstream.Granted:
		return attempt, cause{}
	case upstream.NoEndpoints:
		return attempt, cause{why: reason.NoEndpoints}
	case upstream.LimitReached:
		return attempt, cause{reason.RequestLimit, "the limit of connections to the cluster is reached"}
	}
	return attempt, cause{why: reason.NoUsableEndpoint}
}

// dial connects to the host of an attempt, and gives the attempt back if that fails.
func (c *Conn) dial(ctx context.Context, attempt upstream.Attempt) cause {
	host := attempt.Host
	c.host = host
	began := c.relay.config.Clock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.cancelBy(cancel)
	nc, err := host.Connect(ctx)
	now := c.relay.config.Clock()
	c.connectTime = time.Duration(now - began)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = nil
	unwanted := c.over || ctx.Err() != nil
	if err == nil && !unwanted {
		c.upstream, c.attempt = newEnd(nc), attempt
		return cause{}
	}
	failed, outcome := c.cause, breaker.Ignored
	if failed.why == reason.None {
		failed = cause{why: reason.ClientGone}
	}
	if err == nil {
		_ = nc.Close()
		host.Disconnected()
	} else if !unwanted {
		failed, outcome = unconnected(err)
	}
	attempt.Done(outcome, now)
	return failed
}

// unconnected says what the error of connecting means, and what it says about the host.
func unconnected(err error) (cause, breaker.Outcome) {
	var ne net.Error
	switch {
	case errors.Is(err, upstream.ErrLoop):
		return cause{why: reason.Loop}, breaker.Failure
	case errors.Is(err, upstream.ErrNoSocket):
		return cause{why: reason.NoSocket}, breaker.Ignored
	case errors.Is(err, upstream.ErrBusy):
		return cause{why: reason.TooManyConnecting}, breaker.Ignored
	case errors.Is(err, upstream.ErrNotDelivered):
		return cause{why: reason.NotDelivered}, breaker.Failure
	case errors.Is(err, upstream.ErrTLS):
		return cause{reason.TLSFailed, mtls.Explain(err)}, breaker.Failure
	case errors.As(err, &ne) && ne.Timeout():
		return cause{why: reason.ConnectTimeout}, breaker.Failure
	}
	return cause{why: reason.ConnectFailed}, breaker.Failure
}

// carry relays, once both ends are there.
func (c *Conn) carry() {
	c.in.init(c.client, c.upstream, &c.relay.pipes)
	c.out.init(c.upstream, c.client, &c.relay.pipes)
	c.moving.Store(c.relay.config.Clock())
	client, host := cause{reason.ClientGone, "the client reset the connection"}, cause{reason.UpstreamReset, "the instance reset the connection"}
	if !c.introduced && !c.introduce(c.route) {
		c.end(host)
		return
	}
	late := c.relay.config.Knocks && !c.heed()
	var other sync.WaitGroup
	other.Go(func() { c.pass(&c.out, &c.in, host, client) })
	if late {
		c.takeLate()
	}
	c.pass(&c.in, &c.out, client, host)
	other.Wait()
}

// introduce sends what comes before the bytes that are relayed, in one piece, as the PROXY
// protocol wants its header. It reports whether that was taken.
func (c *Conn) introduce(route *Route) bool {
	c.introduced = true
	version := route.Cluster.ProxyProtocol()
	if version == 0 {
		return true
	}
	h := proxyproto.Header{Version: proxyproto.Version(version), Source: c.source, Destination: c.destination}
	_, err := c.upstream.net.Write(h.Append(nil))
	return err == nil
}

// pass runs one way to its end, and passes on how that was. A sender that breaks breaks
// the connection, once the other end has what was sent before. So does a receiver, by the
// end of the other way.
func (c *Conn) pass(p, back *pump, sender, receiver cause) {
	switch p.run() {
	case neither:
		if !back.ended.Load() && p.from.isBroken() {
			p.to.deliver()
			c.end(sender)
			return
		}
		p.ended.Store(true)
		if !c.isOver() {
			p.to.closeWrite()
		}
	case reading:
		if p.truncated {
			sender.detail = "its TLS ended without a close_notify, so what it sent may not be all"
		}
		p.to.deliver()
		c.end(sender)
	case writing:
		c.fail(receiver)
	}
}

// fail notes why the connection ends, if that is the first reason.
func (c *Conn) fail(why cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(why)
}

func (c *Conn) failLocked(why cause) {
	if !c.over {
		c.cause, c.over = why, true
	}
}

// cancelBy says how whoever ends the connection ends the wait that begins now; nil: it is
// over.
func (c *Conn) cancelBy(cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	if c.over && cancel != nil {
		cancel()
	}
}

func (c *Conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// end ends the connection where it is, both ways.
func (c *Conn) end(why cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handed {
		return // it is another's
	}
	c.failLocked(why)
	if c.cancel != nil {
		c.cancel()
	}
	c.client.reset()
	if c.upstream.net != nil {
		c.upstream.reset()
	}
}

// close closes both ends, and gives back what they used.
func (c *Conn) close() {
	now := c.relay.config.Clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over && c.served.Load() {
		c.client.reset()
	} else {
		_ = c.client.net.Close()
	}
	if c.upstream.net != nil {
		if c.over {
			c.upstream.reset()
		} else {
			_ = c.upstream.net.Close()
		}
		c.host.Disconnected()
		c.attempt.Done(c.outcome(now), now)
	}
}

// outcome is what the connection says about its host by now: it works if it has sent
// something, kept the connection for a while, or seen it to its end; it fails if it broke
// it before. It needs c.mu.
func (c *Conn) outcome(now int64) breaker.Outcome {
	moving := c.moving.Load()
	switch {
	case c.out.moved.Load() > 0, moving > 0 && now-moving >= provenAfter, !c.over && c.in.ended.Load() && c.out.ended.Load():
		return breaker.Success
	case c.over && c.cause.why == reason.UpstreamReset:
		return breaker.Failure
	}
	return breaker.Ignored
}

// count tells metrics what has moved since the last time. It needs c.mu.
func (c *Conn) count() {
	received, sent := c.in.moved.Load(), c.out.moved.Load()
	c.counted.Moved(received-c.received, sent-c.sent)
	c.received, c.sent = received, sent
}

// account tells metrics and log how the connection went: once, at its end.
func (c *Conn) account() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	c.counted.Done(int(c.cause.why))
	if access := c.relay.config.Access; access != nil {
		e := c.entry()
		access.Record(&e)
	}
}

func (c *Conn) entry() accesslog.Entry {
	e := accesslog.Entry{
		Start:            c.relay.wall.Add(time.Duration(c.began)),
		Duration:         time.Duration(c.relay.config.Clock() - c.began),
		UpstreamDuration: c.connectTime,
		Authority:        c.said.server,
		Protocol:         "TCP",
		Source:           c.relay.config.Source,
		Client:           c.source,
		BytesIn:          c.received,
		BytesOut:         c.sent,
		Retries:          uint32(c.retries),
	}
	if len(e.Authority) == 0 {
		e.Authority = c.relay.config.Authority
	}
	if c.route != nil {
		e.Source, e.Destination, e.Route = c.route.Source, c.route.Destination, c.route.Name
	}
	if c.host != nil {
		e.Instance, e.Upstream = c.host.Endpoint().Instance, c.host.Address()
	}
	if why := c.cause.why; why != reason.None {
		e.Reason, e.Sentence = why.Code(), c.cause.detail
		if e.Sentence == "" {
			e.Sentence = why.Text()
		}
	}
	return e
}

// Check looks whether nothing has moved for too long, and tells metrics what has. The
// watchdog calls it, now and then.
func (c *Conn) Check(now int64) {
	moving := c.moving.Load()
	if moving == 0 {
		return // what is waited for before has its own bounds
	}
	moved := c.in.moved.Load() + c.out.moved.Load()
	if c.seenAt == 0 {
		c.seenAt = moving
	}
	if moved != c.seen {
		c.seen, c.seenAt = moved, now
	}
	c.mu.Lock()
	if c.attempt.Host != nil { // it is not closed yet
		if !c.settled && c.outcome(now) == breaker.Success {
			c.attempt.Settle(breaker.Success, now)
			c.settled = true
		}
		c.count()
	}
	c.mu.Unlock()
	if idle := int64(c.route.IdleTimeout); idle > 0 && now-c.seenAt >= idle {
		c.end(cause{why: reason.IdleTimeout})
	}
}

// IdleSince returns since when the connection waits for its first bytes; false if it is
// relayed: its ends may count on it even while nothing moves.
func (c *Conn) IdleSince() (int64, bool) { return c.began, !c.served.Load() && !c.isOver() }

// Drain ends a connection that is not relayed yet. One that is goes on until its ends
// have ended it.
func (c *Conn) Drain() {
	if !c.served.Load() {
		c.end(cause{why: reason.Stopped})
	}
}

// Cut ends the connection in the middle of what it does.
func (c *Conn) Cut() {
	c.end(cause{reason.Stopped, "the proxy stopped before the connection was ended"})
}

// address is that of a network connection; none if it has none of IP.
func address(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
