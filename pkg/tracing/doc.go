// Package tracing continues and starts distributed traces, and is the only
// package that names OpenTelemetry.
//
// It has two layers. The first works on header bytes and allocates nothing:
// [Extract] reads W3C Trace Context (Level 2) and B3, single and multi;
// [Tracer.Child] gives a hop its ids and its sampling decision; AppendTraceParent
// and its siblings write the headers. An unsampled request needs no more: it is
// a header edit. The second exists for sampled requests: [Tracer.StartServer]
// and [Tracer.StartClient] make spans with the ids that are in the headers, by
// the HTTP semantic conventions, and export them over OTLP.
//
// The rule of sampling is parent-based: who began the trace decides. A trace
// that begins here, or whose decision was left open (B3 without a sampling
// state), is sampled by the ratio, computed on the trace id as OpenTelemetry's
// TraceIDRatioBased computes it, so that all hops agree.
//
// The rule of writing: W3C always, and the styles that came. tracestate is
// forwarded as it came, if it belongs to the trace that is continued.
//
// A [Tracer] owns the exporter's goroutines; [Tracer.Shutdown] flushes and
// waits for them. Its queue is bounded: spans beyond it are dropped and counted
// ([Tracer.Stats]). Nothing here touches OpenTelemetry's globals, so that
// several tracers live in one process.
package tracing
