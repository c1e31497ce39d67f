package proxy

import (
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// What the instances are told of who sends a request, where the listener is the first that clients
// from outside come to (Envoy's use_remote_address).
const (
	headerForwardedFor   = "x-forwarded-for"
	headerForwardedProto = "x-forwarded-proto"
	headerExternal       = "x-envoy-external-address"
)

// forward says in the request whom it comes from, and takes out what only proxies may say. It is done
// before the request is routed, which may go by it.
func (x *exchange) forward() {
	o, h := &x.server.config.Forwarded, &x.request
	peer := x.client.peer().Unmap().WithZone("")
	external := peer
	if o.TrustedHops > 0 {
		h.Join(wire.XForwardedFor, ",")
		if said := trustedAddress(h.Get(wire.XForwardedFor), o.TrustedHops-1); said.IsValid() {
			external = said
		}
	}
	h.DelFunc(isInside)
	if !o.SkipAppend {
		h.Extend(wire.XForwardedFor, headerForwardedFor, ",", peer.AppendTo(x.scratch[:0]))
	}
	scheme := "http"
	if x.server.config.TLS != nil {
		scheme = "https"
	}
	if o.TrustedHops == 0 || h.Get(wire.XForwardedProto) == nil {
		h.Set(wire.XForwardedProto, headerForwardedProto, append(x.scratch[:0], scheme...))
	}
	h.Set(wire.XEnvoyExternalAddress, headerExternal, external.AppendTo(x.scratch[:0]))
	if h.Proto == wire.HTTP2 {
		return // whose clients say the scheme themselves
	}
	if said := h.Get(wire.XForwardedProto); wire.EqualFold(said, "https") || wire.EqualFold(said, "http") {
		h.Scheme = said
	}
}

// trustedAddress returns the address before the last skip ones of x-forwarded-for; none if what
// is there is not one.
func trustedAddress(list []byte, skip uint32) netip.Addr {
	end := len(list)
	for i := end - 1; i >= 0; i-- {
		if list[i] != ',' {
			continue
		}
		if skip == 0 {
			return parseAddress(list[i+1 : end])
		}
		skip, end = skip-1, i
	}
	if skip > 0 {
		return netip.Addr{}
	}
	return parseAddress(list[:end])
}

// maxAddress is longer than any IP address in text.
const maxAddress = 64

func parseAddress(text []byte) netip.Addr {
	text = wire.Trim(text)
	if len(text) > maxAddress {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}
	}
	return a
}

// isInside reports whether a field is one that Envoys tell each other, and believe: of those a client
// from outside says none.
func isInside(f *wire.Field) bool {
	const prefix, longest = "x-envoy-", 40
	name := f.Name
	if len(name) > longest || len(name) < len(prefix) || !wire.EqualFold(name[:len(prefix)], prefix) {
		return false
	}
	var buf [longest]byte
	lower := buf[:len(name)]
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[len(prefix):]) {
	case "internal", "decorator-operation", "downstream-service-cluster", "downstream-service-node",
		"original-path", "original-url", "retriable-status-codes", "retriable-header-names",
		"retry-on", "retry-grpc-on", "max-retries", "upstream-alt-stat-name", "upstream-rq-timeout-ms",
		"upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response", "upstream-stream-duration-ms",
		"expected-rq-timeout-ms", "force-trace", "ip-tags", "hedge-on-per-try-timeout":
		return true
	}
	return false
}

// addressOf returns the IP address at the other end of a connection.
func addressOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
