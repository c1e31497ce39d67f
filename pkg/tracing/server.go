package tracing

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// ServerOption makes a gRPC server trace its calls. Methods whose full name
// begins with one of skip, such as "/envoy.service.discovery.", are left out:
// the span of a stream that lives for days ends too late to be of use. Where
// tracing is disabled, the context of a call carries the caller's span, if there
// is one.
func (t *Tracer) ServerOption(skip ...string) grpc.ServerOption {
	if !t.enabled {
		return grpc.StatsHandler(carrier(received))
	}
	return grpc.StatsHandler(otelgrpc.NewServerHandler(t.grpcOptions(skip)...))
}

// DialOption is [Tracer.ServerOption] for a client's connection. Where tracing is
// disabled, the span that the context of a call carries goes with it.
func (t *Tracer) DialOption(skip ...string) grpc.DialOption {
	if !t.enabled {
		return grpc.WithStatsHandler(carrier(sent))
	}
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.grpcOptions(skip)...))
}

// carrier changes the context of calls, and looks at nothing else of them.
type carrier func(context.Context) context.Context

// TagRPC implements [stats.Handler].
func (c carrier) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return c(ctx) }

// HandleRPC implements [stats.Handler].
func (carrier) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements [stats.Handler].
func (carrier) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements [stats.Handler].
func (carrier) HandleConn(context.Context, stats.ConnStats) {}

// received returns the context of a call that came with a place in a trace.
func received(ctx context.Context) context.Context {
	came, _ := metadata.FromIncomingContext(ctx)
	if remote, ok := Extract(incoming(func(name string) []string { return came.Get(name) })); ok {
		return withPlace(ctx, &remote)
	}
	return ctx
}

// sent returns the context of a call that goes out with the place it is made in.
func sent(ctx context.Context) context.Context {
	if c, ok := FromContext(ctx); ok {
		return metadata.AppendToOutgoingContext(ctx, "traceparent", string(AppendTraceParent(nil, &c)))
	}
	return ctx
}

func (t *Tracer) grpcOptions(skip []string) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider),
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(b3.New(), propagation.TraceContext{})),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool {
			for _, prefix := range skip {
				if strings.HasPrefix(info.FullMethodName, prefix) {
					return false
				}
			}
			return true
		}),
	}
}

// Middleware traces the requests of an HTTP server of the mesh itself, not of
// the proxy. The request's context carries the span to gRPC calls that the
// handler makes, and to [FromContext]; of a request that is not sampled that
// too, so that nothing below it is. Where tracing is disabled it carries the
// caller's span, if there is one.
func (t *Tracer) Middleware(next http.Handler) http.Handler {
	if !t.enabled {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if remote, ok := Extract(incoming(r.Header.Values)); ok {
				r = r.WithContext(withPlace(r.Context(), &remote))
			}
			next.ServeHTTP(w, r)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remote, _ := Extract(incoming(r.Header.Values))
		c := t.ChildOfRemote(&remote)
		span := t.StartServer(&c, describe(r), time.Now())
		if span == nil {
			next.ServeHTTP(w, r.WithContext(withPlace(r.Context(), &c)))
			return
		}
		status := &statusWriter{ResponseWriter: w}
		defer func() {
			span.SetStatus(status.codeOr(http.StatusOK))
			span.End(time.Now())
		}()
		next.ServeHTTP(status, r.WithContext(trace.ContextWithSpan(r.Context(), span.span)))
	})
}

// withPlace returns a context that carries a place in a trace.
func withPlace(ctx context.Context, c *Context) context.Context {
	var flags trace.TraceFlags
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: c.TraceID, SpanID: c.SpanID, TraceFlags: flags.WithSampled(c.Sampled()),
	}))
}

// FromContext returns the span that a call of the mesh itself is handled in, as
// the parent of others, and whether there is one: that of [Tracer.Middleware], or
// of [Tracer.ServerOption]. It has no tracestate.
func FromContext(ctx context.Context) (c Context, ok bool) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return c, false
	}
	c = Context{TraceID: span.TraceID(), SpanID: span.SpanID(), Sampling: SamplingNo, Style: StyleW3C}
	if span.IsSampled() {
		c.Sampling = SamplingYes
	}
	return c, true
}

// SetRoute notes in the span of a request that [Tracer.Middleware] traces which route
// it took, such as /v1/services. Without such a span it does nothing.
func SetRoute(ctx context.Context, route string) {
	trace.SpanFromContext(ctx).SetAttributes(semconv.HTTPRoute(route))
}

// incoming reads what the headers say of traces, whose values are returned by name.
func incoming(of func(name string) []string) *Incoming {
	get := func(name string) []byte {
		if values := of(name); len(values) == 1 {
			return []byte(values[0])
		}
		return nil
	}
	return &Incoming{
		TraceParent: get("traceparent"),
		TraceState:  []byte(strings.Join(of("tracestate"), ",")),
		B3:          get("b3"),
		XB3TraceID:  get("X-B3-TraceId"),
		XB3SpanID:   get("X-B3-SpanId"),
		XB3Sampled:  get("X-B3-Sampled"),
		XB3Flags:    get("X-B3-Flags"),
	}
}

func describe(r *http.Request) *Request {
	d := &Request{
		Method:    r.Method,
		Scheme:    "http",
		Path:      r.URL.Path,
		Host:      r.Host,
		UserAgent: r.UserAgent(),
		Protocol:  strconv.Itoa(r.ProtoMajor),
	}
	if r.ProtoMajor == 1 {
		d.Protocol = "1." + strconv.Itoa(r.ProtoMinor)
	}
	if r.TLS != nil {
		d.Scheme = "https"
	}
	if host, port, err := net.SplitHostPort(r.Host); err == nil {
		d.Host = host
		d.Port, _ = strconv.Atoi(port) // 0, not known, if it is no number
	}
	d.Peer, _ = netip.ParseAddrPort(r.RemoteAddr) // invalid, not known, on a Unix socket
	return d
}

// statusWriter notes the status code. It is a Flusher whether or not the writer
// below it is one, as net/http's are, since streams assert it.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Flush implements [http.Flusher].
func (w *statusWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap serves [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) codeOr(code int) int {
	if w.code == 0 {
		return code
	}
	return w.code
}
