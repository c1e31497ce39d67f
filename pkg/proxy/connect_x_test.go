package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// noService knows nobody.
type noService struct{}

func (noService) Route([]byte, []byte, int64) (*table.Entry, reason.Reason, bool) {
	return nil, reason.NotAMeshName, false
}

func (noService) Await(context.Context, []byte, []byte) (*table.Entry, reason.Reason) {
	return nil, reason.NotAMeshName
}

// connects lets the server take CONNECT.
func connects(c *proxy.Config) { c.Connect = true }

const askConnect = "CONNECT orders.default:443 HTTP/1.1\r\nHost: orders.default:443\r\n\r\n"

// connect asks for a tunnel.
func connect(t *testing.T, r *rig, request string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	nc := r.dial().(*net.TCPConn)
	_, _ = io.WriteString(nc, request)
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	return nc, in, resp
}

// speaking is an instance that speaks no HTTP: it greets, and sends back what comes.
func speaking(t *testing.T) string {
	return listen(t, func(nc net.Conn) {
		_, _ = io.WriteString(nc, "220 at your service\r\n")
		_, _ = io.Copy(nc, nc)
	})
}

// overInbound is the sidecar of an application that takes CONNECT from its peers.
func overInbound(t *testing.T, app string) string {
	t.Helper()
	return startWith(t, func(c *proxy.Config) {
		cluster := c.Router.(staticRouter).routes.Match([]byte("app"), []byte("/")).Cluster
		c.Connect = true
		c.Router = table.NewInbound(cluster, "app.default", metrics.NewProxy(metrics.New(metrics.Config{Logger: c.Log}), reason.Codes()))
	}, []string{app}, withoutBreaker).addr
}

func TestConnectIsATunnelToTheInstanceWithOrWithoutASidecar(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint func(*testing.T, string) string
		option   option
	}{
		"without": {func(_ *testing.T, app string) string { return app }, withoutBreaker},
		"with":    {overInbound, behindSidecars},
	} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, connects, []string{c.endpoint(t, speaking(t))}, c.option)
			for _, version := range []string{"HTTP/1.1", "HTTP/1.0"} {
				// Bytes behind the head are not lost, however early they come.
				nc, in, resp := connect(t, r, strings.Replace(askConnect, "HTTP/1.1", version, 1)+"EHLO\r\n")
				if resp.StatusCode != 200 || len(resp.TransferEncoding) > 0 || resp.ContentLength > 0 || resp.Header.Get("Content-Length") != "" {
					t.Errorf("%s: %d, %v, %v", version, resp.StatusCode, resp.Header, resp.TransferEncoding)
				}
				wantBytes(t, in, "220 at your service\r\nEHLO\r\n")
				_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n")
				_ = nc.CloseWrite()
				if rest, err := io.ReadAll(in); string(rest) != "GET / HTTP/1.1\r\n\r\n" || err != nil {
					t.Errorf("%q, %v", rest, err)
				}
			}
		})
	}
}

// besideRequests leads connections to the cluster, and answers requests itself.
type besideRequests struct{ entry table.Entry }

func (b *besideRequests) Route([]byte, []byte, int64) (*table.Entry, reason.Reason, bool) {
	return &b.entry, reason.None, false
}

func (b *besideRequests) Await(context.Context, []byte, []byte) (*table.Entry, reason.Reason) {
	return &b.entry, reason.None
}

func TestConnectGoesWhereConnectionsGoAndAsksNoSidecarThere(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) {
		connects(c)
		relay := *c.Router.(staticRouter).routes.Match([]byte("a"), []byte("/"))
		relay.TCP = &mesh.TCPProxy{Cluster: "c"}
		c.Router = &besideRequests{table.Entry{Direct: &mesh.DirectResponse{Status: 503, Body: "no HTTP port"}, Relay: &relay, Requests: relay.Requests}}
	}, []string{speaking(t)}, behindSidecars)
	nc, in, resp := connect(t, r, askConnect)
	if resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	wantBytes(t, in, "220 at your service\r\n")
	_, _ = io.WriteString(nc, "hello")
	_ = nc.CloseWrite()
	if rest, err := io.ReadAll(in); string(rest) != "hello" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if resp, body := r.do("GET", "/", nil); resp.StatusCode != 503 || resp.Header.Get("fairlead-reason") != "no_http_port" {
		t.Errorf("a request gets %d %q", resp.StatusCode, body)
	}
}

func TestConnectIsAccountedForAtTheTunnelsEnd(t *testing.T) {
	o := observe(t, connects, []string{speaking(t)})
	nc, in, _ := connect(t, o.rig, askConnect)
	wantBytes(t, in, "220 at your service\r\n")
	_, _ = io.WriteString(nc, "hello")
	_ = nc.CloseWrite()
	_, _ = io.Copy(io.Discard, in)
	if s := o.span("server"); s.Attributes["http.response.status_code"] != "200" || s.Attributes["http.request.method"] != "CONNECT" || s.Failed {
		t.Errorf("%+v", s)
	}
	if s := o.span("client"); s.Failed {
		t.Errorf("%+v", s)
	}
	lines := o.logged()
	if len(lines) != 1 || lines[0]["method"] != "CONNECT" || lines[0]["authority"] != "orders.default:443" || lines[0]["status"] != 200.0 ||
		lines[0]["bytes_in"] != 5.0 || lines[0]["bytes_out"] != 26.0 || lines[0]["instance"] != "i0" {
		t.Errorf("%v", lines)
	}
	if want := `fairlead_requests_total{code="200",destination="c",reason="none",source="test"} 1`; !strings.Contains(o.metrics(), want) {
		t.Errorf("%s", o.metrics())
	}
}

func TestConnectThatReachesNobodySaysWhy(t *testing.T) {
	dead := deadAddress(t)
	for name, c := range map[string]struct {
		endpoint string
		option   option
		reason   string
	}{
		"no instance":                        {dead, func(c *mesh.Cluster, _ *mesh.Route) { c.Static.Endpoints = nil }, "no_endpoints"},
		"an instance that is off":            {dead, withoutBreaker, "connect_failed"},
		"a sidecar whose application is off": {overInbound(t, dead), behindSidecars, "not_delivered"},
		"a sidecar that takes no CONNECT":    {inbound(t, dead), behindSidecars, "unsupported_protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, connects, []string{c.endpoint}, c.option)
			// Bytes that were meant for the tunnel are no request.
			_, in, resp := connect(t, r, askConnect+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			defer func() {
				if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil || !resp.Close {
					t.Errorf("%q is answered, too (%v)", rest, err)
				}
			}()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode < 500 || resp.Header.Get("fairlead-reason") != c.reason {
				t.Errorf("%d, %v %q", resp.StatusCode, resp.Header, body)
			}
		})
	}
}

func TestConnectGoesToAnotherInstanceIfOneIsOff(t *testing.T) {
	for name, off := range map[string]string{"without a sidecar": deadAddress(t), "behind a sidecar": overInbound(t, deadAddress(t))} {
		t.Run(name, func(t *testing.T) {
			works, o := speaking(t), withoutBreaker
			if name == "behind a sidecar" {
				works, o = overInbound(t, works), func(c *mesh.Cluster, r *mesh.Route) { withoutBreaker(c, r); behindSidecars(c, r) }
			}
			r := startWith(t, connects, []string{off, works}, o)
			for range 4 {
				_, in, resp := connect(t, r, askConnect)
				if resp.StatusCode != 200 {
					t.Fatalf("status %d", resp.StatusCode)
				}
				wantBytes(t, in, "220 at your service\r\n")
			}
		})
	}
}

func TestConnectToARouteThatAnswersItselfIsNoTunnel(t *testing.T) {
	r := startWith(t, connects, []string{deadAddress(t)}, func(_ *mesh.Cluster, r *mesh.Route) {
		r.Action = mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 200, Body: "hello"}}
	})
	if _, _, resp := connect(t, r, askConnect); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// ownAddress is one of this machine's that is not a loopback address.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr()
		}
	}
	t.Skip("this machine has no address but loopback ones")
	return netip.Addr{}
}

// toOutside lets CONNECT go to the outside.
func toOutside(t *testing.T) func(c *proxy.Config) {
	return func(c *proxy.Config) {
		set := upstream.NewSet(c.Clock, c.Log)
		t.Cleanup(set.Close)
		c.Connect, c.Router, c.Outside = true, noService{}, set.Outside()
		c.External = &table.Entry{Source: "test", Destination: "external",
			Requests: metrics.NewProxy(metrics.New(metrics.Config{Logger: c.Log}), reason.Codes()).Destination("test", "external")}
	}
}

func TestConnectGoesOutsideWhereThatIsAllowed(t *testing.T) {
	own := ownAddress(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.Host) }))
	var err error
	if s.Listener, err = net.Listen("tcp", netip.AddrPortFrom(own, 0).String()); err != nil {
		t.Fatal(err)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	o := observe(t, toOutside(t), nil)
	nc, _, resp := connect(t, o.rig, "CONNECT "+s.Listener.Addr().String()+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	secure := tls.Client(nc, &tls.Config{RootCAs: roots, ServerName: "example.com"})
	if _, err := io.WriteString(secure, "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	// The host ends first, and the client is there until it has: else it would be one that went away.
	if all, err := io.ReadAll(secure); !strings.HasSuffix(string(all), "\r\n\r\nb") || err != nil {
		t.Errorf("%q, %v", all, err)
	}
	if _, err := io.Copy(io.Discard, nc); err != nil {
		t.Error(err)
	}
	_ = nc.Close()
	if span := o.span("client"); span.Failed || span.Attributes["network.peer.address"] != own.String() {
		t.Errorf("%+v", span)
	}
	if lines := o.logged(); len(lines) != 1 || lines[0]["destination"] != "external" || lines[0]["upstream"] != s.Listener.Addr().String() || lines[0]["status"] != 200.0 {
		t.Errorf("%v", lines)
	}
}

func TestConnectToWhatIsNotOutsideOrNotThereSaysWhy(t *testing.T) {
	o := observe(t, toOutside(t), nil)
	for _, c := range []struct{ authority, reason, detail string }{
		{o.addr, "loop", "this machine itself"},
		{"localhost:1", "loop", "this machine itself"},
		{"[::1]:1", "loop", "this machine itself"},
		{"no-such-name.invalid:443", "connect_failed", "no address"},
	} {
		_, _, resp := connect(t, o.rig, "CONNECT "+c.authority+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode < 500 || resp.Header.Get("fairlead-reason") != c.reason || !strings.Contains(string(body), c.detail) {
			t.Errorf("%s: %d, %q", c.authority, resp.StatusCode, body)
		}
	}
	for _, s := range o.kinds("client") {
		if !s.Failed {
			t.Errorf("%+v", s)
		}
	}
}

func TestConnectOverHTTP2(t *testing.T) {
	for name, option := range map[string]option{"without a sidecar": withoutBreaker, "with": behindSidecars} {
		t.Run(name, func(t *testing.T) {
			app := speaking(t)
			if name == "with" {
				app = overInbound(t, app)
			}
			o := observe(t, connects, []string{app}, option)
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetUnencryptedHTTP2(true)
			defer transport.CloseIdleConnections()
			for range 3 {
				out, in := io.Pipe()
				q, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://"+o.addr, out)
				if err != nil {
					t.Fatal(err)
				}
				q.Host = "orders.default:443"
				resp, err := transport.RoundTrip(q)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
					t.Fatalf("%s %d", resp.Proto, resp.StatusCode)
				}
				wantBytes(t, resp.Body, "220 at your service\r\n")
				large := strings.Repeat("0123456789", 50_000)
				go func() {
					_, _ = io.WriteString(in, large)
					_ = in.Close()
				}()
				if rest, err := io.ReadAll(resp.Body); string(rest) != large || err != nil {
					t.Errorf("%d bytes, %v", len(rest), err)
				}
				_ = resp.Body.Close()
			}
			if s := o.kinds("server"); s[0].Attributes["http.response.status_code"] != "200" || s[0].Failed {
				t.Errorf("%+v", s[0])
			}
		})
	}
}

func TestConnectOverHTTP2EndsWithWhoeverBreaksIt(t *testing.T) {
	ended := make(chan error, 1)
	o := observe(t, connects, []string{listen(t, func(nc net.Conn) {
		_, _ = io.WriteString(nc, "hello")
		_, err := nc.Read(make([]byte, 1))
		ended <- err
	})})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body, _ := io.Pipe()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://"+o.addr, body)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = "orders.default:443"
	resp, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, resp.Body, "hello")
	_ = resp.Body.Close() // which resets the stream
	if err := <-ended; err == nil {
		t.Error("the instance is not told")
	}
	if s := o.span("server"); s.Attributes["fairlead.reason"] != "client_gone" {
		t.Errorf("%+v", s)
	}
}
