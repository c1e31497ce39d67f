package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// answer writes the head of the response that is passed on. What goes wrong from
// then on cannot be answered.
func (x *exchange) answer() stage {
	h := &x.response
	closeUp := h.Close
	wire.RemoveHopByHop(h)
	h.Del(wire.FairleadPeerFailure) // a sidecar's word, not an application's, and not for clients
	if x.entry.Inbound || !x.host.Endpoint().Sidecar {
		h.Del(wire.FairleadReason) // nor is this an application's
	} else if code := h.Get(wire.FairleadReason); code != nil {
		x.told = reason.Parse(code)
	}
	if x.rpc.kind != rpc.None {
		x.callHead()
	}
	x.spell(h)
	x.entry.Response.Apply(h)
	x.date(h)
	switch {
	case !x.upload.running && x.sendErr == nil:
	case !x.upload.isDone():
		x.keepAlive = x.keepAlive && !x.request.ExpectContinue
	case !x.upload.ended:
		x.keepAlive = false // the instance did not want the rest
	}
	if x.client.isLast() {
		x.keepAlive = false // RFC 9112 §9.6: a next request would be lost
	}
	h.Close = !x.keepAlive
	h.Ends = h.Ends && !x.rpc.web // whose trailers come behind it
	x.life.enter(working, x.headAt)
	if err := x.sink.WriteHead(h); err != nil {
		x.upload.stop(x)
		return x.ended(failure{why: untaken(err, reason.UpstreamProtocol)})
	}
	x.answered, x.status = true, h.Status
	if x.upload.running {
		x.life.final.Store(true)
	}
	x.keepAlive = x.keepAlive && !h.Close
	h.Close = closeUp
	if x.attempt.Probe() && h.Status < 400 { // others prove nothing, or the opposite
		x.life.probe.Store(&probe{attempt: x.attempt, answeredAt: x.headAt})
	}
	return atBody
}

// date says when a response came whose instance did not: "A recipient with a clock that
// receives a response message without a Date header field MUST record the time it was received
// and append a corresponding Date header field to the message's header section if it is cached
// or forwarded downstream" (RFC 9110 §6.6.1). Not of gRPC, whose clients would see it as metadata.
func (x *exchange) date(h *wire.Head) {
	if x.rpc.kind == rpc.None && h.Get(wire.Date) == nil {
		h.Add(wire.Date, "date", x.server.date(x.headAt))
	}
}

// dated is a second, as a Date field says it.
type dated struct {
	second int64
	text   []byte // is never written to
}

// date returns the time now, as of the server's clock, as a Date field says it. It formats
// once a second.
func (s *Server) date(now int64) []byte {
	at := s.wall.Add(time.Duration(now))
	if d := s.dated.Load(); d != nil && d.second == at.Unix() {
		return d.text
	}
	d := &dated{second: at.Unix(), text: at.UTC().AppendFormat(nil, http.TimeFormat)}
	s.dated.Store(d)
	return d.text
}

// passBody copies what has come of the response's body. It flushes before it waits
// for more.
func (x *exchange) passBody() stage {
	waits := !x.ready(atBody)
	if waits {
		if x.sink.Flush() != nil {
			return x.bodyEnded(reason.ClientGone)
		}
		// An instance may be silent for as long as the request has: it is no stall.
		x.life.enter(silent, x.server.config.Clock())
	}
	p, err := x.up.Next()
	if waits {
		x.life.enter(working, x.server.config.Clock())
	}
	switch {
	case errors.Is(err, io.EOF):
		if x.rpc.kind != rpc.None {
			x.callTrailers(x.up.Trailers())
		}
		if err := x.sink.EndBody(x.up.Trailers()); err != nil {
			return x.bodyEnded(untaken(err, reason.ResponseBroken))
		}
		return x.bodyEnded(reason.None)
	case err != nil:
		_ = x.sink.Flush() // what did come; that it is not whole, the client sees
		x.upload.stop(x)
		return x.bodyEnded(x.broken(err, false).why)
	}
	x.bytesOut += uint64(len(p))
	if x.sink.WriteBody(p) != nil {
		return x.bodyEnded(reason.ClientGone)
	}
	x.life.touch(x.server.lookedAt.Load())
	return atBody
}

// untaken is why the client's side took no more of an answer: the instance sent what may not
// be passed on, or the client is gone, which is not the instance's fault.
func untaken(err error, unsendable reason.Reason) reason.Reason {
	if isMalformed(err) {
		return unsendable
	}
	return reason.ClientGone
}

// bodyEnded ends the attempt with the response's body, be it whole or cut off.
func (x *exchange) bodyEnded(why reason.Reason) stage {
	switch {
	case why != reason.None:
		x.cutOff(why)
	case x.upload.running && !x.upload.isDone():
		_ = x.sink.Flush() // the client need not wait until that has ended; what fails, shows again
	}
	x.unread = !x.upload.settle(x) || x.sendErr != nil && !x.whole
	return x.ended(failure{})
}

// cutOff ends a response that had begun: the client must not take it for whole.
func (x *exchange) cutOff(why reason.Reason) {
	if why == reason.UpstreamReset || why == reason.UpstreamProtocol {
		why = reason.ResponseBroken
	}
	x.why = why
	if !x.endCall() {
		x.keepAlive = false
		x.client.abort()
	}
}
