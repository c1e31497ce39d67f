package tracing

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Attributes of our own on HTTP spans.
const (
	AttrInstance = "fairlead.instance" // id of the instance that an attempt went to
	AttrReason   = "fairlead.reason"   // reason code of a response that the sidecar made
	AttrDetail   = "fairlead.detail"   // the plain sentence that belongs to the reason
	AttrCluster  = "fairlead.cluster"
	AttrRoute    = "fairlead.route" // name of the route, where it has one
)

// Span records one sampled hop. A nil Span is an unsampled one: all its methods
// do nothing, so callers need not ask. It may be used by one goroutine at a time.
type Span struct {
	span   trace.Span
	client bool
}

// Attr is an attribute of a span or an event.
type Attr struct{ kv attribute.KeyValue }

// String makes an attribute of text. Invalid UTF-8, which OTLP cannot carry, is
// replaced.
func String(key, value string) Attr { return Attr{attribute.String(key, clean(value))} }

// Int makes an attribute of a number.
func Int(key string, value int64) Attr { return Attr{attribute.Int64(key, value)} }

// clean cuts before it copies; the cut may leave half a character, which is
// then replaced as any invalid byte is.
func clean(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxValue)], "\uFFFD") }

// Request is what the semantic conventions want to know of a request, see
// https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
type Request struct {
	Method    string
	Scheme    string // "http", "https"
	Path      string // without the query, which may hold secrets
	Host      string // without port
	Port      int    // 0: not known
	UserAgent string
	Protocol  string // "1.1", "2"
	Peer      netip.AddrPort
}

// StartServer starts the span of a request that arrived. c comes from
// [Tracer.ChildOfRemote]; the span has its ids. It returns nil if c is not
// sampled or the tracer disabled.
func (t *Tracer) StartServer(c *Context, r *Request, start time.Time) *Span {
	return t.start(c, trace.SpanKindServer, r, start)
}

// StartClient starts the span of one attempt upstream. c comes from
// [Tracer.Child] of the server's Context; its SpanID goes into the headers.
func (t *Tracer) StartClient(c *Context, r *Request, start time.Time) *Span {
	return t.start(c, trace.SpanKindClient, r, start)
}

func (t *Tracer) start(c *Context, kind trace.SpanKind, r *Request, start time.Time) *Span {
	if !t.enabled || !c.Sampled() {
		return nil
	}
	// A copy, or c would escape and cost unsampled requests an allocation.
	own := *c
	name, attributes := requestAttributes(r)
	if kind == trace.SpanKindClient {
		attributes = appendTarget(attributes, r)
	}
	_, span := t.tracer.Start(chosenContext(&own), name,
		trace.WithSpanKind(kind), trace.WithTimestamp(start), trace.WithAttributes(attributes...))
	return &Span{span: span, client: kind == trace.SpanKindClient}
}

// requestAttributes also returns the span's name: "{method}", or "HTTP" if the
// method is none that the conventions know, so that clients cannot make names.
func requestAttributes(r *Request) (name string, attributes []attribute.KeyValue) {
	name = r.Method
	attributes = make([]attribute.KeyValue, 0, 16)
	if knownMethod(r.Method) {
		attributes = append(attributes, semconv.HTTPRequestMethodKey.String(r.Method))
	} else {
		name = "HTTP"
		attributes = append(attributes, semconv.HTTPRequestMethodOther,
			semconv.HTTPRequestMethodOriginal(clean(r.Method)))
	}
	text := func(key attribute.Key, value string) {
		if value != "" {
			attributes = append(attributes, key.String(clean(value)))
		}
	}
	text(semconv.URLSchemeKey, r.Scheme)
	text(semconv.URLPathKey, r.Path)
	text(semconv.ServerAddressKey, r.Host)
	text(semconv.UserAgentOriginalKey, r.UserAgent)
	text(semconv.NetworkProtocolVersionKey, r.Protocol)
	if r.Port != 0 {
		attributes = append(attributes, semconv.ServerPort(r.Port))
	}
	return name, appendPeer(attributes, r.Peer)
}

// appendTarget adds what is required of clients only: the whole URL, here too without
// the query, and the port, which the scheme says if the authority does not.
func appendTarget(attributes []attribute.KeyValue, r *Request) []attribute.KeyValue {
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := r.Port
	switch {
	case port != 0:
		host += ":" + strconv.Itoa(port)
	case r.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	if r.Port == 0 {
		attributes = append(attributes, semconv.ServerPort(port))
	}
	return append(attributes, semconv.URLFull(clean(r.Scheme+"://"+host+r.Path)))
}

func appendPeer(attributes []attribute.KeyValue, peer netip.AddrPort) []attribute.KeyValue {
	if !peer.IsValid() {
		return attributes
	}
	return append(attributes,
		semconv.NetworkPeerAddress(peer.Addr().Unmap().WithZone("").String()),
		semconv.NetworkPeerPort(int(peer.Port())))
}

func knownMethod(m string) bool {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace, http.MethodPatch:
		return true
	default:
		return false
	}
}

// SetPeer says where an attempt was connected to.
func (s *Span) SetPeer(peer netip.AddrPort) {
	if s != nil {
		s.span.SetAttributes(appendPeer(nil, peer)...)
	}
}

// SetResend says which retry an attempt is: http.request.resend_count.
func (s *Span) SetResend(n int) {
	if s != nil {
		s.span.SetAttributes(semconv.HTTPRequestResendCount(n))
	}
}

// Set sets attributes.
func (s *Span) Set(attrs ...Attr) {
	if s != nil {
		s.span.SetAttributes(keyValues(attrs)...)
	}
}

// Event records that something happened: a retry, a decision of the breaker.
func (s *Span) Event(name string, at time.Time, attrs ...Attr) {
	if s != nil {
		s.span.AddEvent(clean(name), trace.WithTimestamp(at), trace.WithAttributes(keyValues(attrs)...))
	}
}

// Link says that the span goes on with what another one of the same trace did, whoever made that.
func (s *Span) Link(other *Context) {
	if s != nil {
		s.span.AddLink(trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: other.TraceID, SpanID: other.SpanID, TraceFlags: trace.FlagsSampled,
		})})
	}
}

// SetStatus sets the response's code. "Span Status MUST be left unset if HTTP
// status code was in the 1xx, 2xx or 3xx ranges"; 4xx is an error of client
// spans, 5xx of both.
func (s *Span) SetStatus(code int) {
	if s == nil {
		return
	}
	s.span.SetAttributes(semconv.HTTPResponseStatusCode(code))
	if code >= 500 || (s.client && code >= 400) {
		s.span.SetAttributes(semconv.ErrorTypeKey.Int(code))
		s.span.SetStatus(codes.Error, "")
	}
}

// SetCall sets the method and the status of a gRPC call: the method in full, as in
// "example.Greeter/Hello", and the status by its name. failed says that the status is
// an error of the server: that of a client is every one but OK. See
// https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
func (s *Span) SetCall(method, status string, failed bool) {
	if s == nil {
		return
	}
	s.span.SetAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(clean(method)), semconv.RPCResponseStatusCode(status))
	if failed || s.client && status != "OK" {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(status))
		s.span.SetStatus(codes.Error, "")
	}
}

// Fail marks the span as failed. kind is error.type: a reason code, of few
// values. sentence is for people.
func (s *Span) Fail(kind, sentence string) {
	if s != nil {
		s.span.SetAttributes(semconv.ErrorTypeKey.String(clean(kind)))
		s.span.SetStatus(codes.Error, clean(sentence))
	}
}

// End ends the span and queues it for export. It does not block.
func (s *Span) End(at time.Time) {
	if s != nil {
		s.span.End(trace.WithTimestamp(at))
	}
}

func keyValues(attrs []Attr) []attribute.KeyValue {
	kvs := make([]attribute.KeyValue, len(attrs))
	for i, a := range attrs {
		kvs[i] = a.kv
	}
	return kvs
}

// chosenKey is the context key of the ids that were chosen before the span
// was made, because they are in headers that may already be sent.
type chosenKey struct{}

// chosenContext is what the SDK makes a span from that has c's ids.
func chosenContext(c *Context) context.Context {
	ctx := context.WithValue(context.Background(), chosenKey{}, c)
	if c.ParentID == [8]byte{} {
		return ctx
	}
	state, err := trace.ParseTraceState(string(c.State))
	if err != nil {
		state = trace.TraceState{} // forwarded all the same, but not recorded
	}
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    c.TraceID,
		SpanID:     c.ParentID,
		TraceFlags: trace.FlagsSampled,
		TraceState: state,
		Remote:     c.Remote,
	}))
}

func chosen(ctx context.Context) (*Context, bool) {
	c, ok := ctx.Value(chosenKey{}).(*Context)
	return c, ok
}

// chosenIDs is the SDK's source of ids.
type chosenIDs struct{}

// NewIDs implements [sdktrace.IDGenerator].
func (chosenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if c, ok := chosen(ctx); ok {
		return c.TraceID, c.SpanID
	}
	return newTraceID(), newSpanID()
}

// NewSpanID implements [sdktrace.IDGenerator].
func (chosenIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if c, ok := chosen(ctx); ok {
		return c.SpanID
	}
	return newSpanID()
}

// chosenSampler samples what has already been decided to be, and by the
// parent or the ratio what the SDK's users start.
type chosenSampler struct{ ratio ratioSampler }

// ShouldSample implements [sdktrace.Sampler].
func (s chosenSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	result := sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: parent.TraceState()}
	_, decided := chosen(p.ParentContext)
	id := [16]byte(p.TraceID)
	switch {
	case decided, parent.IsValid() && parent.IsSampled(),
		!parent.IsValid() && s.ratio.decide(&id) == SamplingYes:
		result.Decision = sdktrace.RecordAndSample
	}
	return result
}

// Description implements [sdktrace.Sampler].
func (chosenSampler) Description() string { return "FairleadParentBased" }
