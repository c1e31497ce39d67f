package otlptest

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	// DefaultMaxSpans is how many spans are kept; older ones are forgotten.
	DefaultMaxSpans = 20000

	// maxRequest bounds one export, unpacked, in bytes: gRPC's default.
	maxRequest = 4 << 20

	headerTimeout = 10 * time.Second
	closeTimeout  = 5 * time.Second
)

// Config configures a [Receiver]. The zero value listens on two free loopback
// ports.
type Config struct {
	GRPCAddr string // default 127.0.0.1:0
	HTTPAddr string // default 127.0.0.1:0
	MaxSpans int    // default [DefaultMaxSpans]
}

// Receiver takes spans over OTLP. It is safe for concurrent use.
type Receiver struct {
	grpcAddr string
	httpAddr string
	maxSpans int

	grpc    *grpc.Server
	http    *http.Server
	serving sync.WaitGroup

	mu      sync.Mutex
	spans   []Span        // guarded by mu; oldest first
	total   uint64        // guarded by mu; spans received since the start
	changed chan struct{} // guarded by mu; closed and replaced when spans come
}

// Start listens and serves.
func Start(config Config) (*Receiver, error) {
	if config.MaxSpans <= 0 {
		config.MaxSpans = DefaultMaxSpans
	}
	grpcListener, err := listen(config.GRPCAddr)
	if err != nil {
		return nil, err
	}
	httpListener, err := listen(config.HTTPAddr)
	if err != nil {
		return nil, errors.Join(err, grpcListener.Close())
	}
	r := &Receiver{
		grpcAddr: grpcListener.Addr().String(),
		httpAddr: httpListener.Addr().String(),
		maxSpans: config.MaxSpans,
		grpc:     grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.WaitForHandlers(true)),
		changed:  make(chan struct{}),
	}
	collectorpb.RegisterTraceServiceServer(r.grpc, &service{receiver: r})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", r.serveHTTP)
	r.http = &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	r.serving.Go(func() { _ = r.grpc.Serve(grpcListener) }) // ends with Close
	r.serving.Go(func() { _ = r.http.Serve(httpListener) }) // ends with Close
	return r, nil
}

func listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for OTLP: %w", err)
	}
	return l, nil
}

// Close stops both servers and waits for the exports under way, over HTTP for
// at most closeTimeout; then their connections are broken.
func (r *Receiver) Close() error {
	r.grpc.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := r.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, r.http.Close())
	}
	r.serving.Wait()
	return err
}

// GRPCEndpoint returns grpc://host:port.
func (r *Receiver) GRPCEndpoint() string { return "grpc://" + r.grpcAddr }

// HTTPEndpoint returns http://host:port.
func (r *Receiver) HTTPEndpoint() string { return "http://" + r.httpAddr }

// Spans returns the spans that are kept, in the order in which they came.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Total returns how many spans have been received, those forgotten included.
func (r *Receiver) Total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Trace returns the spans of a trace, by their start.
func (r *Receiver) Trace(traceID string) []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var trace []Span
	for i := range r.spans {
		if r.spans[i].TraceID == traceID {
			trace = append(trace, r.spans[i])
		}
	}
	slices.SortStableFunc(trace, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return trace
}

// Reset forgets all spans.
func (r *Receiver) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = nil
}

// WaitFor blocks until the spans that are kept satisfy the condition, and
// returns them, or until ctx ends.
func (r *Receiver) WaitFor(ctx context.Context, condition func([]Span) bool) ([]Span, error) {
	for {
		r.mu.Lock()
		spans, changed := slices.Clone(r.spans), r.changed
		r.mu.Unlock()
		if condition(spans) {
			return spans, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return spans, fmt.Errorf("waiting for spans, have %d: %w", len(spans), context.Cause(ctx))
		}
	}
}

// WaitForCount waits until at least n spans are kept.
func (r *Receiver) WaitForCount(ctx context.Context, n int) ([]Span, error) {
	return r.WaitFor(ctx, func(spans []Span) bool { return len(spans) >= n })
}

func (r *Receiver) add(request *collectorpb.ExportTraceServiceRequest) {
	spans := flatten(request)
	if len(spans) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total += uint64(len(spans))
	r.spans = append(r.spans, spans...)
	if excess := len(r.spans) - r.maxSpans; excess > 0 {
		r.spans = slices.Delete(r.spans, 0, excess)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// service is the gRPC half.
type service struct {
	collectorpb.UnimplementedTraceServiceServer
	receiver *Receiver
}

// Export implements the collector's service.
func (s *service) Export(
	_ context.Context, request *collectorpb.ExportTraceServiceRequest,
) (*collectorpb.ExportTraceServiceResponse, error) {
	s.receiver.add(request)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// serveHTTP is the HTTP half, see
// https://opentelemetry.io/docs/specs/otlp/#otlphttp-request.
func (r *Receiver) serveHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "only application/x-protobuf is understood", http.StatusUnsupportedMediaType)
		return
	}
	body, err := readBody(w, req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var request collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.add(&request)
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.WriteHeader(http.StatusOK) // an empty response message has no bytes
}

func readBody(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxRequest)
	if req.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		body = unzipped
	}
	data, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if len(data) > maxRequest {
		return nil, fmt.Errorf("body is longer than %d bytes", maxRequest)
	}
	return data, nil
}
