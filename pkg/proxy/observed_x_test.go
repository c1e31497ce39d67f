package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

// observed is a rig of which all is seen: spans, access log, metrics.
type observed struct {
	*rig
	spans  *otlptest.Receiver
	tracer *tracing.Tracer
	access *accesslog.Log
	end    func() error // of the access log; may be repeated
	lines  *bytes.Buffer
}

// observe serves the endpoints behind one route, samples every trace and logs in JSON.
func observe(t *testing.T, change func(*proxy.Config), endpoints []string, options ...option) *observed {
	t.Helper()
	spans, err := otlptest.Start(otlptest.Config{GRPCAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	log := slog.New(slog.DiscardHandler)
	tracer, err := tracing.Setup(t.Context(), tracing.Config{ServiceName: "test", OTLPEndpoint: spans.GRPCEndpoint(), Ratio: 1, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	o := &observed{spans: spans, tracer: tracer, lines: &bytes.Buffer{}}
	if o.access, err = accesslog.New(accesslog.Config{Format: accesslog.JSON, Logger: log}, o.lines); err != nil {
		t.Fatal(err)
	}
	o.end = sync.OnceValue(func() error { return o.access.Close(context.Background()) })
	t.Cleanup(func() { _ = o.end() })
	o.rig = startWith(t, func(c *proxy.Config) {
		c.Tracer, c.Access = tracer, o.access
		change(c)
	}, endpoints, options...)
	return o
}

func unchanged(*proxy.Config) {}

// span returns the only span of a kind so far.
func (o *observed) span(kind string) otlptest.Span {
	o.t.Helper()
	spans := o.kinds(kind)
	if len(spans) != 1 {
		o.t.Fatalf("%d %s spans: %+v", len(spans), kind, spans)
	}
	return spans[0]
}

// kinds returns the spans of a kind so far, of which there is one at least.
func (o *observed) kinds(kind string) []otlptest.Span {
	o.t.Helper()
	// A request's span ends a moment after the client has its answer.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err := o.tracer.Flush(o.t.Context()); err != nil {
			o.t.Fatal(err)
		}
		spans := slices.DeleteFunc(slices.Clone(o.spans.Spans()), func(s otlptest.Span) bool { return s.Kind != kind })
		if len(spans) > 0 {
			return spans
		}
	}
	o.t.Fatalf("no %s span", kind)
	return nil
}

// logged ends the access log and returns its lines.
func (o *observed) logged() []map[string]any {
	o.t.Helper()
	if err := o.end(); err != nil {
		o.t.Fatal(err)
	}
	var lines []map[string]any
	for line := range strings.Lines(o.lines.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			o.t.Fatal(err)
		}
		lines = append(lines, fields)
	}
	return lines
}

func (r *rig) metrics() string {
	w := httptest.NewRecorder()
	r.counts.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func events(s otlptest.Span) []string {
	var names []string
	for _, e := range s.Events {
		names = append(names, e.Name)
	}
	return names
}

func TestEveryAnswerOfTheProxysOwnIsExplainedInBodySpanLogAndMetrics(t *testing.T) {
	dead := deadAddress(t)
	for _, c := range []struct {
		name   string
		send   string
		change func(*proxy.Config)
		option option
		status int
		reason string
		counts bool // as a request to the destination
		failed bool // the span
	}{
		{"no connection", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", unchanged, withoutBreaker, 503, "connect_failed", true, true},
		{"malformed head", "GET / HTTP/1.1\r\n\r\n", unchanged, withoutBreaker, 400, "bad_request", false, false},
		{"large head", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\n", unchanged, withoutBreaker, 431, "head_too_large", false, false},
		{"unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", unchanged, withoutBreaker, 417, "bad_request", false, false},
		{"unknown version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", unchanged, withoutBreaker, 505, "unsupported_protocol", false, true},
		{"slow head", "GET / HTTP/1.1\r\nHost", func(c *proxy.Config) { c.HeadTimeout = 200 * time.Millisecond }, withoutBreaker, 408, "head_timeout", false, false},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n", unchanged, withoutBreaker, 501, "unsupported_protocol", false, true},
		{"CONNECT to what is no service", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n", func(c *proxy.Config) { c.Connect, c.Router = true, noService{} }, withoutBreaker, 403, "external_refused", false, false},
		{"no route", "GET /elsewhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", unchanged, func(_ *mesh.Cluster, r *mesh.Route) { r.Match.Prefix = "/only" }, 404, "no_route", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := observe(t, c.change, []string{dead}, c.option)
			answer := o.raw(c.send)
			if !strings.HasPrefix(answer, fmt.Sprintf("HTTP/1.1 %d ", c.status)) || !strings.Contains(answer, "fairlead-reason: "+c.reason) ||
				!strings.Contains(answer, "("+c.reason+")\n") {
				t.Errorf("answer %q", answer)
			}
			s := o.span("server")
			if s.Attributes["fairlead.reason"] != c.reason || s.Attributes["fairlead.detail"] == "" ||
				s.Attributes["http.response.status_code"] != fmt.Sprint(c.status) || s.Failed != c.failed {
				t.Errorf("span %+v", s)
			}
			lines := o.logged()
			if len(lines) != 1 || lines[0]["reason"] != c.reason || lines[0]["status"] != float64(c.status) || lines[0]["trace_id"] != s.TraceID {
				t.Errorf("access log %v, trace %s", lines, s.TraceID)
			}
			if c.name == "slow head" && s.Duration() < 200*time.Millisecond {
				t.Errorf("it is said to have taken %v", s.Duration())
			}
			count := fmt.Sprintf(`fairlead_requests_total{code="%d",destination="c",reason="%s",source="test"} 1`, c.status, c.reason)
			if got := strings.Contains(o.metrics(), count); got != c.counts {
				t.Errorf("counted to the destination: %v\n%s", got, o.metrics())
			}
		})
	}
}

func TestRouteThatHasANameIsNamedByLogAndSpan(t *testing.T) {
	app := backend(t, func(http.ResponseWriter, *http.Request) {})
	for name, want := range map[string]any{"": nil, "canary": "canary"} {
		o := observe(t, unchanged, []string{app}, func(_ *mesh.Cluster, r *mesh.Route) { r.Name = name })
		o.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if got, said := o.span("server").Attributes["fairlead.route"]; got != name || said != (name != "") {
			t.Errorf("the span says %q (%v), want %q", got, said, name)
		}
		if lines := o.logged(); len(lines) != 1 || lines[0]["route"] != want {
			t.Errorf("the access log says %v, want %v", lines, want)
		}
	}
}

func TestBrokenResponseFailsTheSpanThoughItsStatusIsGood(t *testing.T) {
	o := observe(t, unchanged, []string{answerBroken(t)})
	o.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if s := o.span("server"); !s.Failed || s.Attributes["fairlead.reason"] != "response_broken" || s.Attributes["http.response.status_code"] != "200" {
		t.Errorf("%+v", s)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["reason"] != "response_broken" {
		t.Errorf("%v", lines)
	}
}

// answerBroken is an instance that ends in the middle of its answer.
func answerBroken(t *testing.T) string {
	t.Helper()
	return backend(t, func(w http.ResponseWriter, _ *http.Request) {
		nc, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		_ = buf.Flush()
		_ = nc.Close()
	})
}

func TestSpansDescribeARequestByTheSemanticConventions(t *testing.T) {
	app := backend(t, func(http.ResponseWriter, *http.Request) {})
	o := observe(t, unchanged, []string{app})
	o.raw("GET /orders/7?token=secret HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: test/1\r\nConnection: close\r\n\r\n")
	_, port, err := net.SplitHostPort(app)
	if err != nil {
		t.Fatal(err)
	}
	server := map[string]string{
		"http.request.method": "GET", "http.response.status_code": "200", "url.scheme": "http", "url.path": "/orders/7",
		"server.address": "::1", "server.port": "8080", "user_agent.original": "test/1", "network.protocol.version": "1.1",
		"fairlead.cluster": "c", "fairlead.instance": "i0",
	}
	if got := o.span("server").Attributes; !maps.Equal(got, server) {
		t.Errorf("server\n got %v\nwant %v", got, server)
	}
	client := maps.Clone(server)
	client["url.full"] = "http://[::1]:8080/orders/7"
	client["network.peer.address"], client["network.peer.port"] = "127.0.0.1", port
	if got := o.span("client").Attributes; !maps.Equal(got, client) {
		t.Errorf("client\n got %v\nwant %v", got, client)
	}
}

func TestTraceIsReadAndWrittenInTheStyleThatCame(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, c := range []struct {
		name   string
		fields map[string]string
		also   []string // beside traceparent
	}{
		{"W3C", map[string]string{"Traceparent": "00-" + trace + "-" + parent + "-01", "Tracestate": "v=1"}, []string{"Tracestate"}},
		{"B3 single", map[string]string{"B3": trace + "-" + parent + "-1"}, []string{"B3"}},
		{"B3 multi", map[string]string{"X-B3-TraceId": trace, "X-B3-SpanId": parent, "X-B3-Sampled": "1"},
			[]string{"X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled", "X-B3-Parentspanid"}},
		{"W3C beside B3 that cannot be read", map[string]string{"Traceparent": "00-" + trace + "-" + parent + "-01",
			"B3": strings.ToUpper(trace) + "-" + parent, "X-B3-TraceId": "what", "X-B3-SpanId": parent, "X-B3-ParentSpanId": parent}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make(chan http.Header, 1)
			o := observe(t, unchanged, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) { got <- q.Header })})
			o.do("GET", "/", nil, func(q *http.Request) {
				for name, value := range c.fields {
					q.Header.Set(name, value)
				}
			})
			h := <-got
			server, client := o.span("server"), o.span("client")
			if server.TraceID != trace || server.ParentID != parent || client.ParentID != server.SpanID {
				t.Errorf("server %+v\nclient %+v", server, client)
			}
			if want := "00-" + trace + "-" + client.SpanID + "-01"; h.Get("Traceparent") != want {
				t.Errorf("traceparent %q, want %q", h.Get("Traceparent"), want)
			}
			for _, name := range []string{"Tracestate", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Sampled", "X-B3-Parentspanid"} {
				if has := h.Get(name) != ""; has != slices.Contains(c.also, name) {
					t.Errorf("%s: %q", name, h.Get(name))
				}
			}
			if id := h.Get("B3"); id != "" && !strings.HasPrefix(id, trace+"-"+client.SpanID+"-1") {
				t.Errorf("b3 %q", id)
			}
			if id := h.Get("X-B3-Spanid"); id != "" && (id != client.SpanID || h.Get("X-B3-Traceid") != trace) {
				t.Errorf("X-B3 %v", h)
			}
		})
	}
}

func TestDebugOfB3ReachesTheInstance(t *testing.T) {
	got := make(chan http.Header, 1)
	o := observe(t, unchanged, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) { got <- q.Header })})
	o.do("GET", "/", nil, func(q *http.Request) {
		q.Header.Set("X-B3-TraceId", "0af7651916cd43dd8448eb211c80319c")
		q.Header.Set("X-B3-SpanId", "b7ad6b7169203331")
		q.Header.Set("X-B3-Flags", "1")
	})
	if h := <-got; h.Get("X-B3-Flags") != "1" || h.Get("X-B3-Sampled") != "" {
		t.Errorf("the instance got %v", h)
	}
}

// Which of two is the caller's, nobody can tell: the request begins a trace of its own.
func TestTraceThatIsGivenTwiceIsNotTaken(t *testing.T) {
	got := make(chan http.Header, 1)
	o := observe(t, unchanged, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) { got <- q.Header })})
	const first, second = "0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"
	o.raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\ntracestate: v=1\r\n" +
		"traceparent: 00-" + first + "-b7ad6b7169203331-01\r\ntraceparent: 00-" + second + "-b7ad6b7169203331-01\r\n\r\n")
	h, server := <-got, o.span("server")
	if server.TraceID == first || server.TraceID == second || server.ParentID != "" {
		t.Errorf("the span is of trace %s under %s", server.TraceID, server.ParentID)
	}
	if of := h.Values("Traceparent"); len(of) != 1 || !strings.Contains(of[0], server.TraceID) || h.Get("Tracestate") != "" {
		t.Errorf("the instance got %v and tracestate %q", of, h.Get("Tracestate"))
	}
}

func TestLogTellsBytesAndTheTimeOfTheLastAttempt(t *testing.T) {
	const pause = 150 * time.Millisecond
	var seen atomic.Int64
	o := observe(t, unchanged, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		if seen.Add(1) == 1 {
			time.Sleep(pause)
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "hello")
	})}, withoutBreaker)
	o.raw("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
	lines := o.logged()
	if len(lines) != 1 || lines[0]["bytes_in"] != 3.0 || lines[0]["bytes_out"] != 5.0 || lines[0]["retries"] != 1.0 {
		t.Fatalf("%v", lines)
	}
	whole, last := lines[0]["duration_ms"].(float64), lines[0]["upstream_ms"].(float64)
	if first := float64(pause.Milliseconds()); whole-last < first || last <= 0 {
		t.Errorf("%v ms in all, %v ms of the last attempt, which began after %v ms", whole, last, first)
	}
}

func TestChunksThatAreMalformedInTheMiddleOfAResponseBreakIt(t *testing.T) {
	o := observe(t, unchanged, []string{speaker(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "zz\r\n")})
	if got := o.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "hello") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("%q", got)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["reason"] != "response_broken" {
		t.Errorf("%v", lines)
	}
}

func TestRetryAndWhatTheBreakerDecidesAreEventsOfTheSpan(t *testing.T) {
	const open = 1500 * time.Millisecond // in which what is refused is refused
	tripping := func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: open, MaxEjectionPercent: 100}
	}
	var healthy atomic.Bool
	o := observe(t, unchanged, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(500)
		}
	})}, tripping)
	step := func(want ...string) {
		t.Helper()
		o.spans.Reset()
		o.do("GET", "/", nil)
		// Until the picker is made anew, the breaker itself refuses, and that is told, too.
		got := slices.DeleteFunc(events(o.span("server")), func(name string) bool { return name == "breaker refused" })
		if !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	}
	step("breaker open")
	step("refused")
	time.Sleep(open + 50*time.Millisecond)
	healthy.Store(true)
	step("breaker probe", "breaker closed")
	step()

	resets, _ := resetter(t, 1)
	o = observe(t, unchanged, []string{resets}, withoutBreaker)
	step("retry")
	if attempts := o.kinds("client"); len(attempts) != 2 || attempts[1].Attributes["http.request.resend_count"] != "1" {
		t.Errorf("%+v", attempts)
	}
}

func TestWhatAnAnswerSaysAboutTheInstance(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		failed bool
	}{
		{"200", func(http.ResponseWriter, *http.Request) {}, false},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, false},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, false},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true},
		{"503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, true},
		{"503 with Retry-After", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, []string{backend(t, c.answer)}, func(c *mesh.Cluster, _ *mesh.Route) {
				c.Breaker = mesh.Breaker{ConsecutiveFailures: 3, MaxEjectionPercent: 100}
			})
			for range 3 {
				r.do("GET", "/", nil)
			}
			s := r.set.Clusters()[0].Hosts()[0].Status(0)
			if open := s.Breaker.State == breaker.Open; open != c.failed || s.Failures > 0 != c.failed {
				t.Errorf("%d failures, the breaker is %s", s.Failures, s.Breaker.State)
			}
		})
	}
	// An answer that asks to come back later does not close the breaker either.
	var later atomic.Bool
	r := start(t, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if later.Load() {
			w.WriteHeader(429)
			return
		}
		w.WriteHeader(500)
	})}, func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 50 * time.Millisecond, MaxEjectionPercent: 100}
	})
	r.do("GET", "/", nil)
	later.Store(true)
	time.Sleep(100 * time.Millisecond)
	if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 429 {
		t.Fatalf("the probe got %d", resp.StatusCode)
	}
	if s := r.set.Clusters()[0].Hosts()[0].Status(1 << 62); s.Breaker.State != breaker.HalfOpen {
		t.Errorf("after a 429 the breaker is %s", s.Breaker.State)
	}
}

// What is refused for the request's sake says neither that the instance works nor
// that it does not.
func TestRefusedRequestsNeitherEndARowOfFailuresNorCloseABreaker(t *testing.T) {
	var status atomic.Int64
	r := start(t, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) })},
		func(c *mesh.Cluster, _ *mesh.Route) {
			c.Breaker = mesh.Breaker{ConsecutiveFailures: 3, OpenTime: 50 * time.Millisecond, MaxEjectionPercent: 100}
		})
	for _, s := range []int64{500, 404, 500, 400, 500} {
		status.Store(s)
		r.do("GET", "/", nil)
	}
	host := r.set.Clusters()[0].Hosts()[0]
	if s := host.Status(0); s.Failures != 3 || s.Breaker.State != breaker.Open {
		t.Fatalf("%d failures, the breaker is %s", s.Failures, s.Breaker.State)
	}
	time.Sleep(100 * time.Millisecond)
	status.Store(404)
	for range 5 { // more than there are probes: each is given back
		if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 404 {
			t.Fatalf("a probe got %d", resp.StatusCode)
		}
	}
	if s := host.Status(1 << 62); s.Breaker.State != breaker.HalfOpen {
		t.Errorf("after a 404 the breaker is %s", s.Breaker.State)
	}
}

func TestClientThatLeavesIsNotHeldAgainstTheInstance(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, []string{backend(t, func(_ http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
	})}, func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
	})
	defer close(release)
	nc := r.dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	_ = nc.Close()
	for deadline := time.Now().Add(patience); r.set.Clusters()[0].Active() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request goes on")
		}
	}
	if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 0 || s.Breaker.State != breaker.Closed {
		t.Errorf("%d failures, the breaker is %s", s.Failures, s.Breaker.State)
	}
}

func TestFormOfTheProxysOwnAnswerIsTheClientsChoice(t *testing.T) {
	r := start(t, []string{deadAddress(t)}, withoutBreaker)
	for _, c := range []struct {
		accept []string
		json   bool
	}{
		{nil, false},
		{[]string{"*/*"}, false},
		{[]string{"application/json"}, true},
		{[]string{"Application/JSON ; charset=utf-8"}, true},
		{[]string{"application/*"}, true},
		{[]string{"text/plain, application/json"}, true},
		{[]string{"text/plain, application/json;q=0.5"}, false},
		{[]string{"text/*;q=0.1, application/json;q=0.5"}, true},
		{[]string{"application/json;q=0"}, false},
		{[]string{"text/html", "application/json"}, true},
		{[]string{"application/jsonp"}, false},
		{[]string{"application/json;q=many"}, true},
	} {
		resp, body := r.do("GET", "/", nil, func(q *http.Request) { q.Header["Accept"] = c.accept })
		if got := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json"); got != c.json || json.Valid([]byte(body)) != c.json {
			t.Errorf("Accept %q: %s, %q", c.accept, resp.Header.Get("Content-Type"), body)
		}
	}
}

func TestOnlySidecarsGiveReasons(t *testing.T) {
	claims := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Fairlead-Reason", "no_endpoints") })
	for name, endpoint := range map[string]string{"an application": claims, "an application behind its sidecar": inbound(t, claims)} {
		var options []option
		if endpoint != claims {
			options = append(options, behindSidecars)
		}
		r := start(t, []string{endpoint}, options...)
		if resp, _ := r.do("GET", "/", nil); resp.Header.Get("Fairlead-Reason") != "" {
			t.Errorf("%s gave a reason: %v", name, resp.Header)
		}
	}
	dying, _ := dying(t)
	o := observe(t, unchanged, []string{inbound(t, dying)}, behindSidecars, withoutBreaker)
	if resp, _ := o.do("POST", "/", nil); resp.StatusCode != 502 || resp.Header.Get("Fairlead-Reason") != "upstream_reset" {
		t.Errorf("the sidecar's own reason: %d %v", resp.StatusCode, resp.Header)
	}
	if s := o.span("server"); s.Attributes["fairlead.reason"] != "upstream_reset" {
		t.Errorf("the caller's span: %+v", s)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["reason"] != "upstream_reset" {
		t.Errorf("the caller's log: %v", lines)
	}
	if !strings.Contains(o.metrics(), `code="502",destination="c",reason="upstream_reset"`) {
		t.Errorf("the caller's metrics:\n%s", o.metrics())
	}
}

func TestResponseThatIsNotHTTPIsSaidWithItsFault(t *testing.T) {
	for answer, fault := range map[string]string{
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n": "switches protocols unasked",
		"SSH-2.0-server\r\n": "not HTTP",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": "Content-Length",
		"HTTP/1.1 200 OK\r\nContent-": "broke off in its head",
	} {
		r := start(t, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) {
			nc, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = buf.WriteString(answer)
			_ = buf.Flush()
			_ = nc.Close()
		})}, withoutBreaker)
		resp, body := r.do("POST", "/", nil)
		if resp.StatusCode != 502 || resp.Header.Get("Fairlead-Reason") != "upstream_protocol" || !strings.Contains(body, fault) {
			t.Errorf("%q: %d %q, want %q", answer, resp.StatusCode, body, fault)
		}
	}
}

func TestRequestThatTheStopCutsOffIsLoggedAsThat(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	o := observe(t, unchanged, []string{backend(t, func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	})})
	defer close(release)
	_, _ = io.WriteString(o.dial(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if cut := o.server.Drain(ctx); cut != 1 {
		t.Errorf("%d were cut off", cut)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["reason"] != "stopped" {
		t.Errorf("%v", lines)
	}
}

func TestOnlySidecarsAreToldThatASidecarCalls(t *testing.T) {
	told := make(chan string, 1)
	app := backend(t, func(_ http.ResponseWriter, q *http.Request) { told <- q.Header.Get("Fairlead-Peer") })
	for want, options := range map[string][]option{"": nil, "1": {behindSidecars}} {
		r := start(t, []string{app}, options...)
		r.do("GET", "/", nil, func(q *http.Request) { q.Header.Set("Fairlead-Peer", "7") })
		if got := <-told; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}
