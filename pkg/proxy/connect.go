package proxy

import (
	"bytes"
	"errors"
	"net"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// CONNECT (RFC 9110 §9.3.6) goes the way of other requests as far as a connection to the
// host that was picked. What the host speaks there is between it and the client. Beside a
// sidecar the application is reached by asking that sidecar for the same; the one beside
// the application, or whoever calls one without a sidecar, answers 200 itself. So does who
// calls a TCP port: the sidecar there relays what it is sent, and speaks no HTTP.

// throughSidecar reports whether the host is asked to connect, and not connected to.
func (x *exchange) throughSidecar() bool {
	return !x.entry.Inbound && x.entry.TCP == nil && x.host.Endpoint().Sidecar
}

// connected answers that the tunnel is there. Of what a sidecar has said, nothing is of
// interest but that it is.
func (x *exchange) connected() stage {
	x.headAt = x.server.config.Clock()
	x.response.Reset()
	x.response.Status = 200
	return x.answerTunnel()
}

// connectOutside goes on with a CONNECT to what is no service of the mesh. RFC 9110 §9.3.6: a server
// "MUST reject a CONNECT request that targets an empty or invalid port number, typically by responding
// with a 400 (Bad Request) status code."
func (x *exchange) connectOutside() stage {
	if !isPort(x.request.Authority) {
		x.detail = "the port to CONNECT to is no number from 1 to 65535"
		return x.reply(reason.BadRequest)
	}
	e := x.server.config.External
	if e == nil {
		return x.reply(reason.ExternalRefused)
	}
	x.entry = e
	x.countIn(e.Requests)
	x.sentAt = x.server.config.Clock()
	x.traceAttempt(nil)
	return atOutside
}

// isPort reports whether the port of an authority can be one: if it is a number, of those that there
// are. Names are for whoever looks them up.
func isPort(authority []byte) bool {
	port := authority[bytes.LastIndexByte(authority, ':')+1:]
	for _, c := range port {
		if c < '0' || c > '9' {
			return true
		}
	}
	n, err := strconv.ParseUint(string(port), 10, 16)
	return err == nil && n > 0
}

// dialOutside connects to the outside.
func (x *exchange) dialOutside() stage {
	ctx, done := x.life.cancellable()
	x.life.enter(silent, x.sentAt)
	up, address, err := x.server.config.Outside.Dial(ctx, string(x.request.Authority))
	done()
	if err != nil {
		why := x.unreached(err)
		x.endAttempt(0, why, x.server.config.Clock())
		return x.reply(why)
	}
	x.up, x.outside = up, address
	if x.call != nil {
		x.call.SetPeer(address)
	}
	x.life.using(x.up)
	return x.connected()
}

// unreached says what the error of connecting to the outside means.
func (x *exchange) unreached(err error) reason.Reason {
	var dns *net.DNSError
	switch {
	case x.life.gone.Load():
		return reason.ClientGone
	case errors.Is(err, upstream.ErrLoop):
		x.detail = "the destination is this machine itself, which is not outside"
		return reason.Loop
	case errors.As(err, &dns) && !dns.IsTimeout:
		x.detail = "the name of the destination has no address that is known"
		return reason.ConnectFailed
	case errors.Is(err, upstream.ErrNoSocket):
		return reason.NoSocket
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		x.detail = "the destination did not accept the connection in time"
		return reason.ConnectTimeout
	}
	x.detail = "the destination could not be connected to"
	return reason.ConnectFailed
}
