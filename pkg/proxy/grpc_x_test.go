package proxy_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// http2Version is what gRPC speaks.
var http2Version = versions[1]

func overGRPC(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = mesh.ProtocolGRPC }

// message frames a message of gRPC's.
func message(body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body)))) + body
}

// called is how a call ended.
type called struct {
	*http.Response
	body     string
	status   string
	text     string
	trailers bool // the status came behind a body
}

// rpcOf sends a call with net/http's HTTP/2, which knows nothing of gRPC.
func rpcOf(t *testing.T, addr, path, contentType, body string, fields ...string) called {
	t.Helper()
	q := newRequest(t, "POST", "http://"+addr+path, strings.NewReader(body))
	q.Header.Set("Content-Type", contentType)
	q.Header.Set("TE", "trailers")
	for i := 0; i < len(fields); i += 2 {
		q.Header.Add(fields[i], fields[i+1])
	}
	a, err := http2Version.client(t).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	return ended(t, a)
}

// ended reads a call's answer to its end.
func ended(t *testing.T, a *http.Response) called {
	t.Helper()
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatalf("the body breaks off after %q: %v", body, err)
	}
	from, trailers := a.Header, a.Trailer.Get("Grpc-Status") != ""
	if trailers {
		from = a.Trailer
	}
	text, err := url.PathUnescape(from.Get("Grpc-Message"))
	if err != nil {
		t.Errorf("grpc-message %q: %v", from.Get("Grpc-Message"), err)
	}
	return called{a, string(body), from.Get("Grpc-Status"), text, trailers}
}

// answerCall answers as a gRPC server does that has one message and a status.
func answerCall(status int, text string, extra ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("Content-Type", "application/grpc+proto")
		_, _ = io.WriteString(w, message("hello"))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(status))
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", text)
		for i := 0; i < len(extra); i += 2 {
			w.Header().Set(http.TrailerPrefix+extra[i], extra[i+1])
		}
	}
}

func TestEveryAnswerOfTheProxysOwnToACallIsAStatus(t *testing.T) {
	hangs := make(chan struct{})
	hanging := http2Version.backend(t, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-hangs:
		case <-q.Context().Done():
		}
	})
	t.Cleanup(func() { close(hangs) })
	direct := func(status int) option {
		return func(_ *mesh.Cluster, r *mesh.Route) {
			r.Action = mesh.RouteAction{Direct: &mesh.DirectResponse{Status: status, Body: "100% away"}}
		}
	}
	for _, c := range []struct {
		name     string
		endpoint string
		fields   []string
		option   option
		status   rpc.Code
		reason   string
	}{
		{"no connection", deadAddress(t), nil, withoutBreaker, rpc.Unavailable, "connect_failed"},
		{"no route", hanging, nil, func(_ *mesh.Cluster, r *mesh.Route) { r.Match.Prefix = "/only" }, rpc.Unimplemented, "no_route"},
		{"request timeout", hanging, nil, timeout(100 * time.Millisecond), rpc.DeadlineExceeded, "request_timeout"},
		{"deadline", hanging, []string{"Grpc-Timeout", "100m"}, withoutBreaker, rpc.DeadlineExceeded, "request_timeout"},
		{"deadline that has passed", hanging, []string{"Grpc-Timeout", "0n"}, withoutBreaker, rpc.DeadlineExceeded, "request_timeout"},
		{"malformed deadline", hanging, []string{"Grpc-Timeout", "1 second"}, withoutBreaker, rpc.Internal, "bad_request"},
		{"two deadlines", hanging, []string{"Grpc-Timeout", "1S", "Grpc-Timeout", "2S"}, withoutBreaker, rpc.Internal, "bad_request"},
		{"direct response", hanging, nil, direct(403), rpc.PermissionDenied, ""},
		{"direct response without content", hanging, nil, direct(204), rpc.Unknown, ""},
	} {
		for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web+proto", "application/grpc-web-text"} {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				r := start(t, []string{c.endpoint}, overGRPC, c.option)
				body := message("x")
				if strings.Contains(kind, "text") {
					body = "AAAAAAF4"
				}
				a := rpcOf(t, r.addr, "/a.B/C", kind, body, c.fields...)
				if a.StatusCode != 200 || a.Header.Get("Content-Type") != kind || a.body != "" || a.trailers || a.Header.Get("Content-Length") != "" {
					t.Errorf("%d %v %q", a.StatusCode, a.Header, a.body)
				}
				if a.status != fmt.Sprint(int(c.status)) || a.Header.Get("Fairlead-Reason") != c.reason {
					t.Errorf("status %s %q, reason %q", a.status, a.text, a.Header.Get("Fairlead-Reason"))
				}
				if c.reason != "" && (!strings.HasPrefix(a.text, "fairlead: ") || !strings.HasSuffix(a.text, "("+c.reason+")")) || c.reason == "" && a.text != "100% away" {
					t.Errorf("message %q", a.text)
				}
				if c.reason == "request_timeout" && strings.Contains(a.text, "grpc-timeout") != strings.HasPrefix(c.name, "deadline") {
					t.Errorf("whose time was over? %q", a.text)
				}
			})
		}
	}
}

func TestWhatOnlyResemblesACallGetsAPlainAnswer(t *testing.T) {
	r := start(t, []string{deadAddress(t)}, overGRPC, withoutBreaker)
	for _, kind := range []string{"application/grpcx", "application/json", ""} {
		if a := rpcOf(t, r.addr, "/a.B/C", kind, "x"); a.StatusCode != 503 || a.status != "" || !strings.Contains(a.body, "(connect_failed)") {
			t.Errorf("%q: %d %q %q", kind, a.StatusCode, a.status, a.body)
		}
	}
	q := newRequest(t, "PUT", "http://"+r.addr, nil)
	q.Header.Set("Content-Type", "application/grpc")
	if a, _ := do(t, http2Version.client(t), q); a.StatusCode != 503 || a.Header.Get("Grpc-Status") != "" {
		t.Errorf("PUT: %d %v", a.StatusCode, a.Header)
	}
}

// afterAll returns what is known of the only instance once n requests that it answered
// have been counted, of which a client may know a moment earlier.
func (r *rig) afterAll(n int) upstream.Status {
	r.t.Helper()
	line := fmt.Sprintf("fairlead_requests_total{code=\"200\",destination=\"c\",reason=\"none\",source=\"test\"} %d\n", n)
	for deadline := time.Now().Add(patience); !strings.Contains(r.metrics(), line); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d requests were not counted:\n%s", n, r.metrics())
		}
	}
	return r.set.Clusters()[0].Hosts()[0].Status(0)
}

func TestTheTrailersDecideWhatACallSaysAboutTheInstance(t *testing.T) {
	const failure, success, ignored = 2, 0, 1 // failures in a row, after one
	want := map[rpc.Code]int{
		rpc.OK: success, rpc.Unknown: failure, rpc.DeadlineExceeded: ignored, rpc.Internal: failure, rpc.Unavailable: failure, rpc.DataLoss: failure,
	}
	for code := range rpc.NoCode {
		expected, ok := want[code]
		if !ok {
			expected = ignored
		}
		for _, only := range []bool{false, true} {
			var next http.HandlerFunc
			r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) { next(w, q) })}, overGRPC, withBreaker)
			next = answerCall(14, "")
			rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x"))
			if r.afterAll(1).Breaker.ConsecutiveFailures != 1 {
				t.Fatal("UNAVAILABLE is no failure")
			}
			next = answerCall(int(code), "")
			if only {
				next = func(w http.ResponseWriter, q *http.Request) {
					w.Header().Set("Content-Type", "application/grpc")
					w.Header().Set("Grpc-Status", strconv.Itoa(int(code)))
				}
			}
			if a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x")); a.status != strconv.Itoa(int(code)) || a.trailers == only {
				t.Errorf("%s: status %q, behind a body: %t", code, a.status, a.trailers)
			}
			if got := r.afterAll(2).Breaker.ConsecutiveFailures; got != expected {
				t.Errorf("%s, trailers only: %t: %d failures in a row, not %d", code, only, got, expected)
			}
		}
	}
}

func TestInstanceThatAsksToBeTriedLaterHasNotFailed(t *testing.T) {
	r := start(t, []string{http2Version.backend(t, answerCall(14, "", "Grpc-Retry-Pushback-Ms", "1000"))}, overGRPC, withBreaker)
	if a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x")); a.status != "14" || a.Trailer.Get("Grpc-Retry-Pushback-Ms") != "1000" {
		t.Errorf("status %q, trailers %v", a.status, a.Trailer)
	}
	if s := r.afterAll(1); s.Failures != 0 {
		t.Errorf("%d failures", s.Failures)
	}
}

func TestInstanceThatLetsDeadlinesPassFails(t *testing.T) {
	for sent, failures := range map[string]uint64{"150m": 1, "20m": 0} { // a caller in such a hurry says nothing
		r := start(t, []string{http2Version.backend(t, func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })}, overGRPC, withBreaker)
		if a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x"), "Grpc-Timeout", sent); a.status != "4" {
			t.Errorf("status %q", a.status)
		}
		if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != failures || s.Breaker.State != breaker.Closed {
			t.Errorf("%s: %d failures", sent, s.Failures)
		}
	}
}

func TestStatusOfACallIsInLogMetricsAndSpans(t *testing.T) {
	o := observe(t, func(*proxy.Config) {}, []string{http2Version.backend(t, answerCall(13, "broken"))}, overGRPC)
	if a := rpcOf(t, o.addr, "/shop.Orders/Get", "application/grpc", message("x")); a.status != "13" || a.text != "broken" || a.body != message("hello") {
		t.Errorf("status %q %q, body %q", a.status, a.text, a.body)
	}
	for _, kind := range []string{"server", "client"} {
		s := o.span(kind)
		for key, want := range map[string]string{
			"rpc.system.name": "grpc", "rpc.method": "shop.Orders/Get", "rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL", "http.response.status_code": "200",
		} {
			if got := s.Attributes[key]; got != want {
				t.Errorf("%s: %s is %q", kind, key, got)
			}
		}
		if !s.Failed {
			t.Errorf("%s: it did not fail", kind)
		}
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["grpc_status"] != "INTERNAL" || lines[0]["status"] != 200.0 {
		t.Errorf("log %v", lines)
	}
	if m := o.metrics(); !strings.Contains(m, `fairlead_grpc_calls_total{destination="c",grpc_status="INTERNAL",source="test"} 1`) {
		t.Errorf("metrics %s", m)
	}
}

func TestWhatIsLeftOfADeadlineGoesOn(t *testing.T) {
	saw := make(chan string, 1)
	r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) {
		saw <- q.Header.Get("Grpc-Timeout")
		answerCall(0, "")(w, q)
	})}, overGRPC)
	for _, sent := range []string{"10S", "99999999n", "3H"} {
		if a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x"), "Grpc-Timeout", sent); a.status != "0" {
			t.Fatalf("status %q %q", a.status, a.text)
		}
		before, _ := rpc.ParseTimeout([]byte(sent))
		text := <-saw
		if after, ok := rpc.ParseTimeout([]byte(text)); !ok || after <= 0 || after > before || after == before && before < time.Hour {
			t.Errorf("%s became %q", sent, text)
		}
	}
	if rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x")); <-saw != "" {
		t.Error("a deadline that nobody has set went on")
	}
}

func TestDeadlineThatPassesEndsTheCallAtTheInstance(t *testing.T) {
	began, over := make(chan struct{}, 1), make(chan struct{}, 1)
	r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = io.WriteString(w, message("hello"))
			_ = http.NewResponseController(w).Flush()
		}
		began <- struct{}{}
		<-q.Context().Done()
		over <- struct{}{}
	})}, overGRPC)
	for _, path := range []string{"/unary", "/stream"} {
		a := rpcOf(t, r.addr, path, "application/grpc", message("x"), "Grpc-Timeout", "900m") // in which the head comes
		if a.status != "4" || a.trailers != (path == "/stream") || !strings.Contains(a.text, "(request_timeout)") {
			t.Errorf("%s: status %q %q", path, a.status, a.text)
		}
		<-began
		select {
		case <-over:
		case <-time.After(patience):
			t.Errorf("%s: the instance was not told", path)
		}
	}
}

// stream is a call both of whose sides are open.
type stream struct {
	t    *testing.T
	send *io.PipeWriter
	*http.Response
}

func openStream(t *testing.T, addr string, fields ...string) *stream {
	t.Helper()
	pr, pw := io.Pipe()
	q := newRequest(t, "POST", "http://"+addr+"/a.B/Stream", pr)
	q.Header.Set("Content-Type", "application/grpc")
	for i := 0; i < len(fields); i += 2 {
		q.Header.Add(fields[i], fields[i+1])
	}
	client := http2Version.client(t)
	s := &stream{t: t, send: pw}
	answered := make(chan error, 1)
	go func() {
		var err error
		s.Response, err = client.Do(q)
		answered <- err
	}()
	t.Cleanup(func() { _ = pw.Close() })
	s.write("first")
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stream) write(body string) {
	s.t.Helper()
	if _, err := io.WriteString(s.send, message(body)); err != nil {
		s.t.Error(err)
	}
}

func (s *stream) read(want string) {
	s.t.Helper()
	got := make([]byte, len(message(want)))
	if _, err := io.ReadFull(s.Body, got); err != nil || string(got) != message(want) {
		s.t.Errorf("got %q, %v", got, err)
	}
}

// echoCalls answers each message by itself, the first one after a wait.
func echoCalls(wait time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		time.Sleep(wait)
		w.Header().Set("Content-Type", "application/grpc")
		buf := make([]byte, 4096)
		for {
			n, err := q.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}
}

func TestStreamOutlivesTheRoutesTimeoutAndTheStallTimeout(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { c.StallTimeout = 300 * time.Millisecond },
		[]string{http2Version.backend(t, echoCalls(600*time.Millisecond))}, overGRPC, timeout(200*time.Millisecond))
	s := openStream(t, r.addr)
	s.read("first")
	time.Sleep(900 * time.Millisecond) // nobody says anything, for longer than the watchdog takes to see it
	s.write("second")
	s.read("second")
	_ = s.send.Close()
	if a := ended(t, s.Response); a.status != "0" || a.body != "" {
		t.Errorf("status %q %q, %q", a.status, a.text, a.body)
	}
}

func TestCallThatIsSentWholeIsBoundByTheRoutesTimeoutUntilItsResponseBegins(t *testing.T) {
	for _, at := range []string{"at once", "later"} {
		t.Run(at, func(t *testing.T) {
			r := start(t, []string{http2Version.backend(t, func(_ http.ResponseWriter, q *http.Request) {
				_, _ = io.Copy(io.Discard, q.Body)
				<-q.Context().Done()
			})}, overGRPC, timeout(100*time.Millisecond))
			pr, pw := io.Pipe()
			q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", pr)
			q.Header.Set("Content-Type", "application/grpc")
			go func() {
				_, _ = io.WriteString(pw, message("one"))
				if at == "later" {
					time.Sleep(300 * time.Millisecond)
				}
				_ = pw.Close()
			}()
			a, err := http2Version.client(t).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			if a := ended(t, a); a.status != "4" || a.Header.Get("Fairlead-Reason") != "request_timeout" {
				t.Errorf("status %q %q", a.status, a.text)
			}
		})
	}
}

func TestCallWhoseResponseBreaksOffEndsWithAStatus(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(net.Conn)
		status rpc.Code
		length string
	}{
		"the stream is reset":                        {end: nil, status: rpc.Internal}, // RST_STREAM(INTERNAL_ERROR)
		"the stream is reset before its length":      {status: rpc.Internal, length: "1000"},
		"the connection is closed":                   {end: func(c net.Conn) { _ = c.Close() }, status: rpc.Unavailable},
		"the connection is closed before its length": {end: func(c net.Conn) { _ = c.Close() }, status: rpc.Unavailable, length: "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var last net.Conn
			addr := http2Version.backendOn(t, func(w http.ResponseWriter, q *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				if c.length != "" {
					w.Header().Set("Content-Length", c.length)
				}
				_, _ = io.WriteString(w, message("hello"))
				_ = http.NewResponseController(w).Flush()
				if c.end == nil {
					panic(http.ErrAbortHandler)
				}
				if _, err := q.Body.Read(make([]byte, 100)); err != nil { // the client has seen the message
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				c.end(last)
			}, func(nc net.Conn) {
				mu.Lock()
				last = nc
				mu.Unlock()
			})
			o := observe(t, unchanged, []string{addr}, overGRPC, withBreaker)
			pr, pw := io.Pipe()
			q := newRequest(t, "POST", "http://"+o.addr+"/a.B/C", pr)
			q.Header.Set("Content-Type", "application/grpc")
			a, err := http2Version.client(t).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(message("hello")))
			if _, err := io.ReadFull(a.Body, got); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.WriteString(pw, "go on") }()
			end := ended(t, a)
			_ = pw.Close()
			if end.status != fmt.Sprint(int(c.status)) || !strings.HasSuffix(end.text, "(response_broken)") {
				t.Errorf("status %q %q", end.status, end.text)
			}
			o.span("server")
			if lines := o.logged(); len(lines) != 1 || lines[0]["grpc_status"] != c.status.String() || lines[0]["reason"] != "response_broken" {
				t.Errorf("log %v", lines)
			}
			if s := o.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 1 {
				t.Errorf("%d failures", s.Failures)
			}
		})
	}
}

func TestClientThatGivesACallUpIsCancelledInTheLog(t *testing.T) {
	began := make(chan struct{})
	o := observe(t, unchanged, []string{http2Version.backend(t, func(_ http.ResponseWriter, q *http.Request) { close(began); <-q.Context().Done() })}, overGRPC, withBreaker)
	ctx, cancel := context.WithCancel(t.Context())
	q := newRequest(t, "POST", "http://"+o.addr+"/a.B/C", strings.NewReader(message("x"))).WithContext(ctx)
	q.Header.Set("Content-Type", "application/grpc")
	go func() { <-began; cancel() }()
	if _, err := http2Version.client(t).Do(q); err == nil {
		t.Error("it was answered")
	}
	o.kinds("server")
	if lines := o.logged(); len(lines) != 1 || lines[0]["grpc_status"] != "CANCELLED" || lines[0]["reason"] != "client_gone" {
		t.Errorf("log %v", lines)
	}
	if s := o.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 0 {
		t.Errorf("%d failures", s.Failures)
	}
}

func TestMetadataGoesThroughCallsAsItIs(t *testing.T) {
	r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) {
		for _, name := range []string{"X-Bin", "Grpc-Encoding", "Grpc-Accept-Encoding", "Te"} {
			w.Header()["Saw-"+name] = q.Header[name]
		}
		answerCall(0, "", "Grpc-Status-Details-Bin", "AAEC", "X-Bin", "//79")(w, q)
	})}, overGRPC)
	a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", "\x01\x00\x00\x00\x01x", "X-Bin", "AAEC", "X-Bin", "AwQ", "Grpc-Encoding", "gzip", "Grpc-Accept-Encoding", "gzip, identity")
	for name, want := range map[string]string{"Saw-X-Bin": "[AAEC AwQ]", "Saw-Grpc-Encoding": "[gzip]", "Saw-Grpc-Accept-Encoding": "[gzip, identity]", "Saw-Te": "[trailers]"} {
		if got := fmt.Sprint(a.Header[http.CanonicalHeaderKey(name)]); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if a.Trailer.Get("Grpc-Status-Details-Bin") != "AAEC" || a.Trailer.Get("X-Bin") != "//79" {
		t.Errorf("trailers %v", a.Trailer)
	}
}

func TestNoLengthIsInTheMetadataOfACall(t *testing.T) {
	r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Saw-Length", fmt.Sprint(q.Header["Content-Length"], q.ContentLength))
		_, _ = io.Copy(io.Discard, q.Body)
		answerCall(0, "")(w, q)
	})}, overGRPC)
	for kind, body := range map[string]string{"application/grpc": message("x"), "application/grpc-web+proto": message("x"), "application/grpc-web-text": "AAAAAAF4"} {
		for _, v := range versions {
			if kind == "application/grpc" && v.name != "HTTP/2" {
				continue
			}
			for how, reader := range map[string]io.Reader{"that the client says": strings.NewReader(body), "that it does not say": io.MultiReader(strings.NewReader(body))} {
				q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", reader)
				q.Header.Set("Content-Type", kind)
				q.Header.Set("Te", "trailers")
				if a, _ := do(t, v.client(t), q); a.Header.Get("Saw-Length") != "[] -1" {
					t.Errorf("of %s by %s, a length %s: the instance sees %s", kind, v.name, how, a.Header.Get("Saw-Length"))
				}
			}
		}
	}
}

func TestCallThatWasNotDeliveredGoesToAnotherInstance(t *testing.T) {
	r := start(t, []string{inboundWith(t, deadAddress(t), overGRPC), inboundWith(t, http2Version.backend(t, answerCall(0, "")), overGRPC)}, overGRPC, behindSidecars)
	for range 4 { // to either first
		a := rpcOf(t, r.addr, "/a.B/C", "application/grpc", message("x"))
		if a.status != "0" || a.body != message("hello") || a.Header.Get(peerFailure) != "" {
			t.Errorf("status %q %q, %v", a.status, a.text, a.Header)
		}
	}
}

func TestBodyThatIsStillComingGoesToTheSecondInstance(t *testing.T) {
	echo := http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })
	r := start(t, []string{inboundWith(t, deadAddress(t), overGRPC), inboundWith(t, echo, overGRPC)}, overGRPC, behindSidecars)
	for range 4 { // to either first
		pr, pw := io.Pipe()
		go func() {
			for range 5 {
				_, _ = io.WriteString(pw, "some")
				time.Sleep(20 * time.Millisecond)
			}
			_ = pw.Close()
		}()
		if a, got := do(t, http2Version.client(t), newRequest(t, "POST", "http://"+r.addr, pr)); a.StatusCode != 200 || got != "somesomesomesomesome" {
			t.Errorf("%d %q %v", a.StatusCode, got, a.Header)
		}
	}
}

func TestReasonOfTheInstancesSidecarIsPassedOnWithItsStatus(t *testing.T) {
	o := observe(t, unchanged, []string{inboundWith(t, deadAddress(t), overGRPC)}, overGRPC, behindSidecars, withoutBreaker)
	a := rpcOf(t, o.addr, "/a.B/C", "application/grpc", message("x"))
	if a.status != "14" || a.Header.Get("Fairlead-Reason") != "not_delivered" || !strings.HasSuffix(a.text, "(not_delivered)") || a.Header.Get(peerFailure) != "" {
		t.Errorf("status %q %q, %v", a.status, a.text, a.Header)
	}
	o.span("server")
	if lines := o.logged(); len(lines) != 1 || lines[0]["reason"] != "not_delivered" || lines[0]["grpc_status"] != "UNAVAILABLE" {
		t.Errorf("log %v", lines)
	}
}
