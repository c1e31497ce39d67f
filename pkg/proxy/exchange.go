package proxy

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// exchange is one request and its response. It lives in its connection and is
// used again for the next; only the connection's goroutine touches it, but for
// what upload says.
type exchange struct {
	conn     *conn
	request  wire.Head
	response wire.Head

	now      int64 // of the request's head
	deadline int64 // of the response's end; 0: none
	entry    *table.Entry

	keepAlive bool  // another exchange may follow on the connection
	linger    bool  // the client may still be sending what nobody will read
	fromPeer  bool  // the caller is a sidecar
	answered  bool  // the response's head was written
	headErr   error // why there is no response's head

	why      reason.Reason
	cause    reason.Reason // of the retry
	detail   string        // instead of why's sentence
	status   int           // of the response that was written
	tried    lb.Tried
	retries  uint32
	host     *upstream.Host // that answered, or was tried last
	headAt   int64          // when the response's head had come
	sentAt   int64          // when the last attempt began
	bytesIn  uint64
	bytesOut uint64

	trace  tracing.Context
	span   *tracing.Span // nil: not sampled
	client *tracing.Span // of the attempt under way

	upload  upload
	scratch [512]byte
}

// begin forgets the last exchange.
func (x *exchange) begin(now int64) {
	x.now, x.deadline, x.entry = now, 0, nil
	x.keepAlive, x.linger, x.fromPeer, x.answered = !x.request.Close, false, false, false
	x.why, x.detail, x.status = reason.None, "", 0
	x.tried, x.retries, x.host, x.headAt, x.sentAt = lb.Tried{}, 0, nil, 0, 0
	x.bytesIn, x.bytesOut = 0, 0
	x.trace, x.span, x.client = tracing.Context{}, nil, nil
	x.upload = upload{}
}

// run answers the request.
func (x *exchange) run() {
	x.beginTrace()
	e, why := x.route()
	if why != reason.None {
		x.reply(why)
		return
	}
	x.entry = e
	e.Requests.Begin()
	if e.Direct != nil {
		x.direct(e)
		return
	}
	if p := e.Cluster.Protocol(); p == mesh.ProtocolHTTP2 || p == mesh.ProtocolGRPC {
		x.detail = "the service speaks HTTP/2, which this proxy does not speak yet"
		x.reply(reason.UnsupportedProtocol)
		return
	}
	if e.Timeout > 0 {
		x.deadline = x.now + int64(e.Timeout)
	}
	x.prepare()
	x.attempts()
}

// route asks the router, and waits where a destination has to be learnt.
func (x *exchange) route() (*table.Entry, reason.Reason) {
	router := x.conn.server.config.Router
	h := &x.request
	if string(h.Method) == "CONNECT" {
		x.detail = "CONNECT is not supported on this port"
		return nil, reason.UnsupportedProtocol
	}
	e, why, wait := router.Route(h.Authority, h.Path, x.now)
	if !wait {
		return e, why
	}
	ctx, done := x.conn.cancellable()
	defer done()
	x.conn.enter(silent, x.now)
	e, why = router.Await(ctx, h.Authority, h.Path)
	x.conn.enter(working, x.conn.server.config.Clock())
	return e, why
}

// prepare turns the request that came into the one that goes on.
func (x *exchange) prepare() {
	h := &x.request
	wire.RemoveHopByHop(h)
	if h.Get(wire.FairleadPeer) != nil {
		x.fromPeer = x.entry.Inbound
		h.Del(wire.FairleadPeer)
	}
	if !x.entry.Inbound {
		h.Add(wire.FairleadPeer, headerPeer, append(x.scratch[:0], '1'))
	}
}

// account tells everybody how the exchange went: once, at its end.
func (x *exchange) account(now int64) {
	s := x.conn.server
	duration := time.Duration(now - x.now)
	if x.entry != nil {
		x.entry.Requests.Done(x.status, int(x.why), duration, x.bytesIn, x.bytesOut)
	} else {
		s.config.Unrouted.Begin()
		s.config.Unrouted.Done(x.status, int(x.why), duration, x.bytesIn, x.bytesOut)
	}
	x.endTrace(now)
	if s.config.Access == nil {
		return
	}
	h := &x.request
	e := accesslog.Entry{
		Start:     s.wall.Add(time.Duration(x.now)),
		Duration:  duration,
		Method:    h.Method,
		Path:      h.Path,
		Authority: h.Authority,
		UserAgent: h.Get(wire.UserAgent),
		Protocol:  h.Proto.String(),
		Status:    x.status,
		Retries:   x.retries,
		BytesIn:   x.bytesIn,
		BytesOut:  x.bytesOut,
		TraceID:   x.trace.TraceID,
		Sampled:   x.trace.Sampled(),
	}
	if x.headAt > 0 {
		e.UpstreamDuration = time.Duration(x.headAt - x.sentAt)
	}
	if x.entry != nil {
		e.Source, e.Destination = x.entry.Source, x.entry.Destination
	}
	if x.host != nil {
		e.Instance, e.Upstream = x.host.Endpoint().Instance, x.host.Address()
	}
	if x.why != reason.None {
		e.Reason, e.Sentence = x.why.Code(), x.sentence()
	}
	s.config.Access.Record(&e)
}

// sentence says why the proxy answered itself, in plain words.
func (x *exchange) sentence() string {
	if x.detail != "" {
		return x.detail
	}
	return x.why.Text()
}
