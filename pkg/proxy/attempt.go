package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// maxReplay is how large a body may be that is kept for a second attempt.
const maxReplay = 16 << 10

// failure is an attempt that brought no answer.
type failure struct {
	why reason.Reason
	// undelivered: surely nothing of the request was acted upon.
	undelivered bool
}

// attempts sends the request to a host, and, if that fails in a way that makes it
// safe, to one more.
func (x *exchange) attempts() {
	body, whole := x.conn.h1.Whole()
	for {
		attempt, refusal := x.pick()
		if refusal != upstream.Granted {
			x.refused(refusal)
			return
		}
		x.host = attempt.Host
		failed := x.try(&attempt, body, whole)
		if failed.why == reason.None {
			return
		}
		if !x.mayRetry(failed, body, whole) {
			x.reply(failed.why)
			return
		}
		x.retries++
		x.cause = failed.why
		x.event("retry", tracing.String("fairlead.cause", failed.why.Code()))
	}
}

// pick asks the cluster for a host other than those tried; if they all were, a
// retry may have the same again.
func (x *exchange) pick() (upstream.Attempt, upstream.Refusal) {
	now := x.conn.server.config.Clock()
	attempt, refusal := x.entry.Cluster.Begin(now, &x.tried)
	if refusal == upstream.AllTried && x.retries > 0 {
		x.tried = lb.Tried{}
		attempt, refusal = x.entry.Cluster.Begin(now, &x.tried)
	}
	return attempt, refusal
}

// refused answers a request that no host may have.
func (x *exchange) refused(refusal upstream.Refusal) {
	why := reason.NoUsableEndpoint
	switch refusal {
	case upstream.NoEndpoints:
		why = reason.NoEndpoints
	case upstream.LimitReached:
		why = reason.RequestLimit
	}
	if x.retries > 0 {
		why = x.cause // what went wrong first says more than that no host is left
	}
	x.event("refused", tracing.String("fairlead.cause", refusal.String()))
	x.reply(why)
}

// mayRetry is the one rule for a second attempt: no byte of a response was
// received, and the request was surely not acted upon, or its method is
// idempotent (RFC 9110 §9.2.2) and its body, if any, is still here. Once.
func (x *exchange) mayRetry(f failure, body []byte, whole bool) bool {
	if x.retries > 0 || !whole || len(body) > maxReplay || x.conn.gone.Load() {
		return false
	}
	if f.undelivered {
		return true
	}
	return f.why == reason.UpstreamReset && isIdempotent(x.request.Method)
}

func isIdempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// try makes one attempt. If it fails, nothing was sent to the client.
func (x *exchange) try(attempt *upstream.Attempt, body []byte, whole bool) failure {
	c := x.conn
	clock := c.server.config.Clock
	x.sentAt = clock()
	c.expires.Store(x.deadline)
	c.enter(silent, x.sentAt)
	if attempt.Probe() {
		x.event("breaker probe", tracing.String(tracing.AttrInstance, attempt.Host.Endpoint().Instance))
	}
	x.traceAttempt(attempt.Host)
	up, failed := x.connect(attempt.Host)
	if failed.why == reason.None {
		c.using(up)
		failed = x.forward(up, body, whole)
		c.using(nil)
	}
	now := clock()
	x.finish(attempt, up, failed, now)
	// Only now, so that a client's next request finds the connection in the pool.
	if x.answered && x.why == reason.None && c.h1.Flush() != nil {
		x.cutOff(reason.ClientGone)
	}
	return failed
}

// connect takes an idle connection, or opens one; a retry trusts no idle one.
func (x *exchange) connect(host *upstream.Host) (*upstream.Conn, failure) {
	if x.retries == 0 {
		if up := host.Take(x.sentAt); up != nil {
			return up, failure{}
		}
	}
	ctx, done := x.conn.cancellable()
	defer done()
	up, err := host.Dial(ctx)
	var ne net.Error
	switch {
	case err == nil:
		return up, failure{}
	case x.conn.gone.Load():
		return nil, failure{why: reason.ClientGone}
	case x.expired():
		return nil, failure{why: reason.RequestTimeout}
	case x.entry.Inbound:
		return nil, failure{why: reason.NotDelivered, undelivered: true}
	case errors.As(err, &ne) && ne.Timeout():
		return nil, failure{why: reason.ConnectTimeout, undelivered: true}
	default:
		return nil, failure{why: reason.ConnectFailed, undelivered: true}
	}
}

func (x *exchange) expired() bool {
	return x.deadline > 0 && x.conn.server.config.Clock() >= x.deadline
}

// finish gives the host and its connection back, and says how it went.
func (x *exchange) finish(attempt *upstream.Attempt, up *upstream.Conn, failed failure, now int64) {
	why := failed.why
	if why == reason.None {
		why = x.why // the response may have broken
	}
	outcome := breaker.Success
	switch {
	case why == reason.ClientGone:
		outcome = breaker.Ignored
	case why != reason.None:
		outcome = breaker.Failure
	case x.status >= 500 && x.response.Get(wire.RetryAfter) != nil && x.status == 503,
		x.status == 429:
		outcome = breaker.Ignored // asks to come back later: neither works nor fails
	case x.status >= 500:
		outcome = breaker.Failure
	}
	status := x.status
	if failed.why != reason.None {
		status = 0
	}
	x.endAttempt(status, why, now)
	attempt.Done(outcome, now)
	if up == nil {
		return
	}
	reusable := why == reason.None && !x.response.Close && x.upload.whole() && up.EndExchange() == nil
	if reusable {
		up.Put(now)
	} else {
		up.Close()
	}
}

// forward sends the request over up and passes the response on.
func (x *exchange) forward(up *upstream.Conn, body []byte, whole bool) failure {
	up.Written()
	if err := x.sendRequest(up, body, whole); err != nil {
		// An answer may have come all the same, as of a server that refuses a large
		// body and closes; but without one there is nothing to pass on.
		if !x.awaitHead(up) {
			return x.broken(up, err, up.Written() == 0)
		}
		return x.answer(up)
	}
	if !whole {
		x.upload.start(x, up)
	}
	if !x.awaitHead(up) {
		x.upload.stop(x)
		return x.broken(up, x.headErr, false)
	}
	if x.retries == 0 && !x.entry.Inbound && x.response.Get(wire.FairleadNotDelivered) != nil {
		x.response.Close = true // its rest is not worth reading
		if whole {
			return failure{why: reason.NotDelivered, undelivered: true}
		}
	}
	return x.answer(up)
}

// sendRequest writes the head, and the body too if all of it is here.
func (x *exchange) sendRequest(up *upstream.Conn, body []byte, whole bool) error {
	h := &x.request
	if whole && h.Streamed && len(x.conn.h1.Trailers()) == 0 {
		h.Streamed, h.ContentLength = false, int64(len(body))
	}
	if err := up.WriteHead(h); err != nil {
		return err
	}
	if whole {
		x.bytesIn = uint64(len(body))
		if err := up.WriteBody(body); err != nil {
			return err
		}
		if err := up.EndBody(x.conn.h1.Trailers()); err != nil {
			return err
		}
	}
	return up.Flush()
}

// awaitHead reads the response's head; interim responses are passed on. If it
// fails, headErr says why.
func (x *exchange) awaitHead(up *upstream.Conn) bool {
	toHead := string(x.request.Method) == "HEAD"
	for {
		x.arm(up)
		x.headErr = up.ReadResponse(&x.response, toHead)
		switch {
		case x.headErr == nil && x.response.Status == 101:
			x.headErr = errUnasked
			return false
		case x.headErr == nil && x.response.Status >= 200:
			x.headAt = x.conn.server.config.Clock()
			return true
		case x.headErr == nil:
			if x.request.Proto == wire.HTTP10 {
				continue // RFC 9110 §15.2: a 1.0 client gets no 1xx
			}
			wire.RemoveHopByHop(&x.response)
			if x.conn.h1.WriteHead(&x.response) != nil || x.conn.h1.Flush() != nil {
				x.conn.gone.Store(true)
				return false
			}
		case !x.tooEarly(up, x.headErr):
			return false
		}
	}
}

var errUnasked = errors.New("the instance switches protocols unasked")

// arm sets the connection's read deadline so that it ends no later than the
// exchange. One that is set and ends earlier is left: most requests are answered
// before it, and those that are not set it again. So the many set none.
func (x *exchange) arm(up *upstream.Conn) {
	now := x.conn.server.config.Clock()
	if x.deadline == 0 || up.Deadline > now && up.Deadline <= x.deadline {
		return
	}
	x.setDeadline(up, now)
}

func (x *exchange) setDeadline(up *upstream.Conn, now int64) {
	up.Deadline = x.deadline
	var at time.Time
	if x.deadline > 0 {
		at = time.Now().Add(time.Duration(x.deadline - now))
	}
	_ = up.Net.SetReadDeadline(at) // fails only on a closed connection, as reading will
}

// tooEarly reports whether err is the deadline of an earlier exchange, and sets
// this one's instead.
func (x *exchange) tooEarly(up *upstream.Conn, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	now := x.conn.server.config.Clock()
	if x.deadline > 0 && now >= x.deadline {
		return false
	}
	x.setDeadline(up, now)
	return true
}

// broken says what the error of an attempt without an answer means.
func (x *exchange) broken(up *upstream.Conn, err error, unsent bool) failure {
	var malformed *wire.Error
	switch {
	case x.conn.gone.Load() || x.upload.clientFailed():
		return failure{why: reason.ClientGone}
	case errors.Is(err, os.ErrDeadlineExceeded) || x.expired():
		return failure{why: reason.RequestTimeout}
	case errors.As(err, &malformed) || errors.Is(err, errUnasked) || up.Begun():
		return failure{why: reason.UpstreamProtocol}
	default:
		return failure{why: reason.UpstreamReset, undelivered: unsent}
	}
}

// answer passes the response on. What goes wrong from here on cannot be answered.
func (x *exchange) answer(up *upstream.Conn) failure {
	c := x.conn
	h := &x.response
	closeUp := h.Close
	wire.RemoveHopByHop(h)
	if !x.entry.Inbound {
		h.Del(wire.FairleadNotDelivered)
	}
	if x.upload.running && !x.upload.isDone() {
		x.keepAlive = x.keepAlive && !x.request.ExpectContinue
	}
	h.Close = !x.keepAlive
	x.answered, x.status = true, h.Status
	c.enter(working, x.headAt)
	if err := c.h1.WriteHead(h); err != nil {
		x.why, x.answered = reason.UpstreamProtocol, false
		return failure{why: reason.UpstreamProtocol}
	}
	x.keepAlive = x.keepAlive && !h.Close
	h.Close = closeUp
	x.passBody(up)
	if !x.upload.settle(x) {
		x.keepAlive, x.linger = false, true
	}
	return failure{}
}

// passBody copies the response's body, flushing whenever the next bytes are not
// here yet.
func (x *exchange) passBody(up *upstream.Conn) {
	c := x.conn
	for {
		if !up.Ready() && c.h1.Flush() != nil {
			x.cutOff(reason.ClientGone)
			return
		}
		p, err := up.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if x.tooEarly(up, err) {
				continue
			}
			_ = c.h1.Flush() // what did come; that it is not whole, the client sees
			x.cutOff(x.broken(up, err, false).why)
			return
		}
		x.bytesOut += uint64(len(p))
		if c.h1.WriteBody(p) != nil {
			x.cutOff(reason.ClientGone)
			return
		}
		c.since.Store(c.server.config.Clock())
	}
	if c.h1.EndBody(up.Trailers()) != nil {
		x.cutOff(reason.ResponseBroken)
	}
}

// cutOff ends a response that had begun: the client must not take it for whole.
func (x *exchange) cutOff(why reason.Reason) {
	if why == reason.UpstreamReset || why == reason.UpstreamProtocol {
		why = reason.ResponseBroken
	}
	x.why = why
	x.keepAlive = false
	if tcp, ok := x.conn.net.(*net.TCPConn); ok && x.request.Proto == wire.HTTP10 {
		// A 1.0 client takes the end of the connection for the end of the body.
		_ = tcp.SetLinger(0) // then it sees a truncated body, which is all there is
	}
}
