package proxy

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/grpcweb"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// exchange is one request and its response, whatever the client speaks. It is used
// again for the next one. Exactly one goroutine holds it at a time; only its life,
// and what upload says, is for others too.
type exchange struct {
	server *Server
	source source
	sink   sink
	client client
	life   *life

	request  wire.Head
	response wire.Head

	now      int64 // of the request's head, in nanoseconds of the server's clock, as all times here
	deadline int64 // of the response's end; 0: none
	entry    *table.Entry
	path     []byte            // that the host is asked for; nil: the request's
	counted  *metrics.Requests // what it is in flight in; nil: in nothing yet

	keepAlive bool // another exchange may follow on the connection
	linger    bool // the client may still be sending what nobody will read
	unread    bool // the request's body was not read to its end, though the response has ended
	fromPeer  bool // the caller is a sidecar
	hops      int  // how often it came by addresses that lead to sidecars again
	answered  bool // the response's head was written

	// offer are the protocols that the client would switch to; nil: it would not.
	offer     []byte
	extended  bool           // it says so by CONNECT with a protocol (RFC 8441)
	key       []byte         // of WebSocket's handshake: the client's, or of an extended CONNECT this proxy's
	offered   bool           // the host is asked to switch
	protocol  []byte         // by CONNECT with this protocol; nil: by Upgrade
	connect   bool           // the client asks for a tunnel
	tunnelled bool           // the rest is a tunnel
	outside   netip.AddrPort // where the tunnel leads to, outside of the mesh

	// The attempt under way.
	attempt upstream.Attempt
	up      upstream.Stream // nil: not connected
	body    []byte          // of the request: its beginning, kept for a second attempt
	whole   bool            // it is all of the body
	lost    bool            // more than that was read, and is not here any more
	interim bool            // an interim response was received
	// interimBytes is what all of those of the attempt take.
	interimBytes int
	refusal      bool  // the host has reset the stream for what the request is
	leftOut      bool  // the host has ended the connection in order, without the request
	sendErr      error // why the request was not sent whole
	headErr      error // why there is no response's head

	why      reason.Reason
	cause    reason.Reason // of the retry
	told     reason.Reason // why the sidecar of the instance made the answer that is passed on
	detail   string        // instead of why's sentence
	own      []byte        // body of an answer of the proxy's own
	status   int           // of the response that was written
	tried    lb.Tried
	retries  uint32
	host     *upstream.Host // that answered, or was tried last
	headAt   int64          // when the response's head had come
	sentAt   int64          // when the last attempt began
	bytesIn  uint64
	bytesOut uint64

	rpc  call
	side *grpcweb.Side // used again; nil: it was not needed yet

	trace tracing.Context
	span  *tracing.Span // nil: not sampled
	call  *tracing.Span // of the attempt under way

	upload  upload
	batch   *http2.Batch // of who holds the exchange and must not wait; nil: it may
	scratch [512]byte
}

// begin forgets the last exchange.
func (x *exchange) begin(now int64) {
	x.now, x.deadline, x.entry, x.path, x.counted = now, 0, nil, nil, nil
	x.unread = false
	x.keepAlive, x.linger, x.fromPeer, x.hops, x.answered = !x.request.Close, false, false, 0, false
	x.attempt, x.up, x.body, x.sendErr, x.headErr = upstream.Attempt{}, nil, nil, nil, nil
	x.whole, x.lost, x.interim, x.interimBytes = false, false, false, 0
	x.offer, x.extended, x.key, x.offered, x.protocol = nil, false, nil, false, nil
	x.connect, x.tunnelled, x.outside = false, false, netip.AddrPort{}
	x.why, x.told, x.detail, x.own, x.status = reason.None, reason.None, "", nil, 0
	x.tried, x.retries, x.host, x.headAt, x.sentAt = lb.Tried{}, 0, nil, 0, 0
	x.bytesIn, x.bytesOut = 0, 0
	x.trace, x.span, x.call = tracing.Context{}, nil, nil
	x.upload = upload{}
	x.life.begin(now)
	x.beginCall()
}

// mayTunnel reports whether the client may want the connection for something else than the
// request.
func (x *exchange) mayTunnel() bool {
	return string(x.request.Method) == "CONNECT" || x.request.Get(wire.Upgrade) != nil
}

// stage is how far an exchange is, which says what has to be waited for next.
type stage uint8

const (
	atRoute   stage = iota // the destination has to be learnt
	atDial                 // a host is chosen, and there is no connection to it
	atSend                 // the request is to be written
	atHead                 // the response's head is to come
	atBody                 // bytes of the response's body are to be passed on
	atOutside              // there is to be a connection to the outside
	atTunnel               // bytes are to be carried both ways
	atReply                // the proxy's own answer is to be written
	atEnd                  // answered, as far as it can be
)

// run goes through the stages from s on, and waits in place.
func (x *exchange) run(s stage) {
	for s != atEnd {
		s = x.step(s)
	}
}

// step goes through one stage, and returns the next. It may wait for what the stage
// says, and for nothing else.
func (x *exchange) step(s stage) stage {
	switch s {
	case atRoute:
		return x.routed(x.awaitRoute())
	case atDial:
		return x.dial()
	case atSend:
		return x.send()
	case atHead:
		return x.receive()
	case atBody:
		return x.passBody()
	case atOutside:
		return x.dialOutside()
	case atTunnel:
		return x.tunnel()
	case atReply:
		return x.writeReply()
	default:
		return atEnd
	}
}

// smallRequest is how large a request may be, with its body, that is written
// without asking whether the connection takes it.
const smallRequest = 16 << 10

// ready reports whether step would go through a stage without waiting.
func (x *exchange) ready(s stage) bool {
	switch s {
	case atSend:
		return x.whole && x.request.Size()+len(x.body) <= smallRequest
	case atHead:
		return x.up.Ready()
	case atBody:
		return x.up.Ready() && x.client.room() > 0
	case atReply:
		return x.client.room() >= len(x.own)
	case atEnd:
		return true
	default:
		return false
	}
}

// decide goes as far as it can without waiting, which for a destination that is
// known is to a host and an idle connection to it.
func (x *exchange) decide() stage {
	if x.server.config.Forwarded.RemoteAddress {
		x.forward()
	}
	x.beginTrace()
	h := &x.request
	x.extended = h.Protocol != nil
	x.connect = string(h.Method) == "CONNECT" && !x.extended
	if x.connect && h.Proto != wire.HTTP2 {
		// What comes behind is the tunnel's. Where none comes of it, that must not be taken
		// for a request.
		x.keepAlive, x.linger = false, true
	}
	if x.extended && isHTTP2(h.Protocol) {
		x.detail = "CONNECT with HTTP/2 as its protocol is not supported"
		return x.reply(reason.UnsupportedProtocol)
	}
	if x.rpc.kind != rpc.None {
		if s, ok := x.timeCall(); !ok {
			return s
		}
	}
	e, why, wait := x.server.config.Router.Route(h.Authority, h.Path, x.now)
	e, why = x.meets(e, why)
	if x.connect && !x.server.config.Connect && (e == nil || !e.Connect) {
		x.detail = "CONNECT is not supported on this port"
		return x.reply(reason.UnsupportedProtocol)
	}
	if wait {
		x.countIn(x.server.config.Unrouted)
		return atRoute
	}
	return x.routed(e, why)
}

// awaitRoute learns a destination.
func (x *exchange) awaitRoute() (*table.Entry, reason.Reason) {
	ctx, done := x.life.cancellable()
	defer done()
	x.life.enter(silent, x.now)
	e, why := x.server.config.Router.Await(ctx, x.request.Authority, x.request.Path)
	x.life.enter(working, x.server.config.Clock())
	return x.meets(e, why)
}

// meets goes on from a route whose path matches to one whose conditions the request meets.
func (x *exchange) meets(e *table.Entry, why reason.Reason) (*table.Entry, reason.Reason) {
	if e == nil {
		return nil, why
	}
	if e = e.For(&x.request); e == nil {
		return nil, reason.NoRoute
	}
	return e, why
}

// countIn lets the exchange be in flight in r, and nowhere else. One that is routed at
// once was never in flight without its destination, which saves it the counting.
func (x *exchange) countIn(r *metrics.Requests) {
	if x.counted == nil {
		r.Begin()
	} else {
		x.counted.HandOver(r)
	}
	x.counted = r
}

// routed goes on with what the router said.
func (x *exchange) routed(e *table.Entry, why reason.Reason) stage {
	if x.connect && (why == reason.NotAMeshName || why == reason.UnknownService) {
		return x.connectOutside()
	}
	switch {
	case x.isLate():
		return x.reply(reason.RequestTimeout)
	case why != reason.None:
		return x.reply(why)
	}
	toTCP := e.Relay != nil
	if x.connect && toTCP {
		e = e.Relay
	}
	x.entry = e
	x.countIn(e.Requests)
	if e.Direct != nil {
		if toTCP { // what the route answers is for those who do not know why
			return x.reply(reason.NoHTTPPort)
		}
		if x.connect || x.extended { // a 2xx would be a tunnel to nowhere
			x.detail = "the route answers itself, so there is nothing to connect to"
			return x.reply(reason.UnsupportedProtocol)
		}
		return x.direct(e)
	}
	if !e.Inbound && x.goesRound() {
		return x.reply(reason.Loop)
	}
	if e.Timeout > 0 {
		x.deadline = x.now + int64(e.Timeout)
	}
	x.prepare()
	if x.rpc.kind.IsWeb() {
		x.translateCall()
	}
	switch {
	case x.rpc.unsure: // its body is taken when it is known in what form
	case x.connect || x.extended:
		// RFC 9110 §9.3.6: it has no content, whatever its protocol says of its end. What
		// comes behind the head is the tunnel's.
		x.whole = true
		x.request.Streamed, x.request.ContentLength = false, wire.NoLength
	default:
		x.body, x.whole = x.source.Whole()
	}
	if x.rpc.kind != rpc.None {
		x.boundCall()
	}
	return x.begun()
}

// maxHops is how often a request may be sent to addresses that may lead to sidecars again.
// Applications that pass all fields on, as proxies do, may lie between: it is not one.
const maxHops = 16

// goesRound reports whether a request has come by so many sidecars' ports for outgoing
// requests that it will not end there: instances are registered at such ports.
func (x *exchange) goesRound() bool {
	for _, c := range x.request.Get(wire.FairleadHops) {
		if c < '0' || c > '9' || x.hops >= maxHops {
			break
		}
		x.hops = 10*x.hops + int(c-'0')
	}
	return x.hops >= maxHops
}

// rewrite does what the route says about the host and the path that are asked for. The head keeps those
// that came, for the log and spans: see writeRequestHead.
func (x *exchange) rewrite() {
	h := &x.request
	if x.entry.Authority != nil {
		h.Del(wire.Host) // writers make it of the authority
	}
	if x.entry.Path != nil && len(h.Path) > 0 && h.Path[0] == '/' { // not of OPTIONS *, which has no path
		x.path = h.OwnBoth(x.entry.Path, h.Path[x.entry.Matched:])
	}
}

// prepare turns the request that came into the one that goes on.
func (x *exchange) prepare() {
	h := &x.request
	x.offer = x.protocols()
	switch {
	case !wire.HasElement(x.offer, "websocket"):
	case x.extended:
		x.key = newWebSocketKey()
	default:
		x.key = h.Get(wire.SecWebSocketKey)
	}
	wire.RemoveHopByHop(h)
	if !x.connect {
		x.entry.Request.Apply(h)
		x.rewrite()
	}
	if h.Get(wire.FairleadPeer) != nil {
		x.fromPeer = x.entry.Inbound
		h.Del(wire.FairleadPeer) // said anew to each sidecar that it is sent to
	}
	if x.fromPeer {
		setCase(h)
	}
	h.Del(wire.FairleadCase)
}
