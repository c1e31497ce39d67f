package proxy

import (
	"bytes"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// The fields by which sidecars speak to each other and to clients.
const (
	// headerReason carries the reason code of a response that the proxy made.
	headerReason = "fairlead-reason"
	// headerPeer marks a request that a sidecar sends.
	headerPeer = "fairlead-peer"
	// headerNotDelivered tells a sidecar, and nobody else, that the application
	// never saw the request: it may be sent elsewhere.
	headerNotDelivered = "fairlead-not-delivered"
)

// reply answers by itself: with the reason's status, and its code and sentence in
// a form that suits the client. Once a response has begun it can only be cut off.
func (x *exchange) reply(why reason.Reason) { x.replyWith(why, why.Status(), "") }

// replyWith is reply with another status and, unless it is empty, another sentence.
func (x *exchange) replyWith(why reason.Reason, status int, sentence string) {
	x.why = why
	if sentence != "" {
		x.detail = sentence
	}
	if x.answered || status == 0 {
		x.keepAlive = false
		return
	}
	x.discardBody()
	h := &x.response
	h.Reset()
	h.Status = status
	body := x.replyBody(h)
	h.Add(wire.Other, headerReason, append(x.scratch[:0], why.Code()...))
	if why == reason.NotDelivered && x.fromPeer {
		h.Add(wire.FairleadNotDelivered, headerNotDelivered, append(x.scratch[:0], '1'))
	}
	x.send(h, body)
}

// direct answers with what the route says.
func (x *exchange) direct(e *table.Entry) {
	x.why = reason.DirectResponse
	x.discardBody()
	h := &x.response
	h.Reset()
	h.Status = e.Direct.Status
	if e.Direct.Body != "" {
		h.Add(wire.ContentType, "content-type", append(x.scratch[:0], "text/plain; charset=utf-8"...))
	}
	x.send(h, []byte(e.Direct.Body))
}

// replyBody makes the body in JSON or text, whichever the client prefers.
func (x *exchange) replyBody(h *wire.Head) []byte {
	if !bytes.Contains(x.request.Get(wire.Accept), []byte("json")) {
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

// send writes a whole response of the proxy's own.
func (x *exchange) send(h *wire.Head, body []byte) {
	x.answered = true
	x.status = h.Status
	h.ContentLength = int64(len(body))
	h.Close = !x.keepAlive
	client := x.conn.h1
	if client.WriteHead(h) != nil {
		x.keepAlive = false
		return
	}
	if string(x.request.Method) != "HEAD" && len(body) > 0 {
		x.bytesOut += uint64(len(body))
		if client.WriteBody(body) != nil {
			x.keepAlive = false
			return
		}
	}
	if client.EndBody(nil) != nil || client.Flush() != nil {
		x.keepAlive = false
	}
}

// discardLimit is how much of an unwanted request body is read so that the
// connection can be used again; a longer one ends it.
const discardLimit = 64 << 10

// discardBody gets rid of the request's body, before the proxy answers it itself.
func (x *exchange) discardBody() {
	if x.request.ExpectContinue {
		// Nobody told the client to go on: it may send the body or not, so the next
		// request cannot be found (RFC 9110 §10.1.1).
		x.keepAlive, x.linger = false, true
		return
	}
	if !x.keepAlive || x.conn.h1.Drain(discardLimit) != nil {
		x.keepAlive, x.linger = false, true
	}
}
