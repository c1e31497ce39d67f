package proxy

import (
	"bytes"
	"errors"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/grpcweb"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// call is what an exchange knows of the gRPC call in it, if it is one. What a status means
// to whom is in docs/grpc.md.
type call struct {
	kind     rpc.Kind
	status   rpc.Code // that the instance gave, or the proxy; NoCode: none has come
	reset    rpc.Code // of the last attempt's stream; NoCode: it was not reset
	deadline int64    // by grpc-timeout; 0: none
	answered bool     // by a response that is gRPC
	web      bool     // it came as gRPC-Web, and goes on as gRPC
	unsure   bool     // or as it came: that depends on what the instance speaks
	pushback bool     // the instance says when the call may be tried again (gRFC A6)
}

// beginCall decides whether the request is a call: once, for all that asks later.
func (x *exchange) beginCall() {
	x.rpc = call{status: rpc.NoCode, reset: rpc.NoCode}
	if string(x.request.Method) == "POST" {
		x.rpc.kind = rpc.KindOf(x.request.Method, x.request.Get(wire.ContentType))
	}
	if patient := x.rpc.kind == rpc.GRPC; patient != x.life.patient.Load() {
		x.life.patient.Store(patient)
	}
}

// timeCall reads by when the call has to be over. It returns false, and the stage that
// answers, if that cannot be read or has passed.
func (x *exchange) timeCall() (stage, bool) {
	n, last := 0, []byte(nil)
	for i := range x.request.Fields {
		if f := &x.request.Fields[i]; f.ID == wire.GRPCTimeout {
			n, last = n+1, f.Value
		}
	}
	if n == 0 {
		return atEnd, true
	}
	left, ok := rpc.ParseTimeout(last)
	switch {
	case n > 1 || !ok:
		return x.replyWith(reason.BadRequest, reason.BadRequest.Status(),
			"grpc-timeout is not one number of 1 to 8 digits and one of the units H, M, S, m, u and n"), false
	case left == 0:
		return x.replyWith(reason.RequestTimeout, reason.RequestTimeout.Status(),
			"the time that the caller gave the call (grpc-timeout) was over when it came"), false
	}
	x.rpc.deadline = x.now + int64(left)
	x.life.expires.Store(x.rpc.deadline)
	return atEnd, true
}

// translateCall lets a call of gRPC-Web's go on as one of gRPC's, where the instances speak
// that: others have to know gRPC-Web themselves.
func (x *exchange) translateCall() {
	if x.entry.Cluster.Chooses() {
		x.rpc.unsure = true
		return
	}
	if p := x.entry.Cluster.Protocol(); p == mesh.ProtocolHTTP2 || p == mesh.ProtocolGRPC {
		x.beginSide()
	}
}

// settleCall decides of a call of gRPC-Web's how it goes on, now that there is a connection to the
// instance, and takes its body, which was left until then. So it goes on to another instance, too.
func (x *exchange) settleCall() {
	x.rpc.unsure = false
	if x.host.Shared() {
		x.beginSide()
	}
	x.body, x.whole = x.source.Whole()
	if x.deadline = 0; x.entry.Timeout > 0 {
		x.deadline = x.now + int64(x.entry.Timeout)
	}
	x.boundCall()
	x.life.expires.Store(x.deadline)
}

func (x *exchange) beginSide() {
	if x.side == nil {
		x.side = new(grpcweb.Side)
	}
	x.side.Begin(&x.request, x.source, x.sink)
	x.source, x.sink = x.side, x.side
	x.rpc.web = true
}

// untranslateCall gives the exchange its client back.
func (x *exchange) untranslateCall() {
	x.source, x.sink = x.side.End()
	x.rpc.web = false
}

// boundCall sets the bounds of a call's time, once its body has been looked for. The
// route's timeout is that of an answer, not of a stream: it counts from when the whole
// request is here, or was sent, to the response's head.
func (x *exchange) boundCall() {
	if !x.whole {
		x.deadline = x.rpc.deadline
	} else if x.deadline == 0 || x.rpc.deadline != 0 && x.rpc.deadline < x.deadline {
		x.deadline = x.rpc.deadline
	}
}

// sentCall bounds the wait for the head of the response to a call that was sent whole.
func (x *exchange) sentCall() {
	if x.entry.Timeout > 0 {
		x.life.bound(x.server.config.Clock() + int64(x.entry.Timeout))
	}
}

// isLate reports whether the caller's own time is over.
func (x *exchange) isLate() bool {
	return x.rpc.deadline > 0 && x.server.config.Clock() >= x.rpc.deadline
}

// passTimeout tells the next hop what is left of the call's time: a little more rather
// than less, so that the time is over here first. It reports whether there is any.
func (x *exchange) passTimeout() bool {
	if x.rpc.deadline == 0 {
		return true
	}
	left := x.rpc.deadline - x.server.config.Clock()
	if left <= 0 {
		return false
	}
	x.request.Set(wire.GRPCTimeout, "grpc-timeout", rpc.AppendTimeout(x.scratch[:0], time.Duration(left)))
	return true
}

// callHead takes what the response's head says of a call: a response without a body has
// its status there ("Trailers-Only"). From then on only the caller's deadline counts.
func (x *exchange) callHead() {
	h := &x.response
	if rpc.KindOfType(h.Get(wire.ContentType)) == rpc.None {
		return // it may be a proxy's or a web server's, which is no stream
	}
	x.rpc.answered = true
	x.rpc.status = rpc.Parse(h.Get(wire.GRPCStatus))
	if x.deadline != x.rpc.deadline || x.upload.running { // which would bound it at its end
		x.deadline = x.rpc.deadline
		x.up.SetDeadline(x.deadline)
		x.life.release(x.deadline)
	}
}

// callTrailers takes what the trailers say.
func (x *exchange) callTrailers(trailers []wire.Field) {
	for i := range trailers {
		switch trailers[i].ID {
		case wire.GRPCStatus:
			x.rpc.status = rpc.Parse(trailers[i].Value)
		case wire.GRPCRetryPushback:
			x.rpc.pushback = true
		}
	}
}

// callReset takes what the reset of a stream says.
func (x *exchange) callReset(err error) {
	x.rpc.reset = rpc.NoCode
	var reset *http2.ResetError
	if !errors.As(err, &reset) {
		return
	}
	x.rpc.reset = rpc.FromReset(uint32(reset.Code))
	if x.rpc.reset == rpc.Cancelled && x.nearEnd() {
		x.rpc.reset = rpc.DeadlineExceeded // whose own clock was ahead
	}
}

// nearEnd reports whether little is left of the caller's time: an eighth. Who gives up by
// then does so because of that. The caller's time began before it was seen here, so that it
// is over there first.
func (x *exchange) nearEnd() bool {
	left := x.rpc.deadline - x.server.config.Clock()
	return x.rpc.deadline > 0 && left < (x.rpc.deadline-x.now)/8
}

// codeOf returns the status of a call that the proxy answers for a reason, and would
// answer with an HTTP status if it were none.
func codeOf(why reason.Reason, status int) rpc.Code {
	switch why {
	case reason.RequestTimeout, reason.BodyTimeout, reason.HeadTimeout:
		return rpc.DeadlineExceeded
	case reason.HeadTooLarge:
		return rpc.ResourceExhausted
	case reason.UnsupportedProtocol, reason.UpgradeUnsupported, reason.NoHTTPPort:
		return rpc.Unimplemented
	case reason.Loop:
		return rpc.Internal
	case reason.ClientGone:
		return rpc.Cancelled
	case reason.ResponseBroken, reason.Stopped:
		return rpc.Unavailable
	}
	return rpc.FromHTTP(status)
}

// failCall sets the status of a call that failed for x.why.
func (x *exchange) failCall(status int) {
	switch {
	case x.rpc.reset != rpc.NoCode && (x.why == reason.UpstreamReset || x.why == reason.ResponseBroken):
		x.rpc.status = x.rpc.reset
	case x.why == reason.ClientGone && x.nearEnd():
		x.rpc.status = rpc.DeadlineExceeded
	default:
		x.rpc.status = codeOf(x.why, status)
	}
}

// callReply makes the head of the proxy's own answer to a call: its status and nothing else
// ("Trailers-Only → HTTP-Status Content-Type Trailers").
func (x *exchange) callReply(h *wire.Head, message string) {
	h.Status = 200
	h.Add(wire.ContentType, "content-type", rpc.AppendType(x.scratch[:0], x.rpc.kind, x.request.Get(wire.ContentType)))
	x.addStatus(h, message)
}

// addStatus adds the fields of a status.
func (x *exchange) addStatus(h *wire.Head, message string) {
	h.Add(wire.GRPCStatus, "grpc-status", x.rpc.status.Append(x.scratch[:0]))
	h.Add(wire.GRPCMessage, "grpc-message", rpc.AppendMessage(x.scratch[:0], message))
}

// explained is the sentence and the code of the reason, as the body of an answer says them.
func (x *exchange) explained() string {
	return "fairlead: " + x.sentence() + " (" + x.why.Code() + ")"
}

// endCall ends a call whose response had begun with a status of the proxy's. It reports
// whether that could be done: the client cannot mistake it for the whole response, which
// would have ended with the instance's status.
func (x *exchange) endCall() bool {
	if x.rpc.kind == rpc.None {
		return false
	}
	x.failCall(0)
	h := &x.response
	kind := rpc.KindOfType(h.Get(wire.ContentType))
	if !x.rpc.answered || x.why == reason.ClientGone || x.why == reason.Stopped {
		return false
	}
	// Over HTTP/2 the head had no length, even if the instance's did.
	if x.request.Proto != wire.HTTP2 && (h.ContentLength != wire.NoLength || kind == rpc.GRPC) {
		return false
	}
	h.Reset() // all of it was written
	x.addStatus(h, x.explained())
	if kind.IsWeb() && !x.rpc.web {
		x.own = grpcweb.AppendEnd(nil, kind, h.Fields)
		return x.sink.WriteBody(x.own) == nil && x.sink.EndBody(nil) == nil && x.sink.Flush() == nil
	}
	return x.sink.EndBody(h.Fields) == nil && x.sink.Flush() == nil
}

// callEnded returns the call's status at its end, NoCode if it is not known.
func (x *exchange) callEnded() rpc.Code {
	switch {
	case x.rpc.status != rpc.NoCode:
		return x.rpc.status
	case x.why != reason.None && x.told == reason.None:
		x.failCall(x.why.Status())
	case x.rpc.answered && x.rpc.kind.IsWeb() && !x.rpc.web:
		return rpc.NoCode // it is in the body, which is not looked into
	case x.status > 0:
		// http-grpc-status-mapping.md, for what was answered without a grpc-status.
		x.rpc.status = rpc.FromHTTP(x.status)
	}
	return x.rpc.status
}

// leastPatience is what a caller has to grant at the least for its deadline to say
// something about an instance.
const leastPatience = 100 * time.Millisecond

// hurried reports whether an attempt that ran out of time had so little of it that this
// says nothing about the instance.
func (x *exchange) hurried(now int64) bool {
	had, allowed := now-x.sentAt, int64(x.entry.Timeout)
	if x.rpc.kind == rpc.None {
		return 2*had < allowed // something else used up the rest
	}
	if allowed == 0 {
		allowed = int64(mesh.DefaultRequestTimeout)
	}
	if x.rpc.deadline > 0 {
		allowed = min(allowed, x.rpc.deadline-x.now)
	}
	// A stream that ran until its time was over has had an answer.
	return 2*had < allowed || allowed < int64(leastPatience) || x.answered && x.bytesOut > 0
}

// callOutcome is what a call's status says about the instance.
func (x *exchange) callOutcome(now int64) breaker.Outcome {
	switch x.callEnded() {
	case rpc.OK, rpc.NoCode:
		return breaker.Success
	case rpc.DeadlineExceeded:
		if x.hurried(now) {
			return breaker.Ignored
		}
		return breaker.Failure
	case rpc.Unavailable:
		if x.rpc.pushback || x.response.Get(wire.GRPCRetryPushback) != nil {
			return breaker.Ignored // asks to come back later
		}
		return breaker.Failure
	case rpc.Unknown, rpc.Internal, rpc.DataLoss:
		return breaker.Failure
	}
	return breaker.Ignored // about the request, or about who sent it
}

// isServerError reports whether a status is an error of the server's, for its span
// (OpenTelemetry's semantic conventions for gRPC).
func isServerError(c rpc.Code) bool {
	switch c {
	case rpc.Unknown, rpc.DeadlineExceeded, rpc.Unimplemented, rpc.Internal, rpc.Unavailable, rpc.DataLoss:
		return true
	}
	return false
}

// method returns the full name of the method that is called: package.Service/Method.
func (x *exchange) method() string {
	path, _, _ := bytes.Cut(x.request.Path, []byte("?"))
	return string(bytes.TrimPrefix(path, []byte("/")))
}
