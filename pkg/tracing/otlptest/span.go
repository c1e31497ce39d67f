package otlptest

import (
	"encoding/hex"
	"strconv"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is a received span, flattened for reading and comparing.
type Span struct {
	TraceID  string // hexadecimal
	SpanID   string
	ParentID string // "" for a root

	Service  string            // service.name of Resource
	Resource map[string]string // attributes of what made the span

	Name       string
	Kind       string // "server", "client", "internal", "producer", "consumer" or ""
	Start, End time.Time
	Attributes map[string]string
	Events     []Event
	Links      []string // ids of the spans that it is linked with

	Failed  bool   // status is ERROR
	Message string // of the status
	State   string // tracestate
}

// Event is something that happened within a span.
type Event struct {
	Name       string
	At         time.Time
	Attributes map[string]string
}

// Duration returns how long the span took.
func (s *Span) Duration() time.Duration { return s.End.Sub(s.Start) }

func flatten(request *collectorpb.ExportTraceServiceRequest) []Span {
	var spans []Span
	for _, byResource := range request.GetResourceSpans() {
		resource := attributes(byResource.GetResource().GetAttributes())
		for _, byScope := range byResource.GetScopeSpans() {
			for _, s := range byScope.GetSpans() {
				spans = append(spans, flattenSpan(s, resource))
			}
		}
	}
	return spans
}

func flattenSpan(s *tracepb.Span, resource map[string]string) Span {
	flat := Span{
		TraceID:    hex.EncodeToString(s.GetTraceId()),
		SpanID:     hex.EncodeToString(s.GetSpanId()),
		ParentID:   hex.EncodeToString(s.GetParentSpanId()),
		Service:    resource["service.name"],
		Resource:   resource,
		Name:       s.GetName(),
		Kind:       kind(s.GetKind()),
		Start:      at(s.GetStartTimeUnixNano()),
		End:        at(s.GetEndTimeUnixNano()),
		Attributes: attributes(s.GetAttributes()),
		Failed:     s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Message:    s.GetStatus().GetMessage(),
		State:      s.GetTraceState(),
	}
	for _, e := range s.GetEvents() {
		flat.Events = append(flat.Events, Event{
			Name: e.GetName(), At: at(e.GetTimeUnixNano()), Attributes: attributes(e.GetAttributes()),
		})
	}
	for _, l := range s.GetLinks() {
		flat.Links = append(flat.Links, hex.EncodeToString(l.GetSpanId()))
	}
	return flat
}

func at(nanoseconds uint64) time.Time {
	return time.Unix(0, int64(nanoseconds)) //nolint:gosec // until the year 2262
}

func kind(k tracepb.Span_SpanKind) string {
	switch k {
	case tracepb.Span_SPAN_KIND_SERVER:
		return "server"
	case tracepb.Span_SPAN_KIND_CLIENT:
		return "client"
	case tracepb.Span_SPAN_KIND_INTERNAL:
		return "internal"
	case tracepb.Span_SPAN_KIND_PRODUCER:
		return "producer"
	case tracepb.Span_SPAN_KIND_CONSUMER:
		return "consumer"
	default:
		return ""
	}
}

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		m[kv.GetKey()] = text(kv.GetValue())
	}
	return m
}

// text renders scalars as people write them and the rest as protobuf does.
func text(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	case nil:
		return ""
	default:
		return (&commonpb.AnyValue{Value: v}).String()
	}
}
