package sidecar_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

const httpInspector = `{name: envoy.filters.listener.http_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}`

// filterChain has a filter, what it is for, and maybe a transport socket.
func filterChain(match, filter, more string) string {
	if match != "" {
		match = "filter_chain_match: {" + match + "}, "
	}
	return "{" + match + "filters: [" + filter + "]" + more + "}"
}

func tcpFilter(cluster string) string {
	return `{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: ` + cluster + `}}`
}

func httpFilter(cluster string) string {
	return `{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: http, ` +
		`route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: ` + cluster + `}}]}]}, ` +
		`http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}`
}

const isHTTP = `transport_protocol: raw_buffer, application_protocols: [http/1.0, http/1.1, h2c]`

// tellsApart is a listener for all that one port may be: HTTP, TLS of two servers, and opaque.
func tellsApart(more string) string {
	l := relayListener("any", tlsInspector+", "+httpInspector,
		filterChain(isHTTP, httpFilter("web"), ""),
		filterChain("server_names: [shop.example.com]", tcpFilter("shop"), ""),
		filterChain("transport_protocol: raw_buffer", tcpFilter("opaque"), ""))
	return strings.Replace(l, "    filter_chains:", more+"    filter_chains:", 1)
}

func webServer(t *testing.T) net.Addr {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "web "+r.URL.Path) }))
	t.Cleanup(app.Close)
	return app.Listener.Addr()
}

func wantWeb(t *testing.T, c net.Conn, path string) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "web "+path {
		t.Errorf("%q, %v", body, err)
	}
}

func TestOnePortTakesWhateverItsClientsSpeak(t *testing.T) {
	trust := x509.NewCertPool()
	shop := certified(t, trust, "shop", "shop.example.com")
	mail := tcpServer(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "220 ready\r\n")
		echo(nc)
	})
	listeners := []string{tellsApart(""), strings.Replace(strings.Replace(tellsApart(""), "name: any", "name: mail", 1), "cluster: opaque", "cluster: mail", 1)}
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document(listeners, relayCluster("web", webServer(t), ""), relayCluster("shop", shop, ""),
			relayCluster("opaque", tcpServer(t, echo), ""), relayCluster("mail", mail, ""))),
	})
	at := addresses.Listeners["any"]
	for range 2 { // the second time, what it was the first time is remembered
		c := dial(t, addresses.Listeners["mail"]) // where the server speaks first
		hear(t, c, "220 ready\r\n")
		say(t, c, "EHLO a\r\n")
		hear(t, c, "EHLO a\r\n")
		_ = c.Close()

		c = dial(t, at)
		say(t, c, "\x00\x01\xff")
		hear(t, c, "\x00\x01\xff")
		_ = c.Close()

		c = dial(t, at) // which has said all it has to say
		say(t, c, "PRI")
		_ = c.CloseWrite()
		hear(t, c, "PRI")
		_ = c.Close()

		secure := tls.Client(dial(t, at), &tls.Config{ServerName: "shop.example.com", RootCAs: trust})
		hear(t, secure, "shop")
		_ = secure.Close()

		c = dial(t, at)
		say(t, c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
		wantWeb(t, c, "/1")
		say(t, c, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
		wantWeb(t, c, "/2")
		_ = c.Close()

		h2 := &http.Transport{Protocols: new(http.Protocols)}
		h2.Protocols.SetUnencryptedHTTP2(true)
		response, err := (&http.Client{Transport: h2}).Get("http://" + at.String() + "/3")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); string(body) != "web /3" || err != nil || response.ProtoMajor != 2 {
			t.Errorf("%q, %v, %s", body, err, response.Proto)
		}
		_ = response.Body.Close()
		h2.CloseIdleConnections()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Once a destination has been seen to speak HTTP, nobody is connected to while its clients
// begin; and it may turn out to be otherwise.
func TestWhatADestinationWasSpeaksOnlyForItselfAndIsUnlearnt(t *testing.T) {
	var opaque atomic.Int32
	var greets atomic.Bool
	mail := tcpServer(t, func(nc *net.TCPConn) {
		opaque.Add(1)
		if greets.Load() {
			_, _ = io.WriteString(nc, "220 ready\r\n")
		}
		echo(nc)
	})
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{tellsApart("")},
			relayCluster("web", webServer(t), ""), relayCluster("shop", mail, ""), relayCluster("opaque", mail, ""))),
	})
	at := addresses.Listeners["any"]
	for range 20 {
		c := dial(t, at)
		say(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		wantWeb(t, c, "/")
		_ = c.Close()
	}
	if n := opaque.Load(); n > 1 { // for the first of them
		t.Errorf("the host of opaque connections was connected to %d times", n)
	}
	greets.Store(true)
	for range 2 {
		c := dial(t, at)
		hear(t, c, "220 ready\r\n")
		_ = c.Close()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAClientMaySpeakAsSlowlyAsItLikes(t *testing.T) {
	app := tcpServer(t, echo)
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{tellsApart("")},
			relayCluster("web", webServer(t), ""), relayCluster("shop", app, ""), relayCluster("opaque", app, ""))),
	})
	at := addresses.Listeners["any"]
	slowly := func(text string) *net.TCPConn {
		c := dial(t, at)
		_ = c.SetNoDelay(true)
		for i := range len(text) {
			say(t, c, text[i:i+1])
			time.Sleep(time.Millisecond)
		}
		return c
	}
	wantWeb(t, slowly("OPTIONS /slow HTTP/1.1\r\nHost: a\r\n\r\n"), "/slow")
	for _, text := range []string{
		"OPTIONx /", "GET httpx", "PRI * HTTP/2.0\r\n\r\nSN", "\r\n\r\n", "\x16\x02", "\x16\x03\x01\x00", "\x00", strings.Repeat("x", 100),
	} {
		c := slowly(text)
		if strings.HasPrefix(text, "\x16\x03") { // it may become TLS
			_ = c.CloseWrite()
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%q: %d bytes, %v", text, n, err)
			}
			continue
		}
		hear(t, c, text)
		_ = c.Close()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAClientThatSaysNothingIsClosedOrRelayedAsTheFileSays(t *testing.T) {
	app := tcpServer(t, echo)
	for _, goesOn := range []bool{false, true} {
		addresses, stop, ended := start(t, sidecar.Config{
			DrainTimeout: time.Millisecond,
			Bootstrap: write(t, document([]string{tellsApart(fmt.Sprintf("    listener_filters_timeout: 0.1s\n    continue_on_listener_filters_timeout: %t\n", goesOn))},
				relayCluster("web", app, ""), relayCluster("shop", app, ""), relayCluster("opaque", app, ""))),
		})
		c := dial(t, addresses.Listeners["any"])
		if goesOn {
			say(t, c, "GE")
			time.Sleep(300 * time.Millisecond)
			say(t, c, "T / HTTP/1.1\r\n")
			hear(t, c, "GET / HTTP/1.1\r\n")
		} else if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = c.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// transportSocket is TLS of files; side is Downstream or Upstream.
func transportSocket(side, dir, more string) string {
	return `, transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.` + side + `TlsContext, ` + more +
		`common_tls_context: {tls_certificates: [{certificate_chain: {filename: ` + dir + `/tls.crt}, private_key: {filename: ` + dir + `/tls.key}}], ` +
		`validation_context: {trusted_ca: {filename: ` + dir + `/ca.crt}}}}}`
}

// alert is the content type of TLS's alerts (RFC 8446 §5.1).
const alert = 21

func TestTLSOfRelayedConnectionsEndsAndBeginsWhereTheFileSays(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	ca.Pair(dir, "localhost", mtlstest.IP("127.0.0.1"))
	ca.File(dir)
	trust := ca.Pool()
	pair, err := tls.LoadX509KeyPair(dir+"/tls.crt", dir+"/tls.key")
	if err != nil {
		t.Fatal(err)
	}
	secure := tcpServer(t, func(nc *net.TCPConn) { // an echo that hears the end, and then says that it did
		over := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"echo"}})
		_, _ = io.WriteString(over, "hello ")
		if _, err := io.Copy(struct{ io.Writer }{over}, struct{ io.Reader }{over}); err == nil {
			_, _ = io.WriteString(over, " end")
		}
		_ = over.CloseWrite()
	})
	plain := tcpServer(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "hello ")
		echo(nc)
		_, _ = io.WriteString(nc, " end")
	})
	upstream := strings.Replace(transportSocket("Upstream", dir, "sni: localhost, "), ", transport_socket", "\n    transport_socket", 1)
	listeners := []string{
		relayListener("ends", "", filterChain("", tcpFilter("plain"), transportSocket("Downstream", dir, ""))),
		relayListener("begins", "", filterChain("", tcpFilter("secure"), "")),
		relayListener("both", tlsInspector,
			filterChain("server_names: [localhost]", tcpFilter("secure"), transportSocket("Downstream", dir, "")),
			filterChain("server_names: [web.example]", httpFilter("web"), transportSocket("Downstream", dir, ""))),
	}
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document(listeners, relayCluster("plain", plain, ""),
			relayCluster("secure", secure, "")+upstream, relayCluster("web", webServer(t), ""))),
	})
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for _, name := range []string{"ends", "begins", "both"} {
		nc := dial(t, addresses.Listeners[name])
		var c interface {
			net.Conn
			CloseWrite() error
		} = nc
		if name != "begins" {
			c = tls.Client(nc, &tls.Config{ServerName: "localhost", RootCAs: trust})
		}
		hear(t, c, "hello ")
		say(t, c, "ping")
		hear(t, c, "ping")
		go func() {
			_, _ = io.WriteString(c, big)
			_ = c.CloseWrite()
		}()
		if all, err := io.ReadAll(c); err != nil || string(all) != big+" end" {
			t.Errorf("%s: %d bytes, %v", name, len(all), err)
		}
		_ = c.Close()
	}
	c := tls.Client(dial(t, addresses.Listeners["both"]), &tls.Config{ServerName: "web.example", InsecureSkipVerify: true})
	say(t, c, "GET /tls HTTP/1.1\r\nHost: a\r\n\r\n")
	wantWeb(t, c, "/tls")
	_ = c.Close()

	torn := dial(t, addresses.Listeners["ends"])
	over := tls.Client(torn, &tls.Config{ServerName: "localhost", RootCAs: trust})
	hear(t, over, "hello ")
	_ = torn.CloseWrite() // without close_notify
	if rest, err := io.ReadAll(over); err == nil || strings.Contains(string(rest), "end") {
		t.Errorf("a connection that was cut off came to a good end: %q", rest)
	}
	clear := dial(t, addresses.Listeners["ends"])
	say(t, clear, "GET / HTTP/1.1\r\n\r\n")
	if got, _ := io.ReadAll(clear); len(got) > 0 && got[0] != alert {
		t.Errorf("what is not TLS was told %q", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestConnectOfABootstrapFileIsATunnelToItsRoute(t *testing.T) {
	route := `routes: [{match: {prefix: "/"}, route: {cluster: web}}, ` +
		`{match: {connect_matcher: {}}, route: {cluster: app, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]`
	manager := strings.Replace(strings.Replace(httpFilter("web"), `routes: [{match: {prefix: "/"}, route: {cluster: web}}]`, route, 1),
		"http_filters", "upgrade_configs: [{upgrade_type: CONNECT}], http_filters", 1)
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{
			relayListener("tunnels", "", filterChain("", manager, "")),
			relayListener("none", "", filterChain("", httpFilter("web"), "")),
		}, relayCluster("web", webServer(t), ""), relayCluster("app", tcpServer(t, echo), ""))),
	})
	c := dial(t, addresses.Listeners["tunnels"])
	say(t, c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
	wantWeb(t, c, "/1")
	say(t, c, "CONNECT whoever.example:443 HTTP/1.1\r\nHost: whoever.example:443\r\n\r\nearly ")
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%v, %v", response, err)
	}
	say(t, c, "late")
	_ = c.CloseWrite()
	if all, err := io.ReadAll(r); string(all) != "early late" || err != nil {
		t.Errorf("%q, %v", all, err)
	}

	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	in, out := io.Pipe()
	q, err := http.NewRequest("CONNECT", "http://"+addresses.Listeners["tunnels"].String(), in)
	if err != nil {
		t.Fatal(err)
	}
	over, err := h2.RoundTrip(q)
	if err != nil || over.StatusCode != 200 {
		t.Fatalf("%v, %v", over, err)
	}
	_, _ = io.WriteString(out, "over HTTP/2")
	_ = out.Close()
	if all, err := io.ReadAll(over.Body); string(all) != "over HTTP/2" || err != nil {
		t.Errorf("%q, %v", all, err)
	}
	_ = over.Body.Close()
	for _, nowhere := range []string{"a", "a:", "a:0", "a:65536"} {
		if q, err = http.NewRequest("CONNECT", "http://"+addresses.Listeners["tunnels"].String(), nil); err != nil {
			t.Fatal(err)
		}
		q.Host = nowhere
		refused, err := h2.RoundTrip(q)
		if err != nil || refused.StatusCode != 400 {
			t.Fatalf("CONNECT %s over HTTP/2: %v, %v", nowhere, refused, err)
		}
		_ = refused.Body.Close()
		c = dial(t, addresses.Listeners["tunnels"])
		say(t, c, "CONNECT "+nowhere+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if response, err = http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"}); err != nil || response.StatusCode != 400 {
			t.Errorf("CONNECT %s: %v, %v", nowhere, response, err)
		}
	}
	h2.CloseIdleConnections()

	c = dial(t, addresses.Listeners["none"])
	say(t, c, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
	if response, err = http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"}); err != nil || response.StatusCode != 501 {
		t.Errorf("%v, %v", response, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
