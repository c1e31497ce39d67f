package controlplane_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

func TestASagaIsOneTraceAcrossCoordinators(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	config.OTLPEndpoint, config.TraceRatio = spans.GRPCEndpoint(), 1
	ask, stop := startSagas(t, config)
	if status, body := ask("POST", "/v1/sagas", sagaOf("order-1", "/a", "/hold")); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "it holds", func() bool { return strings.Contains(called.String(), "order-1/s1/action") })
	stop()
	close(called.hold)
	ask, stop = startSagas(t, config)
	if _, body := ask("GET", "/v1/sagas/order-1:wait?timeout=20s", ""); stateOf(t, body) != "completed" {
		t.Error(body)
	}
	stop() // which sends what was not sent yet
	var start otlptest.Span
	for _, s := range spans.Spans() {
		if s.Kind == "server" && s.Attributes["http.request.method"] == "POST" && s.Attributes["http.response.status_code"] == "200" {
			start = s
		}
	}
	var got []string
	for _, s := range spans.Trace(start.TraceID) {
		if s.Kind != "client" {
			continue
		}
		a := s.Attributes
		got = append(got, fmt.Sprint(a["fairlead.saga.id"], " ", a["fairlead.saga.step"], " ", a["fairlead.saga.attempt"], " ", a["fairlead.saga.answer"]))
		if s.ParentID != start.SpanID || !slices.Contains(called.traces(), "00-"+s.TraceID+"-"+s.SpanID+"-01") {
			t.Errorf("%+v is not below %+v, or not what the participant was told: %v", s, start, called.traces())
		}
	}
	if want := []string{"order-1 s0 1 done", "order-1 s1 1 unknown", "order-1 s1 2 done"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheCallerOfAStartDecidesWhetherTheSagaIsSampled(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	called := &steps{}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	config.OTLPEndpoint, config.TraceRatio = spans.GRPCEndpoint(), 1
	addresses, stop := runControlPlaneAt(t, config)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	eventually(t, "it is started", func() bool {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/sagas", strings.NewReader(sagaOf("order-1", "/a")))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-00")
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		return a.StatusCode == http.StatusOK
	})
	a, err := http.Get("http://" + addresses.HTTP.String() + "/v1/sagas/order-1:wait?timeout=20s")
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	stop()
	told := called.traces()
	if len(told) != 1 || !strings.HasPrefix(told[0], "00-"+trace+"-") || !strings.HasSuffix(told[0], "-00") {
		t.Errorf("the participant was told %q", told)
	}
	if got := spans.Trace(trace); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
