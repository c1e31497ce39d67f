package proxy

import (
	"bytes"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// The fields by which sidecars speak to each other and to clients.
const (
	// headerReason carries the reason code of a response that the proxy made.
	headerReason = "fairlead-reason"
	// headerHops counts how often a request was sent to an address that may be another
	// sidecar's port for outgoing requests.
	headerHops = "fairlead-hops"
	// headerCase says how the names of the fields are spelt, which HTTP/2 has in lower case.
	headerCase = "fairlead-case"
	// headerPeer marks a request that a sidecar sends.
	headerPeer = "fairlead-peer"
	// headerPeerFailure tells a sidecar, and nobody else, that the application gave no
	// answer, and by the reason's code why: the request may be sent elsewhere if
	// not_delivered, and if upstream_reset when it is safe to send twice.
	headerPeerFailure = "fairlead-peer-failure"
)

// reply makes the proxy's own answer: with the reason's status, and its code and
// sentence in a form that suits the client. Once a response has begun it can only be
// cut off.
func (x *exchange) reply(why reason.Reason) stage { return x.replyWith(why, why.Status(), "") }

// replyWith is reply with another status and, unless it is empty, another sentence.
func (x *exchange) replyWith(why reason.Reason, status int, sentence string) stage {
	x.why = why
	if sentence != "" {
		x.detail = sentence
	}
	if x.answered || status == 0 {
		x.keepAlive = false
		return atEnd
	}
	h := &x.response
	h.Reset()
	if x.rpc.kind != rpc.None {
		x.failCall(status)
		x.callReply(h, x.explained())
	} else {
		h.Status = status
		x.own = x.replyBody(h)
	}
	h.Add(wire.FairleadReason, headerReason, append(x.scratch[:0], why.Code()...))
	if x.fromPeer && (why == reason.NotDelivered || why == reason.UpstreamReset) {
		h.Add(wire.FairleadPeerFailure, headerPeerFailure, append(x.scratch[:0], why.Code()...))
	}
	return atReply
}

// direct makes the answer that the route gives.
func (x *exchange) direct(e *table.Entry) stage {
	x.why = reason.DirectResponse
	h := &x.response
	h.Reset()
	if x.rpc.kind != rpc.None {
		x.rpc.status = rpc.FromHTTP(e.Direct.Status)
		x.callReply(h, e.Direct.Body)
		x.redirect(e)
		return atReply
	}
	h.Status = e.Direct.Status
	x.redirect(e)
	if h.Status == 204 || h.Status == 205 || h.Status == 304 {
		return atReply // RFC 9110 §15.3.5, §15.3.6, §15.4.5: they have no content
	}
	if e.Direct.Body != "" {
		h.Add(wire.ContentType, "content-type", append(x.scratch[:0], "text/plain; charset=utf-8"...))
	}
	x.own = []byte(e.Direct.Body)
	return atReply
}

// replyBody makes the body in JSON or text, whichever the client prefers.
func (x *exchange) replyBody(h *wire.Head) []byte {
	if !prefersJSON(&x.request) {
		h.Add(wire.ContentType, "content-type", append(x.scratch[:0], "text/plain; charset=utf-8"...))
		body := append([]byte("fairlead: "), x.sentence()...)
		return append(append(append(body, " ("...), x.why.Code()...), ")\n"...)
	}
	h.Add(wire.ContentType, "content-type", append(x.scratch[:0], "application/json"...))
	body := strconv.AppendInt([]byte(`{"status":`), int64(h.Status), 10)
	body = append(append(append(body, `,"reason":"`...), x.why.Code()...), `","message":`...)
	body = strconv.AppendQuote(body, x.sentence()) // sentences are ASCII, so Go's quoting is JSON's
	return append(body, "}\n"...)
}

// prefersJSON reports whether the client asks for JSON, and for text no more than for
// that (RFC 9110 §12.5.1). One that takes anything gets text.
func prefersJSON(h *wire.Head) bool {
	var json, text float64
	for i := range h.Fields {
		if h.Fields[i].ID != wire.Accept {
			continue
		}
		for element := range bytes.SplitSeq(h.Fields[i].Value, []byte(",")) {
			kind, parameters, _ := bytes.Cut(element, []byte(";"))
			switch kind = bytes.TrimSpace(kind); {
			case wire.EqualFold(kind, "application/json"), wire.EqualFold(kind, "application/*"):
				json = max(json, weight(parameters))
			case wire.EqualFold(kind, "text/plain"), wire.EqualFold(kind, "text/*"):
				text = max(text, weight(parameters))
			}
		}
	}
	return json > 0 && json >= text
}

// weight returns the q of a media range's parameters, 1 if there is none that can be read.
func weight(parameters []byte) float64 {
	for p := range bytes.SplitSeq(parameters, []byte(";")) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(p), []byte("="))
		if !wire.EqualFold(name, "q") {
			continue
		}
		if q, err := strconv.ParseFloat(string(value), 64); err == nil && q >= 0 && q <= 1 {
			return q
		}
	}
	return 1
}

// writeReply writes the proxy's own answer, behind which the connection may go on.
func (x *exchange) writeReply() stage {
	x.life.enter(working, x.server.config.Clock())
	if x.request.ExpectContinue {
		// Nobody told the client to go on: it may send the body or not, so the next
		// request cannot be found (RFC 9110 §10.1.1).
		x.keepAlive = false
	}
	if x.client.isLast() || !x.restFits() {
		x.keepAlive = false // and the head says so: a next request would be lost
	}
	h := &x.response
	x.answered, x.status = true, h.Status
	if x.entry != nil {
		x.entry.Response.Apply(h)
	}
	// RFC 9110 §6.6.1: who makes an answer dates it.
	if h.Get(wire.Date) == nil {
		h.Add(wire.Date, "date", x.server.date(x.now))
	}
	h.ContentLength = int64(len(x.own))
	if h.Status == 204 || h.Status == 304 {
		h.ContentLength = wire.NoLength // there is none, or it would be another answer's
	}
	h.Close = !x.keepAlive
	if string(x.request.Method) == "HEAD" {
		x.own = nil
	}
	if x.writeWhole(h, x.own) != nil {
		x.keepAlive = false
	}
	// Only now is the request's body read away: a client that is slow to send it has its
	// answer.
	if !x.keepAlive || !x.client.discard() {
		x.keepAlive, x.linger = false, true
	}
	return atEnd
}

// restFits reports whether the rest of the request's body can be read away, so that
// the next request is found behind it. Of a length that is not known it must be here.
func (x *exchange) restFits() bool {
	if x.whole {
		return true
	}
	if !x.request.Streamed {
		return x.request.ContentLength <= discardLimit
	}
	_, here := x.source.Whole()
	return here
}

func (x *exchange) writeWhole(h *wire.Head, body []byte) error {
	h.Ends = len(body) == 0 && !x.rpc.web
	if err := x.sink.WriteHead(h); err != nil {
		return err
	}
	x.bytesOut += uint64(len(body))
	if err := x.sink.WriteBody(body); err != nil {
		return err
	}
	if err := x.sink.EndBody(nil); err != nil {
		return err
	}
	return x.sink.Flush()
}
