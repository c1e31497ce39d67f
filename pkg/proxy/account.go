package proxy

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// account tells everybody how the exchange went: once, at its end.
func (x *exchange) account(now int64) {
	s := x.server
	switch {
	case x.why == reason.ClientGone && x.life.stopped.Load():
		x.why = reason.Stopped
	case x.why == reason.ClientGone && x.life.idled.Load():
		x.why = reason.IdleTimeout
	case x.why == reason.None:
		x.why = x.told
	}
	duration := time.Duration(now - x.now)
	if x.counted == nil { // neither routed nor waiting for that
		x.countIn(s.config.Unrouted)
	}
	if x.rpc.kind != rpc.None {
		if status := x.callEnded(); status != rpc.NoCode {
			x.counted.Call(int(status))
		}
	}
	x.counted.Done(x.status, int(x.why), duration, x.bytesIn, x.bytesOut)
	if s.config.Access != nil {
		x.log(duration)
	}
	x.endTrace(now)
	if x.rpc.web {
		x.untranslateCall()
	}
}

// log writes the access log's line.
func (x *exchange) log(duration time.Duration) {
	s := x.server
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
	if x.rpc.kind != rpc.None {
		e.GRPCStatus = x.callEnded().String()
	}
	if x.headAt > 0 {
		e.UpstreamDuration = time.Duration(x.headAt - x.sentAt)
	}
	if x.entry != nil {
		e.Source, e.Destination, e.Route = x.entry.Source, x.entry.Destination, x.entry.Route
	}
	if x.host != nil {
		e.Instance, e.Upstream = x.host.Endpoint().Instance, x.host.Address()
	}
	if x.outside.IsValid() {
		e.Upstream = x.outside
	}
	if x.why != reason.None {
		e.Reason, e.Sentence = x.why.Code(), x.sentence()
	}
	s.config.Access.Record(&e)
}

// sentence says why the proxy answered itself, in plain words.
func (x *exchange) sentence() string {
	switch {
	case x.detail != "":
		return x.detail
	case x.why == reason.RequestTimeout && x.isLate():
		return "the time that the caller gave the call (grpc-timeout) was over before the instance answered"
	}
	return x.why.Text()
}
