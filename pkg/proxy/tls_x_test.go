package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// identities are of the three who take part: the client, the proxy and the instance.
type identities struct {
	ca     *mtlstest.Authority
	keeper *mtls.Keeper
	server *mtls.Server
	files  mesh.TLS // the proxy's
	client *tls.Config
}

func newIdentities(t *testing.T) *identities {
	t.Helper()
	ca := mtlstest.NewAuthority(t, "ca")
	dir := t.TempDir()
	i := &identities{ca: ca, files: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "proxy.example")}, CA: ca.File(dir)}}
	i.keeper = mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(i.keeper.Close)
	var err error
	down := i.files
	down.ALPN = []string{"h2", "http/1.1"}
	if i.server, err = i.keeper.Server("listener test", mesh.DownstreamTLS{TLS: down, RequireClientCertificate: true}); err != nil {
		t.Fatal(err)
	}
	i.client = &tls.Config{ //nolint:gosec // a test
		RootCAs: ca.Pool(), ServerName: "proxy.example", Certificates: []tls.Certificate{ca.Certificate("client.example")},
	}
	return i
}

// listen lets a server take TLS, and hundreds of handshakes at once as long as they like.
func (i *identities) listen(c *proxy.Config) { c.TLS, c.HeadTimeout = i.server, 2*patience }

// upstream is the option that the cluster has TLS.
func (i *identities) upstream(sni string) option {
	return func(c *mesh.Cluster, _ *mesh.Route) {
		c.TLS = &mesh.UpstreamTLS{TLS: i.files, SNI: sni}
	}
}

// secureBackend is backend over TLS, with a client certificate required.
func (i *identities) backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{i.ca.Certificate("app.example")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: i.ca.Pool()} //nolint:gosec // a test
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (i *identities) http(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, TLSClientConfig: i.client}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func (i *identities) dial(t *testing.T, addr string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", addr, i.client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// secureBackend is backend over TLS.
func (v version) secureBackend(t *testing.T, i *identities, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Proto != v.name && q.Proto != v.name+".0" {
			t.Errorf("the instance was sent %s", q.Proto)
		}
		h(w, q)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{i.ca.Certificate("app.example")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: i.ca.Pool()} //nolint:gosec // a test
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.EnableHTTP2 = v.protocol == mesh.ProtocolHTTP2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// secureClient is client over TLS.
func (v version) secureClient(t *testing.T, i *identities) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(v.protocol == mesh.ProtocolHTTP)
	p.SetHTTP2(v.protocol == mesh.ProtocolHTTP2)
	transport := &http.Transport{DisableCompression: true, Protocols: p, TLSClientConfig: i.client.Clone()}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func TestRequestsPassOverTLSOnBothSides(t *testing.T) {
	i := newIdentities(t)
	addr := i.backend(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("X-Peer", req.TLS.PeerCertificates[0].DNSNames[0])
		w.Header().Set("Trailer", "X-End")
		_, _ = w.Write(body)
		w.Header().Set("X-End", "yes")
	})
	o := observe(t, i.listen, []string{addr}, i.upstream("app.example"))
	client := i.http(t)
	for _, size := range []int{0, 1, 1000, 16 << 10, 40_000, 3 << 20} {
		for _, streamed := range []bool{false, true} {
			sent := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			var body io.Reader = bytes.NewReader(sent)
			if streamed {
				body = io.MultiReader(body) // whose length is not known
			}
			resp, err := client.Post("https://"+o.addr+"/x", "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, sent) || resp.Header.Get("X-Peer") != "proxy.example" || resp.Trailer.Get("X-End") != "yes" {
				t.Errorf("%d bytes, streamed %t: %d, %d bytes, %v %v, %v", size, streamed, resp.StatusCode, len(got), resp.Header, resp.Trailer, err)
			}
		}
	}
	for _, s := range o.kinds("server") {
		if s.Attributes["url.scheme"] != "https" {
			t.Errorf("the span says %s", s.Attributes["url.scheme"])
		}
	}
	ended := map[string]uint64{}
	for _, s := range i.keeper.Status() {
		ended[s.Name] = s.Handshakes["ok"] + s.Handshakes["resumed"]
	}
	if ended["listener test"] != 1 {
		t.Errorf("handshakes: %v", ended)
	}
}

func TestAHandshakeWithTheInstanceThatFailsIsSaidPlainly(t *testing.T) {
	i := newIdentities(t)
	addr := i.backend(t, func(http.ResponseWriter, *http.Request) {})
	r := start(t, []string{addr}, i.upstream("other.example"))
	resp, body := r.do("GET", "/", nil)
	if resp.StatusCode != 503 || resp.Header.Get("Fairlead-Reason") != "tls_failed" || !strings.Contains(body, "the certificate is not of the name other.example") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}

func TestClientsThatAreNotLetInAreCounted(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, nil)
	i.client.Certificates = nil
	c := i.dial(t, r.addr) // which in TLS 1.3 has not heard yet
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("it is let in: %v", err)
	}
	for began := time.Now(); i.keeper.Status()[0].Handshakes["no_certificate"] != 1; time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%v", i.keeper.Status()[0].Handshakes)
		}
	}
}

func TestAHandshakeOfAClientThatFailsIsLoggedWithWhatHelps(t *testing.T) {
	i := newIdentities(t)
	var log lockedbuf.Buffer
	r := startWith(t, func(c *proxy.Config) {
		c.TLS, c.Log = i.server, slog.New(slog.NewTextHandler(&log, nil)) // at level info
	}, nil)
	i.client.Certificates = nil
	for range 3 {
		c := i.dial(t, r.addr)
		_, _ = c.Read(make([]byte, 1))
	}
	for began := time.Now(); log.String() == "" && time.Since(began) < 10*time.Second; {
		time.Sleep(time.Millisecond) // the client hears of it first
	}
	text := log.String()
	if strings.Count(text, "WARN") != 1 || !strings.Contains(text, "cause=no_certificate") ||
		!strings.Contains(text, "client=127.0.0.1:") || !strings.Contains(text, "give the client a certificate") {
		t.Errorf("%s", text)
	}
}

func TestAPlaintextRequestIsToldThatThePortTakesTLS(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, nil)
	got := r.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
	if err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 400 || resp.Header.Get("Fairlead-Reason") != "bad_request" || !strings.Contains(string(body), "takes TLS only") || !resp.Close {
		t.Errorf("%q, %v", got, err)
	}
	if !strings.HasSuffix(got, string(body)) {
		t.Errorf("there is more than the body: %q", got)
	}
	if got := r.raw("EHLO a\r\n"); strings.Contains(got, "HTTP") {
		t.Errorf("another protocol is answered %q", got)
	}
}

func TestTLSToAPortWithoutItIsLoggedAndAnsweredInTheClear(t *testing.T) {
	var log lockedbuf.Buffer
	var later atomic.Int64
	r := startWith(t, func(c *proxy.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		clock := c.Clock
		c.Clock = func() int64 { return clock() + later.Load() }
	}, nil)
	for i := range 5 {
		switch i {
		case 3:
			later.Store(int64(11 * time.Second))
		case 4:
			later.Store(int64(19 * time.Second)) // 8 s since the last warning
		}
		nc := r.dial()
		var header tls.RecordHeaderError
		if err := tls.Client(nc, &tls.Config{ServerName: "a"}).Handshake(); !errors.As(err, &header) || string(header.RecordHeader[:]) != "HTTP/" { //nolint:gosec // a test
			t.Errorf("the handshake fails with %v", err)
		}
		_ = nc.Close()
	}
	text := log.String()
	if strings.Count(text, "WARN") != 2 || strings.Count(text, "a client speaks TLS to a port without it") != 2 ||
		!strings.Contains(text, "client=127.0.0.1:") || !strings.Contains(text, "with http") {
		t.Errorf("%s", text)
	}
	got := r.raw("\x16\x03\x01\x00\x05hello\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "fairlead-reason: bad_request") || !strings.Contains(got, "the client speaks TLS") {
		t.Errorf("%q", got)
	}
	// What comes behind a request is no beginning of a connection, and what only looks like
	// TLS at its second byte is none.
	for _, other := range []string{"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n\x16\x03\x01\n", "G\x16T / HTTP/1.1\n"} {
		if got := r.raw(other); !strings.Contains(got, "400 Bad Request") || strings.Contains(got, "speaks TLS") {
			t.Errorf("%q", got)
		}
	}
}

func TestASlowHandshakeIsEndedAndOthersAreServed(t *testing.T) {
	i := newIdentities(t)
	addr := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := startWith(t, func(c *proxy.Config) { c.TLS, c.HeadTimeout = i.server, time.Second }, []string{addr}) // in which others are done with theirs
	slow, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	_, _ = slow.Write([]byte{0x16, 3, 1}) // the beginning of a record
	resp, err := i.http(t).Get("https://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := slow.Read(make([]byte, 1)); err == nil {
		t.Error("it is answered")
	}
	if ended := i.keeper.Status()[0].Handshakes; ended["timeout"] != 1 {
		t.Errorf("%v", ended)
	}
}

// There may be bytes between such a connection and its socket, so that it must keep its codec.
func TestAConnectionOverTLSDoesNotRest(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, func(c *proxy.Config) { i.listen(c); restless(c) }, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	c := i.dial(t, r.addr)
	in := bufio.NewReader(c)
	for range 2 {
		getOn(t, c, in)
		time.Sleep(looks)
	}
	getOn(t, c, in)
}

// The bound is HeadTimeout, not the next look of the watchdog.
func TestAHandshakeMayTakeItsTime(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, nil)
	nc := r.dial()
	time.Sleep(600 * time.Millisecond) // the watchdog looks twice
	if err := tls.Client(nc, i.client).Handshake(); err != nil {
		t.Error(err)
	}
	_ = nc.Close()
}

// The answer must not be lost in a reset because there is more that nobody reads.
func TestAPlaintextRequestThatIsStillBeingSentIsAnsweredToo(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, nil)
	nc := r.dial()
	if err := nc.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil { // so that the proxy holds the end of it
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"+strings.Repeat("x", 900_000))
		sent <- errors.Join(err, nc.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(nc)
	if err := errors.Join(err, <-sent); err != nil || !strings.Contains(string(got), "takes TLS only") {
		t.Errorf("%q, %v", got, err)
	}
}

// Nor does it hold the proxy up if the client, which has its answer, says and ends nothing.
func TestAPlaintextRequestWhoseClientStaysIsLetGo(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, func(c *proxy.Config) { c.TLS, c.HeadTimeout = i.server, time.Hour }, nil)
	nc := r.dial()
	if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(nc); err != nil || !strings.Contains(string(got), "takes TLS only") {
		t.Errorf("%q, %v", got, err)
	}
	for end := time.Now().Add(10 * time.Second); r.server.Connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection is still there")
		}
	}
	_ = nc.Close()
}

// held is a connection whose handshake keeps its place among those that compute.
type held struct {
	net.Conn
	entered, release chan struct{}
}

func (h held) Write([]byte) (int, error) {
	close(h.entered)
	<-h.release
	return 0, io.ErrClosedPipe
}

// A handshake that waits for others reads nothing: an end of its socket alone would not end it.
func TestAHandshakeThatWaitsForOthersEndsInTimeAndWithADrain(t *testing.T) {
	for _, drains := range []bool{true, false} {
		i := newIdentities(t)
		k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
		t.Cleanup(k.Close)
		s, err := k.Server("listener busy", mesh.DownstreamTLS{TLS: i.files})
		if err != nil {
			t.Fatal(err)
		}
		c, err := k.Client("cluster busy", mesh.UpstreamTLS{})
		if err != nil {
			t.Fatal(err)
		}
		a, b := net.Pipe()
		first := held{a, make(chan struct{}), make(chan struct{})}
		failed := make(chan error, 1)
		go func() { _, err := c.Handshake(context.Background(), first, "h"); failed <- err }()
		<-first.entered
		var log lockedbuf.Buffer
		r := startWith(t, func(c *proxy.Config) {
			c.TLS, c.Log = s, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			if !drains {
				c.HeadTimeout = 100 * time.Millisecond
			}
		}, nil)
		waits := r.dial()
		for end := time.Now().Add(10 * time.Second); k.Waiting() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if drains {
			grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if cut := r.server.Drain(grace); cut != 0 {
				t.Errorf("%d were cut off", cut)
			}
			cancel()
		}
		wantClosed(t, waits)
		_ = waits.Close()
		if n := k.Waiting(); n != 0 {
			t.Errorf("draining: %t: %d wait", drains, n)
		}
		// One that the proxy itself has ended is no client's failure.
		if text := log.String(); strings.Contains(text, "handshake failed") == drains {
			t.Errorf("draining: %t: the log: %s", drains, text)
		}
		close(first.release)
		if <-failed == nil {
			t.Error("the first has not failed")
		}
		_, _ = a.Close(), b.Close()
	}
}

// The handshake that began first makes room, not the one that came last.
func TestTheOldestHandshakeMakesRoom(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, func(c *proxy.Config) { c.TLS, c.MaxConnections = i.server, 2 }, nil)
	first := r.dial()
	for end := time.Now().Add(10 * time.Second); r.server.Connections() < 1 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	second, third := r.dial(), r.dial()
	wantClosed(t, first)
	_ = first.Close()
	for _, c := range []net.Conn{second, third} {
		if err := tls.Client(c, i.client).Handshake(); err != nil {
			t.Errorf("a later one: %v", err)
		}
		_ = c.Close()
	}
}

// Whoever begins a handshake and says nothing shuts nobody out, however long others are idle.
func TestAHandshakeMakesRoomBeforeAnIdleConnection(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, func(c *proxy.Config) { c.TLS, c.MaxConnections = i.server, 2 }, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	idle := i.dial(t, r.addr)
	read := bufio.NewReader(idle)
	get := func() {
		t.Helper()
		if _, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(read, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	get()
	silent := r.dial()
	for end := time.Now().Add(10 * time.Second); r.server.Connections() < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	later := r.dial()
	wantClosed(t, silent)
	get()
	_, _ = silent.Close(), later.Close()
}

func TestADrainEndsHandshakesAndIdleConnections(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	idle := i.dial(t, r.addr)
	if _, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(idle), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	silent, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for end := time.Now().Add(10 * time.Second); r.server.Connections() < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if cut := r.server.Drain(grace); cut != 0 {
		t.Errorf("%d were cut off", cut)
	}
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle one got no close_notify: %v", err)
	}
}

func TestAClientThatGoesAwayOverTLSEndsTheWaitUpstream(t *testing.T) {
	i := newIdentities(t)
	for name, leave := range map[string]func(c *tls.Conn){
		"with close_notify": func(c *tls.Conn) { _ = c.Close() },
		"without":           func(c *tls.Conn) { _ = c.NetConn().Close() },
	} {
		begun, ended := make(chan struct{}), make(chan struct{})
		addr := i.backend(t, func(_ http.ResponseWriter, req *http.Request) {
			close(begun)
			<-req.Context().Done()
			close(ended)
		})
		r := startWith(t, i.listen, []string{addr}, i.upstream("app.example"))
		c := i.dial(t, r.addr)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-begun
		leave(c)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the instance is still asked", name)
		}
	}
}

// A client of HTTP/1.0 takes the end of the connection for the end of the body.
func TestABrokenResponseOverTLSEndsWithoutCloseNotify(t *testing.T) {
	i := newIdentities(t)
	addr := i.backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "not all of it")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	chunked := i.backend(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "not all of it")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, address := range []string{addr, chunked} {
		r := startWith(t, i.listen, []string{address}, i.upstream("app.example"))
		c := i.dial(t, r.addr)
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err == nil {
			t.Errorf("it looks whole: %q", got)
		}
	}
}

// Anybody on the way can end a connection; only the instance can say that this was all (RFC 9112 §9.8).
func TestABodyThatEndsWithTheConnectionToTheInstanceNeedsItsCloseNotify(t *testing.T) {
	i := newIdentities(t)
	for name, whole := range map[string]bool{"with close_notify": true, "without": false} {
		addr := i.backend(t, func(w http.ResponseWriter, _ *http.Request) {
			nc, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\nhello")
			if !whole {
				nc = nc.(*tls.Conn).NetConn()
			}
			_ = nc.Close()
		})
		r := start(t, []string{addr}, i.upstream("app.example"))
		resp, err := http.Get("http://" + r.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != "hello" || (err == nil) != whole {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestPipelinedRequestsOverTLSAreAnsweredInOrder(t *testing.T) {
	i := newIdentities(t)
	r := startWith(t, i.listen, []string{backend(t, func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.URL.Path) })})
	c := i.dial(t, r.addr)
	go func() {
		for _, piece := range []string{"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT", "TP/1.1\r\nHost: a\r\n\r\n", "GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"} {
			_, _ = io.WriteString(c, piece)
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil || strings.Count(string(got), "HTTP/1.1 200 OK") != 3 || !strings.HasSuffix(string(got), "/3") {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that reads nothing blocks writes, and must hold up neither the watchdog nor a drain.
func TestAClientOverTLSThatReadsNothingIsCutOffAndOthersAreServed(t *testing.T) {
	i := newIdentities(t)
	addr := backend(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/large" {
			_, _ = w.Write(make([]byte, 32<<20))
		}
	})
	r := startWith(t, func(c *proxy.Config) { c.TLS, c.StallTimeout = i.server, 300*time.Millisecond }, []string{addr})
	stuck := i.dial(t, r.addr)
	if _, err := io.WriteString(stuck, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	client := i.http(t)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get("https://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if r.server.Connections() == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not cut off")
		}
	}
	// TLS may end well, between two records; the body has not come to its end.
	resp, err := http.ReadResponse(bufio.NewReader(stuck), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= 32<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Where sidecars share connections over HTTP/2, what may become a tunnel is offered, and
// gets, HTTP/1.1 by ALPN.
func TestAWebSocketPassesOverTLSOnBothSides(t *testing.T) {
	i := newIdentities(t)
	addr := i.backend(t, func(w http.ResponseWriter, q *http.Request) {
		c, err := websocket.Accept(w, q, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(q.Context())
			if err != nil {
				return
			}
			_ = c.Write(q.Context(), kind, message)
		}
	})
	for name, option := range map[string]option{"to an application": func(*mesh.Cluster, *mesh.Route) {}, "to a sidecar": behindSidecars} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, i.listen, []string{addr}, i.upstream("app.example"), option)
			r.set.Multiplex()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for range 2 {
				c, _, err := websocket.Dial(ctx, "wss://"+r.addr+"/chat", &websocket.DialOptions{HTTPClient: i.http(t)})
				if err != nil {
					t.Fatal(err)
				}
				c.SetReadLimit(-1)
				for _, size := range []int{1, 1000, 3 << 20} {
					sent := bytes.Repeat([]byte("x"), size)
					if err := c.Write(ctx, websocket.MessageBinary, sent); err != nil {
						t.Fatal(err)
					}
					if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, sent) {
						t.Fatalf("%d bytes: %d, %v", size, len(got), err)
					}
				}
				if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestATunnelOverTLSEndsEachWayByItself(t *testing.T) {
	i := newIdentities(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{i.ca.Certificate("app.example")}}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = nc.Close() }()
		in := bufio.NewReader(nc)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(nc, switched)
		all, _ := io.ReadAll(in)
		_, _ = io.WriteString(nc, "got "+string(all))
	}()
	c := i.dial(t, startWith(t, i.listen, []string{l.Addr().String()}, i.upstream("app.example")).addr)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, askWebSocket+"all ")
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, _ = io.WriteString(c, "of it")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(in); string(got) != "got all of it" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
