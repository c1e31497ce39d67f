package call_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	sampled = "00-" + traceID + "-" + spanID + "-01"
)

func TestEachCallIsASpanBelowTheOneItsSagaWasStartedIn(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spans.Close() }()
	var mu sync.Mutex
	var parents []string // guarded by mu
	address := serve(t, func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		parents = append(parents, q.Header.Get("traceparent"))
		mu.Unlock()
		if q.URL.Path == "/break" {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	e := tracedEgress(t, address, tracing.Config{ServiceName: "controlplane", OTLPEndpoint: spans.HTTPEndpoint(), FlushInterval: time.Millisecond})
	for _, path := range []string{"/a?card=1234", "/break"} {
		e.Call(t.Context(), &coordinator.Request{
			Saga: "order-1", Step: "charge", Undo: path == "/break", Attempt: 3, Trace: sampled,
			Call: &saga.Call{Service: "payments.shop:8080", Path: path},
		})
	}
	if _, err := spans.WaitForCount(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	got := spans.Trace(traceID)
	if len(got) != 2 {
		t.Fatalf("%+v", spans.Spans())
	}
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []map[string]string{
		{
			"url.path": "/a", "server.address": "payments.shop", "server.port": "8080", "http.response.status_code": "503", "http.request.resend_count": "2",
			call.AttrSaga: "order-1", call.AttrStep: "charge", call.AttrKind: "action", call.AttrAttempt: "3", call.AttrAnswer: "unknown",
		},
		{call.AttrKind: "compensate", call.AttrAnswer: "unknown", "error.type": "unknown"},
	} {
		s := got[i]
		if s.ParentID != spanID || s.Kind != "client" || !s.Failed || parents[i] != "00-"+traceID+"-"+s.SpanID+"-01" {
			t.Errorf("%s arrived with %+v", parents[i], s)
		}
		for name, v := range want {
			if s.Attributes[name] != v {
				t.Errorf("span %d: %s is %q, not %q", i, name, s.Attributes[name], v)
			}
		}
	}
}

// Each coordinator has its own connection and memory, and all they share is what is stored of the saga.
func TestTheSpanOfAnAttemptIsLinkedWithTheOneBeforeWhoeverMadeIt(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spans.Close() }()
	address := serve(t, func(http.ResponseWriter, *http.Request) {})
	for _, attempt := range []int{1, 2, 3} {
		e := tracedEgress(t, address, tracing.Config{ServiceName: "controlplane", OTLPEndpoint: spans.HTTPEndpoint(), FlushInterval: time.Millisecond})
		for _, key := range []string{"order-1/charge/action", "order-1/charge/compensate"} {
			e.Call(t.Context(), &coordinator.Request{Saga: "order-1", Step: "charge", Key: key, Attempt: attempt, Trace: sampled, Call: &saga.Call{Service: "payments", Path: "/"}})
		}
		if _, err := spans.WaitForCount(t.Context(), 2*attempt); err != nil {
			t.Fatal(err)
		}
	}
	got := spans.Trace(traceID)
	if len(got) != 6 {
		t.Fatalf("%+v", got)
	}
	for i, s := range got {
		want := ""
		if i >= 2 {
			want = got[i-2].SpanID
		}
		if links := strings.Join(s.Links, " "); links != want {
			t.Errorf("span %d is linked with %q, not %q", i, links, want)
		}
	}
}

func TestWhereNoSpansAreRecordedTheTraceOfTheStartGoesOn(t *testing.T) {
	var mu sync.Mutex
	var parents []string // guarded by mu
	e := egress(t, serve(t, func(_ http.ResponseWriter, q *http.Request) {
		mu.Lock()
		parents = append(parents, q.Header.Get("traceparent"))
		mu.Unlock()
	}))
	for _, trace := range []string{sampled, ""} {
		r := request(saga.Call{})
		r.Trace = trace
		e.Call(t.Context(), r)
	}
	mu.Lock()
	defer mu.Unlock()
	if parents[0] != sampled || parents[1] != "" {
		t.Errorf("%q", parents)
	}
}
