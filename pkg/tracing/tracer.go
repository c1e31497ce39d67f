package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// DefaultQueue is how many ended spans wait for export: at 1 kB a span,
	// 2 MB, and a second of 1,000 sampled requests/s.
	DefaultQueue = 2048
	// DefaultFlushInterval is how long a span waits for its batch to fill.
	DefaultFlushInterval = time.Second

	batchSpans    = 512
	exportTimeout = 10 * time.Second // one batch with its retries

	// Bounds on what one span holds: attributes and events by number, values
	// in bytes. A request has about 20 attributes and an event per attempt.
	maxAttributes = 64
	maxEvents     = 32
	maxValue      = 1024

	scopeName = "github.com/fairlead-mesh/fairlead"
)

// ErrEndpoint is returned, wrapped, for an OTLP endpoint that cannot be read.
var ErrEndpoint = errors.New("want grpc://host:port or http://host:port")

// Config configures a [Tracer].
type Config struct {
	ServiceName string // service.name of the exported spans
	Namespace   string // service.namespace; may be empty
	InstanceID  string // service.instance.id; may be empty

	// OTLPEndpoint is where spans go. The scheme selects the transport:
	// grpc://host:4317 and http://host:4318 in the clear, grpcs:// and
	// https:// with TLS and the system's roots. HTTP posts to /v1/traces
	// unless the URL has a path. Headers and the like come from the usual
	// OTEL_EXPORTER_OTLP_* variables. Empty disables tracing.
	OTLPEndpoint string
	// Ratio is the share of the traces begun here that are sampled, 0 to 1.
	Ratio float64
	// Queue bounds the ended spans in memory; further ones are dropped.
	// Default [DefaultQueue].
	Queue int
	// FlushInterval bounds how long an ended span waits. Default
	// [DefaultFlushInterval].
	FlushInterval time.Duration
	// Logger is told when exporting begins to fail and when it works again.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Queue <= 0 {
		c.Queue = DefaultQueue
	}
	if c.FlushInterval <= 0 {
		c.FlushInterval = DefaultFlushInterval
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Tracer makes spans and exports them. It is safe for concurrent use.
type Tracer struct {
	enabled  bool
	ratio    ratioSampler
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	gate     *gate
}

// Setup starts a tracer; it does not wait for the collector, which may come and
// go. ctx bounds the set-up alone.
func Setup(ctx context.Context, config Config) (*Tracer, error) {
	config = config.withDefaults()
	t := &Tracer{ratio: newRatioSampler(config.Ratio), gate: newGate(config.Queue)}
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithIDGenerator(chosenIDs{}),
		sdktrace.WithSampler(chosenSampler{t.ratio}),
		sdktrace.WithResource(resourceOf(config)),
		sdktrace.WithRawSpanLimits(limits()),
	}
	if config.OTLPEndpoint == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.NeverSample()))
	} else {
		exporter, err := newExporter(ctx, config.OTLPEndpoint)
		if err != nil {
			return nil, err
		}
		t.enabled = true
		t.gate.logger = config.Logger
		t.gate.exporter = exporter
		t.gate.processor = sdktrace.NewBatchSpanProcessor(t.gate.asExporter(),
			// The gate keeps the bound and counts; this queue, which counts
			// nothing, must therefore never be the smaller one.
			sdktrace.WithMaxQueueSize(config.Queue+batchSpans),
			sdktrace.WithMaxExportBatchSize(min(batchSpans, config.Queue)),
			sdktrace.WithBatchTimeout(config.FlushInterval),
			sdktrace.WithExportTimeout(exportTimeout),
		)
		options = append(options, sdktrace.WithSpanProcessor(t.gate))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.tracer = t.provider.Tracer(scopeName)
	return t, nil
}

// Enabled reports whether spans go anywhere. A proxy whose tracer is disabled
// leaves the headers about traces alone: a trace it began would tell the
// applications behind it not to sample.
func (t *Tracer) Enabled() bool { return t.enabled }

// Shutdown ends the tracer: it exports the spans that have ended and waits for
// that, until ctx ends; then what is left is given up in the background, batch
// by batch, within the bound of an export each. Spans that end later are
// dropped and counted.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if !t.enabled {
		return nil
	}
	// Not the provider's, which leaves the processor running if ctx has ended.
	if err := t.gate.Shutdown(ctx); err != nil {
		return fmt.Errorf("flush spans: %w", err)
	}
	return nil
}

// Flush exports the spans that have ended and waits for that, until ctx ends.
func (t *Tracer) Flush(ctx context.Context) error {
	if err := t.provider.ForceFlush(ctx); err != nil {
		return fmt.Errorf("flush spans: %w", err)
	}
	return nil
}

// Stats counts spans since the tracer was set up.
type Stats struct {
	Exported uint64 // taken by the collector
	Dropped  uint64 // not queued: the queue was full, or the tracer shut down
	Failed   uint64 // given up after retries
}

// Stats returns the counts.
func (t *Tracer) Stats() Stats {
	return Stats{
		Exported: t.gate.exported.Load(),
		Dropped:  t.gate.dropped.Load(),
		Failed:   t.gate.failed.Load(),
	}
}

func limits() sdktrace.SpanLimits {
	l := sdktrace.NewSpanLimits()
	l.AttributeCountLimit = maxAttributes
	l.AttributeValueLengthLimit = maxValue
	l.EventCountLimit = maxEvents
	return l
}

func resourceOf(c Config) *resource.Resource {
	attributes := []attribute.KeyValue{semconv.ServiceName(c.ServiceName)}
	if c.Namespace != "" {
		attributes = append(attributes, semconv.ServiceNamespace(c.Namespace))
	}
	if c.InstanceID != "" {
		attributes = append(attributes, semconv.ServiceInstanceID(c.InstanceID))
	}
	return resource.NewWithAttributes(semconv.SchemaURL, attributes...)
}

// CheckEndpoint reports why spans cannot go to an endpoint, as an error that wraps
// [ErrEndpoint] and does not repeat the endpoint. The empty one is good.
func CheckEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	_, err := parseEndpoint(endpoint)
	return err
}

func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, ErrEndpoint // which says more than the parser
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrEndpoint
	}
	switch u.Scheme {
	case "http", "https":
		return u, nil
	case "grpc", "grpcs":
		if u.Path != "" && u.Path != "/" {
			return nil, fmt.Errorf("gRPC has no path: %w", ErrEndpoint)
		}
		return u, nil
	default:
		return nil, ErrEndpoint
	}
}

func newExporter(ctx context.Context, endpoint string) (sdktrace.SpanExporter, error) {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", endpoint, err)
	}
	if u.Scheme == "grpc" || u.Scheme == "grpcs" {
		return newGRPCExporter(ctx, u)
	}
	return newHTTPExporter(ctx, u)
}

func newGRPCExporter(ctx context.Context, u *url.URL) (sdktrace.SpanExporter, error) {
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(u.Host)}
	if u.Scheme == "grpc" {
		options = append(options, otlptracegrpc.WithInsecure())
	}
	return otlptracegrpc.New(ctx, options...)
}

func newHTTPExporter(ctx context.Context, u *url.URL) (sdktrace.SpanExporter, error) {
	options := []otlptracehttp.Option{otlptracehttp.WithEndpoint(u.Host)}
	if u.Path != "" && u.Path != "/" {
		options = append(options, otlptracehttp.WithURLPath(u.Path))
	}
	if u.Scheme == "http" {
		options = append(options, otlptracehttp.WithInsecure())
	}
	return otlptracehttp.New(ctx, options...)
}

// gate stands on both sides of the batch processor, to bound and count what is
// between: it is the processor that spans enter by and, as gateExporter, the
// exporter they leave by.
type gate struct {
	queue     int64
	logger    *slog.Logger
	processor sdktrace.SpanProcessor
	exporter  sdktrace.SpanExporter

	waiting  atomic.Int64
	closed   atomic.Bool
	exported atomic.Uint64
	dropped  atomic.Uint64
	failed   atomic.Uint64
	failing  atomic.Bool
}

func newGate(queue int) *gate { return &gate{queue: int64(queue)} }

// OnStart implements [sdktrace.SpanProcessor].
func (g *gate) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements [sdktrace.SpanProcessor]. It never blocks.
func (g *gate) OnEnd(s sdktrace.ReadOnlySpan) {
	if g.closed.Load() {
		g.dropped.Add(1)
		return
	}
	if g.waiting.Add(1) > g.queue {
		g.waiting.Add(-1)
		g.dropped.Add(1)
		return
	}
	g.processor.OnEnd(s)
}

// Shutdown implements [sdktrace.SpanProcessor].
func (g *gate) Shutdown(ctx context.Context) error {
	g.closed.Store(true)
	err := g.processor.Shutdown(ctx)
	// Spans that ended while the processor was closing.
	g.dropped.Add(uint64(max(g.waiting.Swap(0), 0)))
	return err
}

// ForceFlush implements [sdktrace.SpanProcessor].
func (g *gate) ForceFlush(ctx context.Context) error { return g.processor.ForceFlush(ctx) }

func (g *gate) asExporter() sdktrace.SpanExporter { return gateExporter{g} }

type gateExporter struct{ *gate }

// ExportSpans implements [sdktrace.SpanExporter]. It reports an error itself,
// once per change, because the batch processor would hand it to a handler that
// is global to the process.
func (e gateExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.exporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.failed.Add(uint64(len(spans)))
	} else {
		e.exported.Add(uint64(len(spans)))
	}
	if failing := err != nil; e.failing.Swap(failing) != failing {
		if failing {
			e.logger.Warn("spans cannot be exported, they are dropped", "error", err)
		} else {
			e.logger.Info("spans are exported again", "failed", e.failed.Load(), "dropped", e.dropped.Load())
		}
	}
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (e gateExporter) Shutdown(ctx context.Context) error { return e.exporter.Shutdown(ctx) }
