package tracing

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixedTime() time.Time { return time.Unix(1700000000, 123456789) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func startReceiver(t *testing.T) *otlptest.Receiver {
	t.Helper()
	r, err := otlptest.Start(otlptest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func setup(t *testing.T, c Config) *Tracer {
	t.Helper()
	tracer, err := Setup(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	return tracer
}

func TestSpansArriveOverBothTransportsWithTheIdsOfTheHeaders(t *testing.T) {
	receiver := startReceiver(t)
	for name, endpoint := range map[string]string{
		"grpc": receiver.GRPCEndpoint(), "http": receiver.HTTPEndpoint(),
		"http with a path": receiver.HTTPEndpoint() + "/v1/traces",
	} {
		t.Run(name, func(t *testing.T) {
			receiver.Reset()
			tracer := setup(t, Config{
				ServiceName: "orders", Namespace: "default", InstanceID: "a1", OTLPEndpoint: endpoint,
			})
			remote, _ := Extract(&Incoming{
				TraceParent: []byte("00-" + traceHex + "-" + spanHex + "-01"), TraceState: []byte("vendor=1"),
			})
			s := tracer.ChildOfRemote(&remote)
			c := tracer.Child(&s)
			server := tracer.StartServer(&s, serverRequest(), fixedTime())
			client := tracer.StartClient(&c, clientRequest(), fixedTime().Add(time.Millisecond))
			client.SetPeer(netip.MustParseAddrPort("127.0.0.1:9000"))
			client.Set(String(AttrInstance, "a2"))
			client.SetResend(1)
			client.Event("retry", fixedTime().Add(2*time.Millisecond), Int("attempt", 1))
			client.SetStatus(404)
			client.End(fixedTime().Add(3 * time.Millisecond))
			server.SetStatus(404)
			server.End(fixedTime().Add(4 * time.Millisecond))
			if err := tracer.Shutdown(testContext(t)); err != nil {
				t.Fatal(err)
			}
			spans := receiver.Trace(traceHex)
			if len(spans) != 2 {
				t.Fatalf("%d spans: %+v", len(spans), spans)
			}
			expectServer(t, &spans[0], &s)
			expectClient(t, &spans[1], &c)
			if got := tracer.Stats(); got != (Stats{Exported: 2}) {
				t.Errorf("stats %+v", got)
			}
		})
	}
}

func clientRequest() *Request {
	return &Request{Method: "GET", Scheme: "http", Host: "::1", Path: "/orders/7"}
}

func serverRequest() *Request {
	return &Request{
		Method: "GET", Scheme: "http", Path: "/orders/1", Host: "orders.default", Port: 80,
		UserAgent: "curl/8", Protocol: "1.1", Peer: netip.MustParseAddrPort("[::ffff:10.0.0.1]:5000"),
	}
}

func expectServer(t *testing.T, got *otlptest.Span, c *Context) {
	t.Helper()
	if got.SpanID != hex.EncodeToString(c.SpanID[:]) || got.ParentID != spanHex || got.Kind != "server" ||
		got.Name != "GET" || got.State != "vendor=1" || got.Failed || got.Duration() != 4*time.Millisecond {
		t.Errorf("server %+v", got)
	}
	if got.Service != "orders" || got.Resource["service.namespace"] != "default" || got.Resource["service.instance.id"] != "a1" {
		t.Errorf("resource %v", got.Resource)
	}
	want := map[string]string{
		"http.request.method": "GET", "http.response.status_code": "404", "url.scheme": "http", "url.path": "/orders/1",
		"server.address": "orders.default", "server.port": "80", "user_agent.original": "curl/8",
		"network.protocol.version": "1.1", "network.peer.address": "10.0.0.1", "network.peer.port": "5000",
	}
	if !maps.Equal(got.Attributes, want) {
		t.Errorf("server attributes\n got %v\nwant %v", got.Attributes, want)
	}
}

func expectClient(t *testing.T, got *otlptest.Span, c *Context) {
	t.Helper()
	if got.SpanID != hex.EncodeToString(c.SpanID[:]) || got.ParentID != hex.EncodeToString(c.ParentID[:]) ||
		got.Kind != "client" || !got.Failed || !got.Start.Equal(fixedTime().Add(time.Millisecond)) {
		t.Errorf("client %+v", got)
	}
	want := map[string]string{
		"http.request.method": "GET", "http.response.status_code": "404", "error.type": "404",
		"http.request.resend_count": "1", "network.peer.address": "127.0.0.1", "network.peer.port": "9000",
		"fairlead.instance": "a2", "server.address": "::1", "server.port": "80",
		"url.scheme": "http", "url.path": "/orders/7", "url.full": "http://[::1]/orders/7",
	}
	if !maps.Equal(got.Attributes, want) {
		t.Errorf("client attributes\n got %v\nwant %v", got.Attributes, want)
	}
	if len(got.Events) != 1 || got.Events[0].Name != "retry" ||
		!maps.Equal(got.Events[0].Attributes, map[string]string{"attempt": "1"}) {
		t.Errorf("events %+v", got.Events)
	}
}

func TestRootSpanHasTheChosenIdsAndHostileTextIsExported(t *testing.T) {
	receiver := startReceiver(t)
	tracer := setup(t, Config{ServiceName: "s", OTLPEndpoint: receiver.GRPCEndpoint()})
	// Debug makes it sampled although the ratio is 0.
	c := tracer.ChildOfRemote(&Context{Sampling: SamplingDebug})
	span := tracer.StartServer(&c, &Request{Method: "G\xffT", Path: "/\xfe" + strings.Repeat("é", 2000)}, fixedTime())
	span.Fail("no_host", "No instance of \xff is left.")
	span.Event("\xff", fixedTime(), String("k", "\xff"))
	span.End(fixedTime())
	if err := tracer.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	spans, err := receiver.WaitForCount(testContext(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	got := spans[0]
	if got.TraceID != hex.EncodeToString(c.TraceID[:]) || got.SpanID != hex.EncodeToString(c.SpanID[:]) || got.ParentID != "" {
		t.Errorf("ids of %+v, want those of %+v", got, c)
	}
	if got.Name != "HTTP" || got.Attributes["http.request.method"] != "_OTHER" ||
		got.Attributes["http.request.method_original"] != "G\uFFFDT" {
		t.Errorf("method of %+v", got)
	}
	if got.Attributes["error.type"] != "no_host" || got.Message != "No instance of \uFFFD is left." || !got.Failed {
		t.Errorf("failure of %+v", got)
	}
	if n := len(got.Attributes["url.path"]); n > maxValue+4 {
		t.Errorf("path of %d bytes", n)
	}
}

func TestFullQueueDropsAndCountsAndDoesNotBlock(t *testing.T) {
	const queue, spans = 10, 100
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	tracer := setup(t, Config{ServiceName: "s", Ratio: 1, Queue: queue, OTLPEndpoint: "http://" + silent.Addr().String()})
	for range spans {
		c := tracer.Child(&Context{})
		tracer.StartServer(&c, &Request{Method: "GET"}, fixedTime()).End(fixedTime())
	}
	if got := tracer.Stats().Dropped; got != spans-queue {
		t.Errorf("dropped %d, want %d", got, spans-queue)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tracer.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown is not bounded by its context: %v", err)
	}
	silent.Close() // breaks the export that is under way
}

func TestFailedExportsAreCountedAndReportedOnce(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusBadRequest) // not retried
	}))
	defer refusing.Close()
	var log bytes.Buffer
	tracer := setup(t, Config{
		ServiceName: "s", Ratio: 1, OTLPEndpoint: refusing.URL, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 3 {
		c := tracer.Child(&Context{})
		tracer.StartServer(&c, &Request{Method: "GET"}, fixedTime()).End(fixedTime())
		if err := tracer.Flush(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tracer.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c := tracer.Child(&Context{})
	tracer.StartServer(&c, &Request{Method: "GET"}, fixedTime()).End(fixedTime())
	if got := tracer.Stats(); got != (Stats{Failed: 3, Dropped: 1}) {
		t.Errorf("stats %+v", got)
	}
	if got := strings.Count(log.String(), "cannot be exported"); got != 1 {
		t.Errorf("reported %d times:\n%s", got, log.String())
	}
}

func TestWithoutEndpointNothingIsRecorded(t *testing.T) {
	tracer := setup(t, Config{ServiceName: "s", Ratio: 1})
	c := tracer.Child(&Context{Sampling: SamplingYes})
	if tracer.Enabled() || tracer.StartServer(&c, &Request{Method: "GET"}, fixedTime()) != nil {
		t.Error("a tracer without endpoint records")
	}
}

func TestEndpointIsCheckedWithoutATracer(t *testing.T) {
	for _, endpoint := range []string{"", "grpc://a:4317", "grpcs://a:4317/", "http://[::1]:4318", "https://a:4318/v1/spans"} {
		if err := CheckEndpoint(endpoint); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if err := CheckEndpoint("nowhere"); !errors.Is(err, ErrEndpoint) {
		t.Error(err)
	}
}

func TestEndpointsThatCannotBeReadAreRefused(t *testing.T) {
	for _, endpoint := range []string{
		"localhost:4317", "ftp://localhost:4317", "grpc://localhost", "grpc://localhost:4317/path",
		"http://user@localhost:4318", "http://localhost:4318?x=y", "http://[::1", "grpc://", "grpc://:4317", "http://localhost:0", "http://localhost:65536", "http://localhost:",
	} {
		if _, err := Setup(t.Context(), Config{OTLPEndpoint: endpoint}); !errors.Is(err, ErrEndpoint) {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
	for _, endpoint := range []string{"grpcs://localhost:4317", "https://localhost:4318", "grpc://[::1]:4317/"} {
		setup(t, Config{OTLPEndpoint: endpoint})
	}
}

func TestRESTRequestAndTheGRPCCallBelowItAreOneTrace(t *testing.T) {
	for _, ratio := range []float64{0, 1} { // which is for whom nobody has decided
		t.Run(fmt.Sprint("ratio ", ratio), func(t *testing.T) {
			receiver := startReceiver(t)
			tracer := setup(t, Config{ServiceName: "control", OTLPEndpoint: receiver.GRPCEndpoint(), Ratio: ratio})
			server := grpc.NewServer(tracer.ServerOption("/grpc.health.v1.Health/Watch"))
			healthpb.RegisterHealthServer(server, health.NewServer())
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = server.Serve(listener) }()
			defer server.Stop()
			conn, err := grpc.NewClient(listener.Addr().String(),
				grpc.WithTransportCredentials(insecure.NewCredentials()), tracer.DialOption("/grpc.health.v1.Health/Watch"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := healthpb.NewHealthClient(conn)
			rest := httptest.NewServer(tracer.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := client.Check(r.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Errorf("check: %v", err)
				}
				watch, cancel := context.WithCancel(r.Context())
				if stream, err := client.Watch(watch, &healthpb.HealthCheckRequest{}); err == nil {
					_, _ = stream.Recv()
				}
				cancel()
				w.WriteHeader(http.StatusTeapot)
				w.(http.Flusher).Flush()
			})))
			defer rest.Close()
			for _, sampled := range []string{"00", "01"} {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, rest.URL+"/v1/services?secret=x", nil)
				req.Header.Set("traceparent", "00-"+traceHex+"-"+spanHex+"-"+sampled)
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusTeapot {
					t.Fatalf("status %d", resp.StatusCode)
				}
			}
			http.DefaultTransport.(*http.Transport).CloseIdleConnections()
			rest.Close()
			server.GracefulStop()
			if err := tracer.Shutdown(testContext(t)); err != nil {
				t.Fatal(err)
			}
			spans := receiver.Trace(traceHex)
			if len(spans) != 3 || receiver.Total() != 3 {
				t.Fatalf("%d spans of %d: %+v", len(spans), receiver.Total(), spans)
			}
			byKind := map[string]otlptest.Span{}
			for _, s := range spans {
				byKind[s.Kind+" "+s.Name] = s
			}
			outer, call, handled := byKind["server GET"], byKind["client grpc.health.v1.Health/Check"], byKind["server grpc.health.v1.Health/Check"]
			if outer.ParentID != spanHex || call.ParentID != outer.SpanID || handled.ParentID != call.SpanID {
				t.Errorf("the tree is broken: %+v", spans)
			}
			if outer.Attributes["http.response.status_code"] != "418" || outer.Attributes["url.path"] != "/v1/services" {
				t.Errorf("attributes %v", outer.Attributes)
			}
		})
	}
}

func TestWhereNobodyRecordsSpansTheCallersGoesOnToTheGRPCCallBelow(t *testing.T) {
	tracer := setup(t, Config{})
	got := make(chan string, 1)
	server := grpc.NewServer(tracer.ServerOption(), grpc.UnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		place, ok := FromContext(ctx)
		got <- fmt.Sprint(ok, " ", string(AppendTraceParent(nil, &place)))
		return next(ctx, q)
	}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), tracer.DialOption())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	rest := tracer.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := client.Check(r.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	}))
	for parent, want := range map[string]string{
		"00-" + traceHex + "-" + spanHex + "-01": "true 00-" + traceHex + "-" + spanHex + "-01",
		"00-" + traceHex + "-" + spanHex + "-00": "true 00-" + traceHex + "-" + spanHex + "-00",
		"":                                       "false 00-" + zero32 + "-" + zero16 + "-00",
	} {
		q := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		if parent != "" {
			q.Header.Set("traceparent", parent)
		}
		rest.ServeHTTP(httptest.NewRecorder(), q)
		if s := <-got; s != want {
			t.Errorf("of %q came %s, want %s", parent, s, want)
		}
	}
}

func TestWhatARequestIsHandledInCanBeTheParentOfOthers(t *testing.T) {
	receiver := startReceiver(t)
	recording, disabled := setup(t, Config{OTLPEndpoint: receiver.HTTPEndpoint(), Ratio: 1}), setup(t, Config{})
	for name, c := range map[string]struct {
		tracer *Tracer
		parent string
		want   string // TRACE, SPAN of the caller, flags; * is a new one
	}{
		"sampled":               {recording, "00-" + traceHex + "-" + spanHex + "-01", traceHex + " * 01"},
		"not sampled":           {recording, "00-" + traceHex + "-" + spanHex + "-00", traceHex + " * 00"},
		"of nobody":             {recording, "", "* * 01"},
		"disabled":              {disabled, "00-" + traceHex + "-" + spanHex + "-01", traceHex + " " + spanHex + " 01"},
		"disabled, not sampled": {disabled, "00-" + traceHex + "-" + spanHex + "-00", traceHex + " " + spanHex + " 00"},
		"disabled, of nobody":   {disabled, "", ""},
	} {
		got := ""
		q := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		if c.parent != "" {
			q.Header.Set("traceparent", c.parent)
		}
		c.tracer.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			place, ok := FromContext(r.Context())
			if !ok {
				return
			}
			parts := strings.Split(string(AppendTraceParent(nil, &place)), "-")
			if parts[1] != traceHex {
				parts[1] = "*"
			}
			if parts[2] != spanHex {
				parts[2] = "*"
			}
			got = strings.Join(parts[1:], " ")
		})).ServeHTTP(httptest.NewRecorder(), q)
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if err := recording.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
}
