package proxy

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// maxReplay is how much of a body that is still coming in is kept for a second attempt.
const maxReplay = 16 << 10

// failure is an attempt that brought no answer.
type failure struct {
	why reason.Reason
	// undelivered: surely nothing of the request was acted upon.
	undelivered bool
	// leftOut: it was undelivered because the host ended a connection in order.
	leftOut bool
}

// maxLeftOut is how often a request is sent that hosts leave out as they end connections. Hosts
// do so after a number of requests, and so to many connections at a time: the next one may be
// of those, too.
const maxLeftOut = 4

// begun begins an attempt: a host, its permit, an idle connection. A retry trusts no
// idle one.
func (x *exchange) begun() stage {
	if x.isLate() {
		return x.reply(reason.RequestTimeout)
	}
	x.sentAt, x.headAt = x.server.config.Clock(), 0
	attempt, refused, refusal := x.pick(x.sentAt)
	if refused > 0 {
		x.event("breaker refused", tracing.Int("fairlead.hosts", int64(refused)))
	}
	if refusal != upstream.Granted {
		return x.refused(refusal)
	}
	x.attempt, x.host, x.up, x.refusal, x.leftOut = attempt, attempt.Host, nil, false, false
	x.life.expires.Store(x.deadline)
	x.life.enter(silent, x.sentAt)
	if attempt.Probe() {
		x.event("breaker probe", tracing.String(tracing.AttrInstance, x.host.Endpoint().Instance))
	}
	x.traceAttempt(x.host)
	if x.offer != nil && !x.choose() {
		return x.ended(failure{why: reason.BadRequest})
	}
	x.greet()
	if x.retries == 0 && !x.alone() && !x.connect && x.protocol == nil {
		x.up = x.host.Take(x.sentAt)
	}
	if x.up == nil {
		return atDial
	}
	x.up.Hold(x.batch)
	return atSend
}

// greet tells the sidecar of the instance, if there is one, that a sidecar calls. What may
// be another's port for outgoing requests is told how often that was so.
func (x *exchange) greet() {
	if !x.entry.Inbound && x.host.MayLoop() {
		x.request.Set(wire.FairleadHops, headerHops, strconv.AppendInt(x.scratch[:0], int64(x.hops+1), 10))
	}
	if x.retries > 0 {
		x.request.Del(wire.FairleadPeer)
		x.request.Del(wire.FairleadCase)
		x.request.Del(wire.Upgrade)
		x.request.Del(wire.Connection)
	}
	if x.offered {
		x.askToSwitch()
	}
	if !x.entry.Inbound && x.host.Endpoint().Sidecar {
		x.sayCase(&x.request, x.host.Shared() && !x.alone() && !x.connect)
		x.request.Add(wire.FairleadPeer, headerPeer, append(x.scratch[:0], '1'))
	}
}

// sayCase says how the names of a head's fields are spelt, which came in HTTP/1 and goes to
// another sidecar in HTTP/2: what is behind that may care.
func (x *exchange) sayCase(h *wire.Head, multiplexed bool) {
	if !multiplexed || h.Proto == wire.HTTP2 {
		return
	}
	if said := h.AppendCase(x.scratch[:0]); len(said) > 0 {
		h.Add(wire.FairleadCase, headerCase, said)
	}
}

// spell spells the names of a response as the instance's sidecar says, or tells the caller's
// how they are spelt.
func (x *exchange) spell(h *wire.Head) {
	if !x.entry.Inbound && x.host.Endpoint().Sidecar {
		setCase(h)
	}
	h.Del(wire.FairleadCase)
	if x.fromPeer {
		x.sayCase(h, x.request.Proto == wire.HTTP2)
	}
}

// setCase spells the names as another sidecar says.
func setCase(h *wire.Head) {
	if said := h.Get(wire.FairleadCase); said != nil && h.Proto == wire.HTTP2 {
		h.SetCase(said)
	}
}

// ended ends an attempt. One that failed, so that nothing was sent to the client, is
// followed by another, if that is safe, or by a reply.
func (x *exchange) ended(failed failure) stage {
	x.life.using(nil)
	x.finish(failed, x.server.config.Clock())
	// Only now, so that a client's next request finds the connection in the pool.
	if x.answered && x.why == reason.None && x.sink.Flush() != nil {
		x.cutOff(reason.ClientGone)
	}
	if failed.why == reason.None {
		x.readAway()
		return atEnd
	}
	if !x.mayRetry(failed) {
		if !x.upload.whole() {
			x.keepAlive, x.linger = false, true
		}
		if x.retries > 0 && x.cause == reason.UpstreamReset && failed.undelivered {
			failed.why, x.detail = x.cause, "" // the first attempt may have been acted upon, whatever became of this one
		}
		return x.reply(failed.why)
	}
	x.upload = upload{} // the next attempt sends what was kept, and goes on from there
	x.retries++
	x.cause, x.detail = failed.why, ""
	x.event("retry", tracing.String("fairlead.cause", failed.why.Code()))
	return x.begun()
}

// readAway reads the rest of a body that the instance did not want, for the client was told
// that the connection goes on.
func (x *exchange) readAway() {
	if !x.unread {
		return
	}
	x.life.enter(working, x.server.config.Clock())
	if !x.keepAlive || x.server.draining.Load() || !x.client.discard() {
		x.keepAlive, x.linger = false, true
	}
}

// pick asks the cluster for a host other than those tried; if they all were, a
// retry may have the same again.
func (x *exchange) pick(now int64) (attempt upstream.Attempt, refused int, refusal upstream.Refusal) {
	attempt, refused, refusal = x.entry.Cluster.Begin(now, &x.tried)
	if refusal == upstream.AllTried && x.retries > 0 {
		x.tried = lb.Tried{}
		attempt, refused, refusal = x.entry.Cluster.Begin(now, &x.tried)
	}
	return attempt, refused, refusal
}

// refused answers a request that no host may have.
func (x *exchange) refused(refusal upstream.Refusal) stage {
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
	return x.reply(why)
}

// mayRetry is the one rule for a second attempt: no byte of a response was
// received, what was read of the body is still here, and the request was surely not
// acted upon, or its method is idempotent (RFC 9110 §9.2.2). Once; what hosts leave out as they
// end connections in order is sent up to maxLeftOut times in all. What an
// application may have seen, its sidecar leaves to the caller's, which has others to
// send it to. The upload must have ended.
func (x *exchange) mayRetry(f failure) bool {
	if x.lost || x.life.gone.Load() || x.upload.clientFailed() {
		return false
	}
	return x.wouldRetry(f)
}

// wouldRetry is mayRetry but for what becomes of the body.
func (x *exchange) wouldRetry(f failure) bool {
	if f.leftOut && x.retries < maxLeftOut-1 {
		return true
	}
	if x.retries > 0 {
		return false
	}
	if f.undelivered {
		return true
	}
	return f.why == reason.UpstreamReset && !x.interim && !x.fromPeer && isIdempotent(x.request.Method) && !isCounted(&x.request)
}

// isCounted reports whether a request says itself which attempt it is, as those of sagas do. Whoever counts attempts has to know of each: a refusal of the
// second does not say that the first did nothing.
func isCounted(request *wire.Head) bool {
	for i := range request.Fields {
		if bytes.EqualFold(request.Fields[i].Name, []byte("saga-attempt")) {
			return true
		}
	}
	return false
}

func isIdempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// dial opens a connection.
func (x *exchange) dial() stage {
	ctx, done := x.life.cancellable()
	connect := x.host.Dial
	switch {
	case x.protocol != nil:
		connect = x.host.DialProtocol
	case x.connect:
		connect = x.host.DialAlone
	case x.offered: // what the host chooses by ALPN may be HTTP/2
		connect = x.host.DialUpgrade
	}
	up, err := connect(ctx)
	if errors.Is(err, upstream.ErrTLS) && x.askByConnect() {
		// A host of HTTP/2 only; unless it is the handshake that fails, whatever is offered.
		if again, errAgain := x.host.DialProtocol(ctx); !errors.Is(errAgain, upstream.ErrTLS) {
			up, err = again, errAgain
		}
	}
	if errors.Is(err, upstream.ErrNoProtocol) && x.host.Chooses() {
		// It may speak HTTP/1.1 though it does not say so.
		if again, errAgain := x.askByUpgrade(ctx); errAgain == nil {
			up, err = again, nil
		}
	}
	if errors.Is(err, upstream.ErrNoProtocol) && x.mayStay() {
		up, err = x.host.Dial(ctx)
	}
	done()
	if err != nil {
		return x.ended(x.unconnected(err))
	}
	x.up = up
	x.up.Hold(x.batch)
	if x.connect && !x.throughSidecar() {
		x.life.using(x.up)
		return x.connected()
	}
	return atSend
}

// unconnected says what the error of dialling means.
func (x *exchange) unconnected(err error) failure {
	var ne net.Error
	switch {
	case x.life.gone.Load():
		return failure{why: reason.ClientGone}
	case x.expired():
		return failure{why: reason.RequestTimeout}
	case errors.Is(err, upstream.ErrLoop):
		return failure{why: reason.Loop, undelivered: true}
	case errors.Is(err, upstream.ErrNoProtocol):
		x.detail = reason.UpgradeUnsupported.Text() + ": it speaks HTTP/2, and does not announce SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441)"
		return failure{why: reason.UpgradeUnsupported}
	case x.entry.Inbound:
		if errors.Is(err, upstream.ErrNoSocket) {
			x.detail = reason.NotDelivered.Text() + ": " + reason.NoSocket.Text()
		}
		return failure{why: reason.NotDelivered, undelivered: true}
	case errors.Is(err, upstream.ErrNoSocket):
		return failure{why: reason.NoSocket, undelivered: true}
	case errors.Is(err, upstream.ErrConnections):
		x.detail = "the limit of connections to the service is reached, and the instance does not take requests together on one"
		return failure{why: reason.RequestLimit, undelivered: true}
	case errors.Is(err, upstream.ErrPending): // wherever it is sent
		x.detail = "as many requests wait for a connection to the service as may (max_pending_requests)"
		return failure{why: reason.TooManyConnecting}
	case errors.Is(err, upstream.ErrBusy):
		return failure{why: reason.TooManyConnecting, undelivered: true}
	case errors.As(err, &ne) && ne.Timeout():
		if errors.Is(err, upstream.ErrNoSettings) {
			x.detail = reason.ConnectTimeout.Text() + ": it was connected to, and has not sent its SETTINGS (RFC 9113 §3.4)"
		}
		return failure{why: reason.ConnectTimeout, undelivered: true}
	case errors.Is(err, upstream.ErrNotDelivered):
		return failure{why: reason.NotDelivered, undelivered: true}
	case errors.Is(err, upstream.ErrTLS):
		x.detail = reason.TLSFailed.Text() + ": " + mtls.Explain(err)
		return failure{why: reason.TLSFailed, undelivered: true}
	default:
		return failure{why: reason.ConnectFailed, undelivered: true}
	}
}

func (x *exchange) expired() bool {
	at := x.life.expires.Load()
	return at > 0 && x.server.config.Clock() >= at
}

// finish gives the host and its connection back, and says how it went.
func (x *exchange) finish(failed failure, now int64) {
	why, status := failed.why, 0
	if why == reason.None {
		why, status = x.why, x.status // the response may have broken
	}
	x.endAttempt(status, why, now)
	before := x.attempt.BreakerState(now)
	if x.life.probe.Load() != nil {
		x.life.probe.Store(nil)
	}
	x.attempt.Done(x.outcome(why, now), now)
	if after := x.attempt.BreakerState(now); after != before {
		x.event("breaker "+after.String(), tracing.String(tracing.AttrInstance, x.host.Endpoint().Instance))
	}
	if x.up == nil {
		return
	}
	x.up.Release(why == reason.None && !x.response.Close && x.sendErr == nil && x.upload.whole() && !x.tunnelled, now)
	x.up = nil
}

// outcome is what an attempt says about its host.
func (x *exchange) outcome(why reason.Reason, now int64) breaker.Outcome {
	switch {
	case why == reason.ClientGone && x.rpc.kind != rpc.None && !x.answered && x.nearEnd() && !x.hurried(now):
		return breaker.Failure // its deadline has passed
	case x.tunnelled:
		return breaker.Success // it did what it was asked; what ended the tunnel says nothing
	case why == reason.ClientGone, why == reason.BodyTimeout, why == reason.BadRequest,
		why == reason.TooManyConnecting, why == reason.NoSocket, why == reason.RequestLimit, why == reason.UpgradeUnsupported:
		return breaker.Ignored // says nothing
	case why == reason.RequestTimeout && x.hurried(now), why == reason.UpstreamReset && x.rpc.reset == rpc.DeadlineExceeded && x.hurried(now):
		return breaker.Ignored
	case why == reason.UpstreamReset && x.refusal:
		return breaker.Ignored // about the request; others on the connection go on
	case why == reason.UpstreamReset && x.leftOut:
		return breaker.Ignored // about the connection, which may have come of age
	case why != reason.None:
		return breaker.Failure
	case x.rpc.kind != rpc.None && x.status == 200:
		return x.callOutcome(now)
	case x.status == 429, x.status == 503 && x.response.Get(wire.RetryAfter) != nil:
		return breaker.Ignored // asks to come back later: neither works nor fails
	case x.status >= 500:
		return breaker.Failure
	case x.status >= 400:
		return breaker.Ignored // about the request, which another instance would refuse as well
	}
	return breaker.Success
}

// send writes the request. A body that is still coming in gets a carrier of its own.
// What the stream refuses to write, since it would be read as another request, gets no
// answer to wait for.
func (x *exchange) send() stage {
	x.life.using(x.up)
	if x.rpc.unsure {
		x.settleCall()
	}
	if !x.passTimeout() {
		return x.ended(failure{why: reason.RequestTimeout})
	}
	x.up.Written()
	x.up.SetDeadline(x.deadline)
	x.sendErr = x.sendRequest()
	if x.sendErr != nil && isMalformed(x.sendErr) {
		return x.ended(failure{why: reason.BadRequest})
	}
	if x.sendErr == nil && !x.whole {
		if x.attempt.Probe() {
			x.life.probe.Store(&probe{attempt: x.attempt, sentAt: x.sentAt})
		}
		x.upload.start(x, x.up)
	}
	return atHead
}

// sendRequest writes the head, and what is here of the body.
func (x *exchange) sendRequest() error {
	h := &x.request
	if x.whole && h.Streamed && len(x.source.Trailers()) == 0 {
		h.Streamed, h.ContentLength = false, int64(len(x.body))
	}
	if err := x.writeRequestHead(); err != nil {
		return err
	}
	x.bytesIn = uint64(len(x.body))
	if len(x.body) > 0 {
		if err := x.up.WriteBody(x.body); err != nil {
			return err
		}
	}
	if x.whole && x.protocol == nil { // what comes behind that is the tunnel's
		if err := x.up.EndBody(x.source.Trailers()); err != nil {
			return err
		}
	}
	if x.whole && x.batch == nil {
		return x.up.Ask()
	}
	return x.up.Flush()
}

// receive takes the response's head. Where the request was not sent whole, an answer
// may have come all the same, as of a server that refuses a large body and closes;
// but without one there is nothing to pass on.
func (x *exchange) receive() stage {
	if !x.awaitHead() {
		x.upload.stop(x)
		if x.sendErr != nil && !isMalformed(x.headErr) { // which may have ended the sending
			return x.ended(x.broken(x.sendErr, x.up.Written() == 0))
		}
		return x.ended(x.broken(x.headErr, false))
	}
	if x.response.Status == 101 {
		return x.switchOver()
	}
	if x.response.Status < 200 {
		return atHead // the next one may not be here yet, and who holds the exchange may not wait
	}
	if x.response.Status < 300 {
		switch {
		case x.connect:
			return x.connected()
		case x.protocol != nil:
			return x.switchOver()
		case x.extended:
			// Passed on, it would say that there is a tunnel.
			x.detail = reason.UpgradeUnsupported.Text() + ": it answers the request and does not switch"
			x.response.Close = true // its rest is not worth reading
			return x.ended(failure{why: reason.UpgradeUnsupported})
		}
	}
	if f := x.peerFailure(); f.why != reason.None && x.wouldRetry(f) {
		x.upload.stop(x)
		x.response.Close = true // its rest is not worth reading
		return x.ended(f)
	}
	return x.answer()
}

// peerFailure returns what the sidecar of the instance says in place of an answer, as
// far as it may be another's turn. Only a sidecar is believed.
func (x *exchange) peerFailure() failure {
	if x.entry.Inbound || !x.host.Endpoint().Sidecar {
		return failure{}
	}
	switch string(x.response.Get(wire.FairleadPeerFailure)) {
	case reason.NotDelivered.Code():
		return failure{why: reason.NotDelivered, undelivered: true}
	case reason.UpstreamReset.Code():
		return failure{why: reason.UpstreamReset}
	default:
		return failure{}
	}
}

// awaitHead reads a head of the response; an interim one is passed on. If it fails, headErr
// says why.
func (x *exchange) awaitHead() bool {
	x.headErr = x.up.ReadResponse(&x.response, string(x.request.Method) == "HEAD")
	switch {
	case x.headErr != nil:
		return false
	case x.response.Status == 101:
		x.headErr = x.switches()
		x.headAt = x.server.config.Clock()
		return x.headErr == nil
	case x.response.Status >= 200:
		x.headAt = x.server.config.Clock()
		return true
	}
	x.interim = true
	if x.interimBytes += x.response.Size(); x.interimBytes > maxInterimBytes {
		x.headErr = errManyInterim
		return false
	}
	if x.request.Proto == wire.HTTP10 {
		return true // RFC 9110 §15.2: a 1.0 client gets no 1xx
	}
	if !x.passInterim() {
		x.life.gone.Store(true)
		return false
	}
	return true
}

// maxInterimBytes bounds the interim responses to a request together, as large as one head may be,
// each with 64 more than its fields have. What a client asks for once, a host could
// otherwise answer for ever, one small head after the other, without the beginning of an answer:
// RFC 9110 §15.2 sets no bound. Some 900 of the smallest fit.
const maxInterimBytes = 60 << 10

// errManyInterim is of more than that.
var errManyInterim = &wire.Error{Status: 502, Text: "more interim responses (1xx) than fit into the limit of a head"}

// passInterim passes an interim response on, which the client may be slow to take.
func (x *exchange) passInterim() bool {
	wire.RemoveHopByHop(&x.response)
	x.spell(&x.response)
	// Sidecars send neither with it, and clients must not be told by an application.
	x.response.Del(wire.FairleadPeerFailure)
	x.response.Del(wire.FairleadReason)
	x.life.enter(working, x.server.config.Clock())
	passed := x.sink.WriteHead(&x.response) == nil && x.sink.Flush() == nil
	x.life.enter(silent, x.server.config.Clock())
	return passed
}

// broken says what the error of an attempt without an answer means, once its upload
// has ended.
func (x *exchange) broken(err error, unsent bool) failure {
	x.callReset(err)
	switch {
	case x.life.gone.Load():
		return failure{why: reason.ClientGone}
	case x.upload.clientFailed():
		var malformed *wire.Error
		if errors.As(x.upload.err, &malformed) {
			x.detail = malformed.Text
			return failure{why: reason.BadRequest}
		}
		if errors.Is(x.upload.err, os.ErrDeadlineExceeded) { // the watchdog's
			return failure{why: reason.BodyTimeout}
		}
		return failure{why: reason.ClientGone}
	case errors.Is(err, os.ErrDeadlineExceeded) || x.expired():
		if x.upload.starved() {
			return failure{why: reason.BodyTimeout}
		}
		return failure{why: reason.RequestTimeout}
	case errors.Is(err, upstream.ErrRefused):
		x.leftOut = errors.Is(err, upstream.ErrLeftOut)
		return failure{why: reason.UpstreamReset, undelivered: true, leftOut: x.leftOut}
	case isMalformed(err) || errors.Is(x.headErr, upstream.ErrBegun):
		x.detail = reason.UpstreamProtocol.Text() + ": " + protocolFault(err)
		return failure{why: reason.UpstreamProtocol}
	default:
		var fault *http2.ConnError
		var reset *http2.ResetError
		switch {
		case errors.As(err, &fault):
			x.detail = "the instance breaks HTTP/2, for which its connection was closed: " + fault.Text
		case errors.As(err, &reset) && !reset.Ours:
			x.detail = "the instance reset the request's stream: " + reset.Code.String()
		}
		x.refusal = isRefusal(err)
		return failure{why: reason.UpstreamReset, undelivered: unsent}
	}
}

// isRefusal reports whether a host has reset a stream, and nothing else, because it holds the request
// to be malformed: RFC 9113 §8.1.1 wants that of it ("Malformed requests or responses that are detected
// MUST be treated as a stream error of type PROTOCOL_ERROR"). It says of the request what 400 does.
func isRefusal(err error) bool {
	var reset *http2.ResetError
	return errors.As(err, &reset) && reset.Code == http2.ProtocolError && !reset.Ours
}

// protocolFault says what is wrong with a response, and nothing about the connection
// that it came on.
func protocolFault(err error) string {
	var malformed *wire.Error
	if errors.As(err, &malformed) {
		return malformed.Text
	}
	return upstream.ErrBegun.Error()
}

// isMalformed reports whether err is about a message, not about a connection.
func isMalformed(err error) bool {
	var malformed *wire.Error
	return errors.As(err, &malformed)
}
