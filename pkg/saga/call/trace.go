package call

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// The attributes of the span of a call, beside those of HTTP.
const (
	AttrSaga    = "fairlead.saga.id"
	AttrStep    = "fairlead.saga.step"
	AttrKind    = "fairlead.saga.kind" // action or compensate
	AttrAttempt = "fairlead.saga.attempt"
	AttrAnswer  = "fairlead.saga.answer" // see saga.Answer
)

// trace begins the span of a call, below the one that its saga was started in, and says in the request which it is. Where nobody here records spans, that of
// the start goes on as it came: a span of this call would be missing between the two.
func (w *wire) trace(request *http.Request, r *coordinator.Request) *tracing.Span {
	started, ok := tracing.Extract(&tracing.Incoming{TraceParent: []byte(r.Trace)})
	if !ok {
		return nil
	}
	if !w.tracer.Enabled() {
		request.Header.Set("traceparent", r.Trace)
		return nil
	}
	c := w.tracer.Child(&started)
	c.SpanID = spanID(r, r.Attempt)
	request.Header.Set("traceparent", string(tracing.AppendTraceParent(nil, &c)))
	host, port, _ := strings.Cut(r.Call.Service, ":")
	number, _ := strconv.Atoi(port) // 0, not known, if it is a name, or there is none
	span := w.tracer.StartClient(&c, &tracing.Request{Method: request.Method, Scheme: "http", Path: request.URL.Path, Host: host, Port: number}, time.Now())
	kind := "action"
	if r.Undo {
		kind = "compensate"
	}
	span.Set(tracing.String(AttrSaga, r.Saga), tracing.String(AttrStep, r.Step), tracing.String(AttrKind, kind), tracing.Int(AttrAttempt, int64(r.Attempt)))
	if r.Attempt > 1 {
		span.SetResend(r.Attempt - 1)
		before := c
		before.SpanID = spanID(r, r.Attempt-1)
		span.Link(&before)
	}
	return span
}

// spanID returns the id of the span of an attempt. It is made of what the attempt is, so that whoever makes the next one, perhaps another coordinator
// days later, can link with it.
func spanID(r *coordinator.Request, attempt int) [8]byte {
	sum := sha256.Sum256(fmt.Append(nil, r.Trace, r.Key, attempt))
	return [8]byte(sum[:8])
}
