package otlptest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, c Config) *Receiver {
	t.Helper()
	r, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

func request(t *testing.T, spans ...*tracepb.Span) []byte {
	t.Helper()
	body, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{
		{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func post(t *testing.T, r *Receiver, contentType, encoding string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.HTTPEndpoint()+"/v1/traces", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

const protobuf = "application/x-protobuf"

func TestSpansAreFlattenedWithEveryKindOfValue(t *testing.T) {
	r := start(t, Config{})
	span := &tracepb.Span{
		TraceId: []byte{1, 2}, SpanId: []byte{3}, Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: 1, EndTimeUnixNano: 1001,
		Attributes: []*commonpb.KeyValue{
			{Key: "s", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "x"}}},
			{Key: "i", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: -1}}},
			{Key: "b", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
			{Key: "d", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 1.5}}},
			{Key: "none"},
		},
	}
	if code := post(t, r, protobuf, "", request(t, span)); code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	spans := r.Trace("0102")
	if len(spans) != 1 {
		t.Fatalf("spans %+v", r.Spans())
	}
	got := spans[0]
	if got.SpanID != "03" || got.ParentID != "" || got.Kind != "internal" || got.Duration() != time.Microsecond {
		t.Errorf("got %+v", got)
	}
	for key, want := range map[string]string{"s": "x", "i": "-1", "b": "true", "d": "1.5", "none": ""} {
		if got.Attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Attributes[key], want)
		}
	}
}

func TestOldSpansAreForgottenAndCounted(t *testing.T) {
	r := start(t, Config{MaxSpans: 2})
	for _, name := range []string{"a", "b", "c"} {
		post(t, r, protobuf, "", request(t, &tracepb.Span{Name: name}))
	}
	spans := r.Spans()
	if len(spans) != 2 || spans[0].Name != "b" || spans[1].Name != "c" || r.Total() != 3 {
		t.Errorf("kept %+v of %d", spans, r.Total())
	}
}

func TestWaitForReturnsWhenSpansCome(t *testing.T) {
	r := start(t, Config{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.WaitForCount(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	type outcome struct {
		spans []Span
		err   error
	}
	got := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		spans, err := r.WaitForCount(ctx, 1)
		got <- outcome{spans, err}
	}()
	post(t, r, protobuf, "", request(t, &tracepb.Span{Name: "a"}))
	if o := <-got; o.err != nil || o.spans[0].Name != "a" {
		t.Errorf("got %+v", o)
	}
}

func TestBodiesOverHTTPAreBoundedAndChecked(t *testing.T) {
	r := start(t, Config{})
	good := request(t, &tracepb.Span{Name: "a"})
	zipped := func(b []byte) []byte {
		var buffer bytes.Buffer
		w := gzip.NewWriter(&buffer)
		_, _ = w.Write(b)
		_ = w.Close()
		return buffer.Bytes()
	}
	for name, tc := range map[string]struct {
		contentType, encoding string
		body                  []byte
		want                  int
	}{
		"gzip":           {protobuf, "gzip", zipped(good), http.StatusOK},
		"JSON":           {"application/json", "", []byte("{}"), http.StatusUnsupportedMediaType},
		"not protobuf":   {protobuf, "", []byte{0xff}, http.StatusBadRequest},
		"not gzip":       {protobuf, "gzip", good, http.StatusBadRequest},
		"too long":       {protobuf, "", make([]byte, maxRequest+1), http.StatusBadRequest},
		"unpacks to 8 M": {protobuf, "gzip", zipped(make([]byte, 2*maxRequest)), http.StatusBadRequest},
	} {
		if got := post(t, r, tc.contentType, tc.encoding, tc.body); got != tc.want {
			t.Errorf("%s: status %d, want %d", name, got, tc.want)
		}
	}
	if r.Total() != 1 {
		t.Errorf("%d spans, want the one that was good", r.Total())
	}
}
