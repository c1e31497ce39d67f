package proxy

import (
	"bytes"
	"cmp"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// beginTrace puts the request into its trace: the one that it came with, or a new
// one. If nobody records it, all that happens is an edit of the head.
func (x *exchange) beginTrace() {
	t := x.server.config.Tracer
	if t == nil || !t.Enabled() {
		return
	}
	var in tracing.Incoming
	x.gatherTrace(&in)
	remote, _ := tracing.Extract(&in)
	x.trace = t.ChildOfRemote(&remote)
	x.dropUnread(&in)
	if x.trace.Sampled() {
		x.span = t.StartServer(&x.trace, x.describe(), x.wall(x.now))
		return
	}
	x.writeTrace(&x.trace)
}

// gatherTrace collects the fields about traces. Of one that came twice, other
// than tracestate, it takes none.
func (x *exchange) gatherTrace(in *tracing.Incoming) {
	take := func(at *[]byte, value []byte) {
		if *at == nil {
			*at = value
		} else {
			*at = []byte{}
		}
	}
	for i := range x.request.Fields {
		f := &x.request.Fields[i]
		switch f.ID {
		case wire.Traceparent:
			take(&in.TraceParent, f.Value)
		case wire.Tracestate:
			if in.TraceState == nil {
				in.TraceState = f.Value
			}
		case wire.B3:
			take(&in.B3, f.Value)
		case wire.XB3TraceID:
			take(&in.XB3TraceID, f.Value)
		case wire.XB3SpanID:
			take(&in.XB3SpanID, f.Value)
		case wire.XB3Sampled:
			take(&in.XB3Sampled, f.Value)
		case wire.XB3Flags:
			take(&in.XB3Flags, f.Value)
		}
	}
}

// dropUnread removes the fields of a style that came and could not be read: beside the
// trace that is written they would name another.
func (x *exchange) dropUnread(in *tracing.Incoming) {
	h := &x.request
	if in.B3 != nil && x.trace.Style&tracing.StyleB3Single == 0 {
		h.Del(wire.B3)
	}
	multi := in.XB3TraceID != nil || in.XB3SpanID != nil || in.XB3Sampled != nil || in.XB3Flags != nil
	if multi && x.trace.Style&tracing.StyleB3Multi == 0 {
		for _, id := range []wire.ID{wire.XB3TraceID, wire.XB3SpanID, wire.XB3ParentSpanID, wire.XB3Sampled, wire.XB3Flags} {
			h.Del(id)
		}
	}
}

// writeTrace sets the fields of the request to c: W3C always, and the style that came.
func (x *exchange) writeTrace(c *tracing.Context) {
	h := &x.request
	buf := x.scratch[:0]
	h.Set(wire.Traceparent, "traceparent", tracing.AppendTraceParent(buf, c))
	if c.State == nil {
		h.Del(wire.Tracestate)
	}
	if c.Style&tracing.StyleB3Single != 0 {
		h.Set(wire.B3, "b3", tracing.AppendB3Single(buf, c))
	}
	if c.Style&tracing.StyleB3Multi != 0 {
		h.Set(wire.XB3TraceID, "X-B3-TraceId", tracing.AppendTraceID(buf, c))
		h.Set(wire.XB3SpanID, "X-B3-SpanId", tracing.AppendSpanID(buf, c))
		h.Del(wire.XB3ParentSpanID)
		if c.ParentID != [8]byte{} {
			h.Add(wire.XB3ParentSpanID, "X-B3-ParentSpanId", tracing.AppendParentID(buf, c))
		}
		h.Del(wire.XB3Sampled)
		h.Del(wire.XB3Flags)
		if v := c.B3Sampled(); v != "" {
			h.Add(wire.XB3Sampled, "X-B3-Sampled", append(buf, v...))
		}
		if v := c.B3Flags(); v != "" {
			h.Add(wire.XB3Flags, "X-B3-Flags", append(buf, v...))
		}
	}
}

// traceAttempt begins the span of an attempt, and sends its id on. host is nil where that is
// outside of the mesh.
func (x *exchange) traceAttempt(host *upstream.Host) {
	if x.span == nil {
		return
	}
	t := x.server.config.Tracer
	child := t.Child(&x.trace)
	x.call = t.StartClient(&child, x.describe(), x.wall(x.sentAt))
	if host != nil {
		x.call.SetPeer(host.Address())
		x.call.Set(tracing.String(tracing.AttrInstance, host.Endpoint().Instance),
			tracing.String(tracing.AttrCluster, host.Cluster().Name()))
	}
	if x.retries > 0 {
		x.call.SetResend(int(x.retries))
	}
	x.writeTrace(&child)
}

// endAttempt ends the span of the attempt under way.
func (x *exchange) endAttempt(status int, why reason.Reason, now int64) {
	if x.call == nil {
		return
	}
	if status > 0 {
		x.call.SetStatus(status)
		x.traceCall(x.call)
	}
	if why != reason.None {
		x.call.Fail(why.Code(), why.Text())
	}
	x.call.End(x.wall(now))
	x.call = nil
}

// event notes on the request's span what the proxy decided.
func (x *exchange) event(name string, attrs ...tracing.Attr) {
	if x.span != nil {
		x.span.Event(name, x.wall(x.server.config.Clock()), attrs...)
	}
}

func (x *exchange) endTrace(now int64) {
	if x.span == nil {
		return
	}
	if x.status > 0 {
		x.span.SetStatus(x.status)
	}
	x.traceCall(x.span)
	if x.entry != nil {
		x.span.Set(tracing.String(tracing.AttrCluster, x.entry.Destination))
		if x.entry.Route != "" {
			x.span.Set(tracing.String(tracing.AttrRoute, x.entry.Route))
		}
	}
	if x.host != nil {
		x.span.Set(tracing.String(tracing.AttrInstance, x.host.Endpoint().Instance))
	}
	if x.why != reason.None {
		x.span.Set(tracing.String(tracing.AttrReason, x.why.Code()), tracing.String(tracing.AttrDetail, x.sentence()))
		// A status that says nothing bad is of a response that broke off.
		if x.status >= 500 || x.status < 400 && x.why != reason.DirectResponse && (x.rpc.kind == rpc.None || isServerError(x.callEnded())) {
			x.span.Fail(x.why.Code(), x.sentence())
		}
	}
	x.span.End(x.wall(now))
	x.span = nil
}

// traceCall notes how a gRPC call ended.
func (x *exchange) traceCall(span *tracing.Span) {
	if x.rpc.kind == rpc.None {
		return
	}
	if status := x.callEnded(); status != rpc.NoCode {
		span.SetCall(x.method(), status.String(), isServerError(status))
	}
}

// describe makes the strings of a sampled request's spans.
func (x *exchange) describe() *tracing.Request {
	h := &x.request
	path, _, _ := bytes.Cut(h.Path, []byte("?"))
	host, port := splitAuthority(string(h.Authority))
	number, _ := strconv.Atoi(port) // 0, not known, where it is a name
	return &tracing.Request{
		Method:    string(h.Method),
		Scheme:    cmp.Or(string(h.Scheme), "http"),
		Path:      string(path),
		Host:      host,
		Port:      number,
		UserAgent: string(h.Get(wire.UserAgent)),
		Protocol:  h.Proto.Version(),
	}
}

// splitAuthority returns the host, of an IPv6 address without brackets, and the port.
func splitAuthority(authority string) (host, port string) {
	if host, port, err := net.SplitHostPort(authority); err == nil {
		return host, port
	}
	return strings.Trim(authority, "[]"), ""
}

func (x *exchange) wall(now int64) time.Time { return x.server.wall.Add(time.Duration(now)) }
