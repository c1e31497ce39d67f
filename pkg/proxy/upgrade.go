package proxy

import (
	"bytes"
	"context"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// maxProtocols is how many protocols a request may offer. One with more is answered as if
// it offered none (RFC 9110 §7.8: "A server MAY ignore a received Upgrade header field").
const maxProtocols = 8

// The faults of a host that switches protocols.
var (
	// RFC 9110 §7.8: "A server MUST NOT switch to a protocol that was not indicated by the client in the
	// corresponding request's Upgrade header field."
	errUnasked = &wire.Error{Status: 502, Text: "the instance switches protocols unasked"}
	// RFC 6455 §4.1: then "the client MUST _Fail the WebSocket Connection_".
	errAccept = &wire.Error{Status: 502, Text: "the instance's Sec-WebSocket-Accept does not answer the request's Sec-WebSocket-Key"}
	errOther  = &wire.Error{Status: 502, Text: "the instance switches to a protocol that the request does not offer"}
	// RFC 9112 §9.3 frames the request up to its end, whatever comes behind it.
	errEarly = &wire.Error{Status: 502, Text: "the instance switches protocols before it has the whole request"}
)

// protocols returns those that the client offers to switch to, nil for none. HTTP/2 has
// CONNECT with one (RFC 8441 §4), HTTP/1.1 a field; RFC 9110 §7.8: "A server that receives
// an Upgrade header field in an HTTP/1.0 request MUST ignore that Upgrade field." HTTP/2 is not among them: a
// request that offers h2c is served as what it is (RFC 9113 §3.1 has taken that upgrade
// away), and no instance behind is brought to speak it past the routes.
func (x *exchange) protocols() []byte {
	h := &x.request
	if x.extended {
		return h.Protocol
	}
	if x.connect || h.Proto != wire.HTTP11 || h.Get(wire.Upgrade) == nil {
		return nil
	}
	var offer []byte
	meant, n := false, 0
	for i := range h.Fields {
		switch f := &h.Fields[i]; f.ID {
		case wire.Connection:
			meant = meant || wire.HasElement(f.Value, "upgrade")
		case wire.Upgrade:
			for rest := f.Value; len(rest) > 0; {
				var p []byte
				if p, rest = wire.NextElement(rest); len(p) == 0 || isHTTP2(p) {
					continue
				}
				if n > 0 {
					offer = append(offer, ", "...)
				}
				offer = append(offer, p...)
				n++
			}
		}
	}
	if !meant || n > maxProtocols {
		return nil
	}
	return offer
}

// isHTTP2 reports whether a protocol is HTTP/2, in the spellings that some take for it.
func isHTTP2(protocol []byte) bool {
	name, version, _ := bytes.Cut(protocol, []byte("/"))
	return wire.EqualFold(name, "h2c") || wire.EqualFold(name, "h2") || wire.EqualFold(name, "http") && bytes.HasPrefix(version, []byte("2"))
}

// choose decides how the host is asked to switch: one that speaks HTTP/1.1, and a sidecar,
// by Upgrade, one that speaks HTTP/2 by CONNECT with a protocol, if one of those that are
// offered can be asked for so. Other requests go to it without (RFC 9110 §7.8: "A server MAY
// ignore a received Upgrade header field").
//
// Between sidecars a tunnel has a connection to itself, though both speak HTTP/2: it may last
// for hours, and must take neither streams nor windows from requests; the kernel can carry it.
// A host that chooses by ALPN is offered HTTP/1.1 for one, unless it has refused that: few that speak
// HTTP/2 know RFC 8441.
//
// It reports whether the request can go on, and else why not in detail: of WebSocket's
// handshake the key is looked at where the host will not see it.
func (x *exchange) choose() bool {
	x.offered, x.protocol = true, nil
	if !x.host.Shared() || x.host.Endpoint().Sidecar || x.host.Chooses() && !x.host.RefusesHTTP1() {
		return true
	}
	x.protocol = x.single()
	x.offered = x.protocol != nil
	return x.hasKey()
}

// askByConnect asks a host by CONNECT that has refused HTTP/1.1. It reports whether the request can go
// on so, and leaves it as it is if it cannot.
func (x *exchange) askByConnect() bool {
	if !x.offered || x.protocol != nil || !x.host.RefusesHTTP1() {
		return false
	}
	if x.protocol = x.single(); x.protocol == nil || !x.hasKey() {
		x.protocol = nil
		return false
	}
	x.request.Del(wire.Upgrade)
	x.request.Del(wire.Connection)
	x.askToSwitch()
	return true
}

// askByUpgrade connects to a host as one of HTTP/1.1 that does not take CONNECT with a protocol. If it
// fails, the request is as it was.
func (x *exchange) askByUpgrade(ctx context.Context) (upstream.Stream, error) {
	up, err := x.host.DialAlone(ctx)
	if err == nil {
		x.protocol = nil
		x.askToSwitch()
	}
	return up, err
}

// hasKey reports whether a WebSocket's handshake that goes on as CONNECT has the key that its client
// is answered by, and says in detail if not.
func (x *exchange) hasKey() bool {
	if x.extended || !isWebSocket(x.protocol) {
		return true
	}
	if x.retries == 0 && count(&x.request, wire.SecWebSocketKey) != 1 || !isWebSocketKey(x.key) {
		x.detail = "Sec-WebSocket-Key is not one value of 16 bytes in base64"
		return false
	}
	return true
}

// single returns the protocol that CONNECT can ask for, nil if there is none: WebSocket if
// it is offered, else the first that has no version, for :protocol is a token. What is not a
// GET without a body has no other form.
func (x *exchange) single() (first []byte) {
	if x.extended {
		return x.request.Protocol
	}
	if string(x.request.Method) != "GET" || !x.whole || len(x.body) > 0 {
		return nil
	}
	for rest := x.offer; len(rest) > 0; {
		var p []byte
		p, rest = wire.NextElement(rest)
		switch {
		case isWebSocket(p):
			return p
		case first == nil && wire.IsToken(p):
			first = p
		}
	}
	return first
}

// mayStay lets the request go on as what it is where the host does not switch, if the client
// can do with an answer to that. It reports whether it can: a client of WebSocket cannot, nor
// one that has sent CONNECT.
func (x *exchange) mayStay() bool {
	if x.extended || isWebSocket(x.protocol) {
		return false
	}
	x.offered, x.protocol = false, nil
	return true
}

// askToSwitch gives the request the fields of an upgrade for the next hop.
func (x *exchange) askToSwitch() {
	h := &x.request
	if x.protocol != nil {
		h.Streamed, h.ContentLength = false, wire.NoLength
		if isWebSocket(x.protocol) {
			h.Del(wire.SecWebSocketKey) // RFC 8441 §5
		}
		return
	}
	options := "Upgrade"
	if h.Get(wire.TE) != nil {
		options = "Upgrade, TE" // RFC 9110 §10.1.4
	}
	h.Add(wire.Upgrade, "Upgrade", x.offer)
	h.Add(wire.Connection, "Connection", append(x.scratch[:0], options...))
	if x.key != nil && (x.extended || h.Get(wire.SecWebSocketKey) == nil) {
		h.Set(wire.SecWebSocketKey, "Sec-WebSocket-Key", x.key)
	}
}

// writeRequestHead writes the head as the host is to have it; what came stays for others.
func (x *exchange) writeRequestHead() error {
	h := &x.request
	method, protocol, authority, path := h.Method, h.Protocol, h.Authority, h.Path
	switch {
	case x.offered && x.protocol != nil:
		h.Method, h.Protocol = append(x.scratch[:0], "CONNECT"...), x.protocol
		h.ContentLength = wire.NoLength
	case x.extended:
		h.Method, h.Protocol = append(x.scratch[:0], "GET"...), nil // RFC 6455 §4.1
	}
	if x.entry.Authority != nil && !x.connect {
		h.Authority = x.entry.Authority
	}
	if x.path != nil {
		h.Path = x.path
	}
	err := x.up.WriteHead(h)
	h.Method, h.Protocol, h.Authority, h.Path = method, protocol, authority, path
	return err
}

// alone reports whether the request needs a connection to itself where others share theirs.
func (x *exchange) alone() bool { return x.offered && x.protocol == nil && x.host.Shared() }

// switches says what is wrong with a 101 (Switching Protocols); nil if nothing is.
func (x *exchange) switches() error {
	if !x.offered {
		return errUnasked
	}
	meant, n := false, 0
	for i := range x.response.Fields {
		switch f := &x.response.Fields[i]; f.ID {
		case wire.Connection:
			meant = meant || wire.HasElement(f.Value, "upgrade")
		case wire.Upgrade:
			for rest := f.Value; len(rest) > 0; {
				var p []byte
				if p, rest = wire.NextElement(rest); len(p) == 0 {
					continue
				}
				if n++; !wire.Names(x.offer, p) {
					return errOther
				}
			}
		}
	}
	if !meant || n == 0 {
		return errOther
	}
	if x.extended && x.key != nil && (count(&x.response, wire.SecWebSocketAccept) != 1 ||
		!bytes.Equal(x.response.Get(wire.SecWebSocketAccept), webSocketAccept(x.key))) {
		return errAccept
	}
	return nil
}

// switchOver passes on that the host has switched, by 101 or as an answer to CONNECT: behind
// that the connection is a tunnel. Each side learns it in the form of its version of HTTP.
func (x *exchange) switchOver() stage {
	if !x.upload.settle(x) {
		return x.ended(x.broken(errEarly, false))
	}
	h := &x.response
	protocols := x.protocol
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID == wire.Upgrade {
			if protocols != nil {
				protocols = append(protocols, ", "...)
			}
			protocols = append(protocols, f.Value...)
		}
	}
	wire.RemoveHopByHop(h)
	h.Del(wire.FairleadPeerFailure)
	h.Del(wire.FairleadReason)
	h.Streamed, h.ContentLength = false, wire.NoLength
	x.entry.Response.Apply(h)
	switch {
	case x.extended && x.protocol == nil: // RFC 8441 §5.1: 101 ⇒ 200
		h.Status, h.Reason = 200, nil
		if x.key != nil {
			h.Del(wire.SecWebSocketAccept)
		}
	case x.extended:
	default:
		if x.protocol != nil { // and back
			h.Status, h.Reason = 101, nil
			if isWebSocket(x.protocol) {
				h.Set(wire.SecWebSocketAccept, "Sec-WebSocket-Accept", webSocketAccept(x.key))
			}
		}
		h.Add(wire.Upgrade, "Upgrade", protocols)
		h.Add(wire.Connection, "Connection", append(x.scratch[:0], "Upgrade"...))
	}
	return x.answerTunnel()
}

// answerTunnel writes the head of the response that a tunnel begins with.
func (x *exchange) answerTunnel() stage {
	x.life.enter(tunnelling, x.headAt) // from here on, a client that breaks it breaks it for the host
	if err := x.sink.WriteHead(&x.response); err != nil {
		return x.ended(failure{why: untaken(err, reason.UpstreamProtocol)})
	}
	x.answered, x.status, x.keepAlive, x.tunnelled = true, x.response.Status, false, true
	x.linger = false
	if x.sink.Flush() != nil {
		x.cutOff(reason.ClientGone)
		return x.ended(failure{})
	}
	return atTunnel
}
