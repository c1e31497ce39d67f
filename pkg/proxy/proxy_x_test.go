package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server in front of a cluster.
type rig struct {
	t      *testing.T
	addr   string
	set    *upstream.Set
	server *proxy.Server
	counts *metrics.Registry
	stop   func() // lets no more connections in
}

// staticRouter routes by a compiled configuration.
type staticRouter struct{ routes *table.Routes }

func (r staticRouter) Route(authority, path []byte, _ int64) (*table.Entry, reason.Reason, bool) {
	e := r.routes.Match(authority, path)
	if e == nil {
		return nil, reason.NoRoute, false
	}
	return e, reason.None, false
}

func (r staticRouter) Await(context.Context, []byte, []byte) (*table.Entry, reason.Reason) {
	return nil, reason.NoRoute
}

type option func(*mesh.Cluster, *mesh.Route)

// patience is how long a test waits for what must come, before it says that it does not. It
// says nothing about how soon that is: a machine with much else to do takes seconds for what
// another does at once.
const patience = 30 * time.Second

func timeout(d time.Duration) option {
	return func(_ *mesh.Cluster, r *mesh.Route) { r.Action.Timeout = d }
}

// start serves the endpoints behind one route until the test ends.
func start(t *testing.T, endpoints []string, options ...option) *rig {
	t.Helper()
	return startWith(t, func(*proxy.Config) {}, endpoints, options...)
}

// startWith is start with a change to the server's configuration.
func startWith(t *testing.T, change func(*proxy.Config), endpoints []string, options ...option) *rig {
	t.Helper()
	began := time.Now().Add(-time.Hour) // as a process that has run for longer than any bound
	clock := func() int64 { return int64(time.Since(began)) }
	log := slog.New(slog.DiscardHandler)
	set := upstream.NewSet(clock, log)
	keeper := mtls.NewKeeper(mtls.Config{Log: log})
	t.Cleanup(keeper.Close)
	set.UseTLS(keeper)
	assignment := &mesh.LoadAssignment{Cluster: "c"}
	for i, e := range endpoints {
		assignment.Endpoints = append(assignment.Endpoints, mesh.Endpoint{
			Instance: fmt.Sprintf("i%d", i), Address: netip.MustParseAddrPort(e), Weight: 1})
	}
	cluster := mesh.Cluster{Name: "c", ConnectTimeout: patience, Static: assignment, LB: mesh.LBRoundRobin}
	route := mesh.Route{Match: mesh.RouteMatch{Prefix: "/"}, Action: mesh.RouteAction{Cluster: "c", Timeout: patience}}
	for _, o := range options {
		o(&cluster, &route)
	}
	patient := route // what is asked at /patient may take its time
	patient.Match.Prefix, patient.Action.Timeout = "/patient", patience
	if _, err := set.Apply(cluster); err != nil {
		t.Fatal(err)
	}
	registry := metrics.New(metrics.Config{Logger: log})
	routes, err := table.Compile(mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{
		{Name: "v", Domains: []string{"*"}, Routes: []mesh.Route{patient, route}}}},
		table.Deps{Cluster: func(string) *upstream.Cluster { return set.Clusters()[0] },
			Metrics: metrics.NewProxy(registry, reason.Codes()).GRPC(rpc.Names()), Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	config := proxy.Config{Name: "test", Router: staticRouter{routes}, Clock: clock, Log: log,
		Unrouted: metrics.NewProxy(metrics.New(metrics.Config{Logger: log}), reason.Codes()).Destination("test", "unknown")}
	change(&config)
	server := proxy.NewServer(config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	}()
	stopServing := func() { cancel(); <-served }
	t.Cleanup(func() {
		stopServing()
		grace, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		if cut := server.Drain(grace); cut > 0 {
			t.Errorf("%d connections had to be cut off", cut)
		}
		set.Close()
	})
	return &rig{t: t, addr: l.Addr().String(), set: set, server: server, counts: registry, stop: stopServing}
}

// backend runs a handler on a real HTTP server and returns its address.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// deadAddress is one that refuses connections.
func deadAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freeport.For(t)) // not among the ports that the system gives to others meanwhile
}

func (r *rig) client() *http.Client {
	transport := &http.Transport{DisableCompression: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func (r *rig) do(method, path string, body io.Reader, edit ...func(*http.Request)) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range edit {
		e(req)
	}
	resp, err := r.client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(b)
}

// raw sends bytes on a connection of its own and returns all that comes back.
func (r *rig) raw(send string) string {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, send); err != nil {
		r.t.Fatal(err)
	}
	var got bytes.Buffer
	_, _ = io.Copy(&got, nc)
	return got.String()
}

func TestRequestAndResponsePassUnchanged(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("X-Saw", req.Method+" "+req.URL.String()+" "+req.Host+" "+req.Header.Get("X-Mine"))
		w.Header().Set("Connection", "x-hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(201)
		_, _ = w.Write(body)
	})
	r := start(t, []string{addr})
	for _, size := range []int{0, 1, 100, 4000, 5000, 70_000, 3 << 20} {
		body := strings.Repeat("x", size)
		resp, got := r.do("POST", "/a?b=c", strings.NewReader(body), func(req *http.Request) {
			req.Host = "orders.shop"
			req.Header.Set("X-Mine", "yes")
		})
		if resp.StatusCode != 201 || got != body {
			t.Fatalf("%d bytes: status %d, %d bytes back", size, resp.StatusCode, len(got))
		}
		if saw := resp.Header.Get("X-Saw"); saw != "POST /a?b=c orders.shop yes" {
			t.Errorf("the instance saw %q", saw)
		}
		if resp.Header.Get("X-Hop") != "" {
			t.Error("a field that Connection names was passed on")
		}
	}
}

func TestChunkedBodiesAndTrailersPassBothWays(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = fmt.Fprintf(w, "%d %s", len(body), req.Trailer.Get("X-Check"))
		w.Header().Set("X-Sum", "42")
	})
	r := start(t, []string{addr})
	for _, size := range []int{3, 100_000} {
		pr, pw := io.Pipe()
		go func() {
			for rest := size; rest > 0; {
				n := min(rest, 10_000)
				_, _ = pw.Write(bytes.Repeat([]byte("y"), n))
				rest -= n
			}
			_ = pw.Close()
		}()
		resp, got := r.do("POST", "/", pr, func(req *http.Request) { req.Trailer = http.Header{"X-Check": {"ok"}} })
		if want := fmt.Sprintf("%d ok", size); got != want || resp.Trailer.Get("X-Sum") != "42" {
			t.Errorf("got %q and trailers %v, want %q", got, resp.Trailer, want)
		}
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		_, _ = fmt.Fprintf(w, "%s %s;", req.URL.Path, b)
	})
	r := start(t, []string{addr})
	got := r.raw("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" +
		"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n" +
		"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	one, two, three := strings.Index(got, "/1 ab;"), strings.Index(got, "/2 cd;"), strings.Index(got, "/3 ;")
	if one < 0 || two < one || three < two {
		t.Errorf("got %q", got)
	}
}

func TestHeadAndBodylessStatusesHaveNoBody(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hello")
		}
	})
	r := start(t, []string{addr})
	got := r.raw("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if n := strings.Count(got, "HTTP/1.1 "); n != 4 || !strings.HasSuffix(got, "hello") || strings.Count(got, "hello") != 1 {
		t.Errorf("got %q", got)
	}
}

func TestExpectContinueIsAnsweredByTheInstance(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/no" {
			w.WriteHeader(413)
			return
		}
		b, _ := io.ReadAll(req.Body)
		_, _ = fmt.Fprintf(w, "%d", len(b))
	})
	r := start(t, []string{addr})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(patience))
	br := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "POST /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	line, err := br.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(nc, "abc")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "3" {
		t.Errorf("%d %q", resp.StatusCode, b)
	}
	if got := r.raw("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 413") {
		t.Errorf("refusal: %q", got)
	}
}

// Java's client asks for 100-Continue, and servers such as node's know only one spelling.
func TestExpectIsSpeltAsServersKnowIt(t *testing.T) {
	var asked []string
	r := start(t, []string{backend(t, func(_ http.ResponseWriter, req *http.Request) { asked = append(asked, req.Header.Get("Expect")) })})
	if got := r.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\nConnection: close\r\n\r\nabc"); !strings.Contains(got, " 200 ") {
		t.Errorf("HTTP/1.1: %q", got)
	}
	a := r.attack()
	id := a.next
	_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: a.block("POST", "/", "expect", "100-Continue"), EndHeaders: true})
	_ = a.WriteData(id, true, []byte("abc"))
	a.flush()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*h2.DataFrame); ok && d.StreamEnded() {
			break
		}
		if h, ok := f.(*h2.HeadersFrame); ok && h.StreamEnded() {
			break
		}
	}
	if len(asked) != 2 || asked[0] != "100-continue" || asked[1] != "100-continue" {
		t.Errorf("asked for were %q", asked)
	}
}

func TestDeadInstanceIsReplacedByAnother(t *testing.T) {
	alive := backend(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		_, _ = w.Write(b)
	})
	r := start(t, []string{deadAddress(t), alive})
	for i := range 20 {
		// Nothing reached the dead one, so even a POST is safe.
		if resp, got := r.do("POST", "/", strings.NewReader("hi")); resp.StatusCode != 200 || got != "hi" {
			t.Fatalf("request %d: %d %q", i, resp.StatusCode, got)
		}
	}
}

func TestAllInstancesDeadIsSaidPlainly(t *testing.T) {
	r := start(t, []string{deadAddress(t)})
	resp, got := r.do("GET", "/", nil)
	if resp.StatusCode != 503 || resp.Header.Get("Fairlead-Reason") != "connect_failed" || !strings.Contains(got, "could not be connected to") {
		t.Errorf("%d %v %q", resp.StatusCode, resp.Header, got)
	}
	resp, got = r.do("GET", "/", nil, func(req *http.Request) { req.Header.Set("Accept", "application/json") })
	if resp.Header.Get("Content-Type") != "application/json" || !strings.Contains(got, `"reason":"connect_failed"`) {
		t.Errorf("%v %q", resp.Header, got)
	}
}

// resetter accepts connections, reads a request and resets, n times; then it serves.
func resetter(t *testing.T, n int64) (string, *atomic.Int64) {
	t.Helper()
	var seen atomic.Int64
	addr := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if seen.Add(1) <= n {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
	return addr, &seen
}

func TestOnlyWhatIsSafeIsSentTwice(t *testing.T) {
	for _, c := range []struct {
		method string
		body   string
		want   int
		seen   int64
	}{
		{"GET", "", 200, 2},
		{"PUT", "x", 200, 2},
		{"DELETE", "", 200, 2},
		{"POST", "x", 502, 1},
		{"POST", "", 502, 1},
		{"PUT", strings.Repeat("x", 17<<10), 502, 1},
	} {
		t.Run(fmt.Sprintf("%s of %d bytes", c.method, len(c.body)), func(t *testing.T) {
			addr, seen := resetter(t, 1)
			r := start(t, []string{addr})
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			resp, _ := r.do(c.method, "/", body)
			if resp.StatusCode != c.want || seen.Load() != c.seen {
				t.Errorf("status %d after %d attempts, want %d after %d", resp.StatusCode, seen.Load(), c.want, c.seen)
			}
		})
	}
}

func TestSecondFailureIsTheLast(t *testing.T) {
	addr, seen := resetter(t, 5)
	r := start(t, []string{addr})
	if resp, _ := r.do("GET", "/", nil); resp.StatusCode != 502 || seen.Load() != 2 {
		t.Errorf("status %d after %d attempts", resp.StatusCode, seen.Load())
	}
}

func TestSlowInstanceRunsIntoTheRequestTimeout(t *testing.T) {
	release := make(chan struct{})
	addr := backend(t, func(_ http.ResponseWriter, _ *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	r := start(t, []string{addr}, timeout(50*time.Millisecond))
	for range 3 {
		resp, _ := r.do("GET", "/", nil)
		if resp.StatusCode != 504 || resp.Header.Get("Fairlead-Reason") != "request_timeout" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
	}
}

func TestTimeoutOfOneRequestDoesNotEndTheNext(t *testing.T) {
	addr := backend(t, func(_ http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			time.Sleep(900 * time.Millisecond)
		}
	})
	r := start(t, []string{addr}, timeout(1700*time.Millisecond))
	for range 2 {
		// Each comes when the deadline that the last one set is almost over.
		if resp, _ := r.do("GET", "/slow", nil); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

// learning is a router that has to learn one path, which takes a while, and is told
// then that there is no such thing.
type learning struct {
	proxy.Router
	takes time.Duration
}

func (r learning) Route(authority, path []byte, now int64) (*table.Entry, reason.Reason, bool) {
	if string(path) == "/new" {
		return nil, reason.None, true
	}
	return r.Router.Route(authority, path, now)
}

func (r learning) Await(ctx context.Context, _, _ []byte) (*table.Entry, reason.Reason) {
	select {
	case <-ctx.Done():
		return nil, reason.NotLearnedInTime
	case <-time.After(r.takes):
		return nil, reason.UnknownService
	}
}

func TestDeadlineOfOneRequestDoesNotEndTheLearningForTheNext(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "known") })
	learn := func(c *proxy.Config) { c.Router = learning{c.Router, 1200 * time.Millisecond} }
	r := startWith(t, learn, []string{b}, timeout(900*time.Millisecond))
	got := r.raw("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if !strings.Contains(got, "known") || !strings.Contains(got, "unknown_service") {
		t.Error(got)
	}
}

func TestClientThatGoesAwayEndsTheWaitUpstream(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	addr := backend(t, func(_ http.ResponseWriter, req *http.Request) {
		close(begun)
		<-req.Context().Done()
		close(ended)
	})
	r := start(t, []string{addr})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	_ = nc.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the instance is still asked")
	}
}

func TestBrokenResponseIsNotTakenForWhole(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	r := start(t, []string{addr})
	resp, err := r.client().Get("http://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestMalformedRequestIsRefusedWithTheCause(t *testing.T) {
	r := start(t, []string{deadAddress(t)})
	got := r.raw("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400") || !strings.Contains(got, "both given") || !strings.Contains(got, "Connection: close") {
		t.Errorf("got %q", got)
	}
}

func TestIdleConnectionIsReusedForTheNextRequest(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	r := start(t, []string{s.Listener.Addr().String()})
	for range 10 {
		r.do("GET", "/", nil)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 10 requests one after the other", n)
	}
}

func TestSlowHeadIsEndedAndOthersAreServed(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { c.HeadTimeout = 300 * time.Millisecond }, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	slow, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	answer := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(slow) // however it ends
		answer <- string(b)
	}()
	dripped := make(chan struct{})
	go func() {
		defer close(dripped)
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " + strings.Repeat("a", 1000)) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for range 5 {
		a, err := http.Get("http://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
	}
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, "head_timeout") {
		t.Errorf("answered %q", got)
	}
	<-dripped
	http.DefaultClient.CloseIdleConnections()
}

func TestIdleConnectionMayWaitLongerThanAHead(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { c.HeadTimeout = 100 * time.Millisecond }, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	reader := bufio.NewReader(c)
	for range 2 {
		time.Sleep(700 * time.Millisecond) // several looks of the watchdog
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(reader, nil)
		if err != nil || a.StatusCode != http.StatusOK {
			t.Fatal(a, err)
		}
		_ = a.Body.Close()
	}
}
