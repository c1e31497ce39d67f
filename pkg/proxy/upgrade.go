package proxy

import (
	"bytes"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// maxProtocols is how many protocols a request may offer. One with more is answered as if
// it offered none (RFC 9110 §7.8: "A server MAY ignore a received Upgrade header field").
const maxProtocols = 8

// The faults of a host that switches protocols (RFC 9110 §7.8).
var (
	// "A server MUST NOT switch to a protocol that was not indicated by the client in the
	// corresponding request's Upgrade header field."
	errUnasked = &wire.Error{Status: 502, Text: "the instance switches protocols unasked"}
	errOther   = &wire.Error{Status: 502, Text: "the instance switches to a protocol that the request does not offer"}
	// RFC 9112 §9.3 frames the request up to its end, whatever comes behind it.
	errEarly = &wire.Error{Status: 502, Text: "the instance switches protocols before it has the whole request"}
)

// protocols returns those that the client offers to switch to, nil for none. Only HTTP/1.1
// has them: RFC 9110 §7.8 wants those of an HTTP/1.0 request ignored. HTTP/2 is not among
// them: a request that offers h2c is served as what it is (RFC 9113 §3.1 has taken that
// upgrade away), and no instance behind is brought to speak it past the routes.
func (x *exchange) protocols() []byte {
	h := &x.request
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

// askToSwitch adds the fields of an upgrade for the next hop.
func (x *exchange) askToSwitch() {
	h := &x.request
	options := "Upgrade"
	if h.Get(wire.TE) != nil {
		options = "Upgrade, TE" // RFC 9110 §10.1.4
	}
	h.Add(wire.Upgrade, "Upgrade", x.offer)
	h.Add(wire.Connection, "Connection", append(x.scratch[:0], options...))
}

// alone reports whether the request needs a connection to itself where others share theirs.
func (x *exchange) alone() bool { return x.offered && x.host.Shared() }

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
	return nil
}

// switchOver passes a 101 on, behind which the connection is a tunnel.
func (x *exchange) switchOver() stage {
	if !x.upload.settle(x) {
		return x.ended(x.broken(errEarly, false))
	}
	h := &x.response
	var protocols []byte
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
	h.Add(wire.Upgrade, "Upgrade", protocols)
	h.Add(wire.Connection, "Connection", append(x.scratch[:0], "Upgrade"...))
	return x.answerTunnel()
}

// answerTunnel writes the head of the response that a tunnel begins with.
func (x *exchange) answerTunnel() stage {
	x.life.enter(working, x.headAt)
	if x.sink.WriteHead(&x.response) != nil {
		return x.ended(failure{why: reason.UpstreamProtocol})
	}
	x.answered, x.status, x.keepAlive, x.tunnelled = true, x.response.Status, false, true
	x.linger = false
	if x.sink.Flush() != nil {
		x.cutOff(reason.ClientGone)
		return x.ended(failure{})
	}
	return atTunnel
}
