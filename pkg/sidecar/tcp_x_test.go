package sidecar_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/proxyproto"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

const patience = 20 * time.Second

const (
	headerFilter = `{name: envoy.filters.listener.proxy_protocol, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}`
	tlsInspector = `{name: envoy.filters.listener.tls_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}`
)

// relayListener is a listener on any port.
func relayListener(name, filters string, chains ...string) string {
	return fmt.Sprintf(`
  - name: %s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters: [%s]
    filter_chains: [%s]`, name, filters, strings.Join(chains, ", "))
}

// chain leads to a cluster, for the names of servers or for all.
func chain(cluster, names, more string) string {
	match := ""
	if names != "" {
		match = `filter_chain_match: {server_names: [` + names + `]}, `
	}
	return `{` + match + `filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: ` + cluster + more + `}}]}`
}

// relayCluster is a cluster of one host, whose connections begin with a header of a version;
// "" for none.
func relayCluster(name string, at net.Addr, version string) string {
	socket := ""
	if version != "" {
		socket = `
    transport_socket:
      name: envoy.transport_sockets.upstream_proxy_protocol
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
        config: {version: ` + version + `}
        transport_socket: {name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}`
	}
	return fmt.Sprintf(`
  - name: %s
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: %s
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]%s`,
		name, name, at.(*net.TCPAddr).Port, socket)
}

func document(listeners []string, clusters ...string) string {
	return "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\nstatic_resources:\n  listeners:" + strings.Join(listeners, "") + "\n  clusters:" + strings.Join(clusters, "") + "\n"
}

// tcpServer serves every connection by a function until the test ends.
func tcpServer(t *testing.T, serve func(*net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = nc.SetDeadline(time.Now().Add(2 * patience))
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				serve(nc.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr()
}

func echo(nc *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc}) }

func dial(t *testing.T, at net.Addr) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}

func say(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, nc net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(nc, b); err != nil || string(b) != text {
		t.Fatalf("%q, %v, want %q", b[:n], err, text)
	}
}

// descriptors is how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc")
	}
	return len(files)
}

func TestConnectionsOfABootstrapFileAreRelayedCountedLoggedAndShown(t *testing.T) {
	before := descriptors(t)
	at := tcpServer(t, echo)
	mail := tcpServer(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "220 ready\r\n")
		echo(nc)
	})
	var access lockedbuf.Buffer
	addresses, stop, ended := start(t, sidecar.Config{
		Bootstrap: write(t, document([]string{relayListener("echo", "", chain("app", "", "")), relayListener("mail", "", chain("mail", "", ""))},
			relayCluster("app", at, ""), relayCluster("mail", mail, ""))),
		AccessLog: &access, AccessLogFormat: accesslog.JSON, DrainTimeout: time.Minute,
	})
	c := dial(t, addresses.Listeners["echo"])
	say(t, c, "ping")
	hear(t, c, "ping")
	m := dial(t, addresses.Listeners["mail"])
	hear(t, m, "220 ready\r\n")
	say(t, m, "EHLO\r\n")
	hear(t, m, "EHLO\r\n")

	const n = 100 << 20
	piece := make([]byte, 1<<20)
	_, _ = rand.Read(piece)
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		for range n / len(piece) {
			sent.Write(piece)
			if _, err := c.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
		_ = c.CloseWrite()
	})
	if received, err := io.Copy(got, c); err != nil || received != n {
		t.Errorf("%d bytes, %v", received, err)
	}
	sending.Wait()
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Error("other bytes came back")
	}

	admin := "http://" + addresses.Admin.String()
	for path, want := range map[string]string{
		"/listeners":   "mail",
		"/clusters":    "app::",
		"/config_dump": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
		"/metrics":     `fairlead_tcp_connections_active{destination="mail",source="tcp"} 1`,
	} {
		if code, body := get(t, admin+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q:\n%.2000s", path, code, want, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()

	stop()
	say(t, m, "still") // a drain waits for it
	hear(t, m, "still")
	_ = m.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = c.Close()
	for _, want := range []string{
		fmt.Sprintf(`"bytes_in":%d,"bytes_out":%d`, n+4, n+4), `"destination":"mail"`, `"client":"` + m.LocalAddr().String() + `"`, `"protocol":"TCP"`,
	} {
		if !strings.Contains(access.String(), want) {
			t.Errorf("the log is without %s: %s", want, access.String())
		}
	}
	for until := time.Now().Add(patience); descriptors(t) > before+3; time.Sleep(5 * time.Millisecond) { // the two servers', and maybe a poller's
		if time.Now().After(until) {
			t.Fatalf("%d files are open, %d were", descriptors(t), before)
		}
	}
}

func TestAnInstanceThatIsKilledEndsItsConnectionsWithAReset(t *testing.T) {
	if os.Getenv("FAIRLEAD_TEST_SERVER") != "" { // the instance
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(l.Addr())
		nc, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.WriteString(nc, "hello")
		time.Sleep(time.Minute)
		os.Exit(1)
	}
	instance := exec.Command(os.Args[0], "-test.run=^TestAnInstanceThatIsKilledEndsItsConnectionsWithAReset$")
	instance.Env = append(os.Environ(), "FAIRLEAD_TEST_SERVER=1")
	out, err := instance.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := instance.Start(); err != nil {
		t.Fatal(err)
	}
	line, _, err := bufio.NewReader(out).ReadLine()
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ResolveTCPAddr("tcp", string(line))
	if err != nil {
		t.Fatal(err)
	}
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap:    write(t, document([]string{relayListener("app", "", chain("app", "", ""))}, relayCluster("app", at, ""))),
	})
	c := dial(t, addresses.Listeners["app"])
	hear(t, c, "hello")
	say(t, c, "something that it does not read")
	time.Sleep(50 * time.Millisecond) // until it has it
	if err := instance.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = instance.Wait()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v, want a reset", n, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A client that does not read holds up the server, and not the sidecar's memory.
func TestASlowReaderHoldsUpTheSender(t *testing.T) {
	written := make(chan int, 1)
	at := tcpServer(t, func(nc *net.TCPConn) {
		piece, n := make([]byte, 64<<10), 0
		for {
			_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
			one, err := nc.Write(piece)
			n += one
			if err != nil {
				break
			}
		}
		written <- n
		_ = nc.SetLinger(0)
	})
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap:    write(t, document([]string{relayListener("app", "", chain("app", "", ""))}, relayCluster("app", at, ""))),
	})
	c := dial(t, addresses.Listeners["app"])
	hear(t, c, "\x00")
	if n := <-written; n > 64<<20 { // the buffers of four sockets
		t.Errorf("%d bytes were taken from the server", n)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// certified is a TLS server for names that says one thing, which trust gets.
func certified(t *testing.T, trust *x509.CertPool, says string, names ...string) net.Addr {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trust.AddCert(certificate)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return tcpServer(t, func(nc *net.TCPConn) {
		over := tls.Server(nc, config)
		_, _ = io.WriteString(over, says)
		_ = over.CloseWrite()
		_, _ = io.Copy(io.Discard, over)
	})
}

func TestTLSGoesToTheServerThatItNames(t *testing.T) {
	trust := x509.NewCertPool()
	shop := certified(t, trust, "shop", "shop.example.com", "a.b.shop.example.com")
	blog := certified(t, trust, "blog", "blog.example.com")
	rest := tcpServer(t, echo)
	clusters := []string{relayCluster("shop", shop, ""), relayCluster("blog", blog, ""), relayCluster("rest", rest, "")}
	named := []string{chain("shop", "shop.example.com, '*.shop.example.com'", ""), chain("blog", "blog.example.com", "")}
	var access lockedbuf.Buffer
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{
			relayListener("strict", tlsInspector, named...),
			relayListener("open", tlsInspector, append(named, chain("rest", "", ""))...),
		}, clusters...)),
		AccessLog: &access, AccessLogFormat: accesslog.JSON,
	})
	for _, listener := range []string{"strict", "open"} {
		for name, want := range map[string]string{"shop.example.com": "shop", "SHOP.example.com": "shop", "a.b.shop.example.com": "shop", "blog.example.com": "blog"} {
			c := tls.Client(dial(t, addresses.Listeners[listener]), &tls.Config{ServerName: name, RootCAs: trust})
			if b, err := io.ReadAll(c); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", name, b, err)
			}
			_ = c.Close()
		}
	}
	strange := dial(t, addresses.Listeners["strict"])
	if err := tls.Client(strange, &tls.Config{ServerName: "other.example.com", RootCAs: trust}).Handshake(); err == nil {
		t.Error("a name that no chain has is served")
	}
	plain := dial(t, addresses.Listeners["open"])
	say(t, plain, "GET / HTTP/1.1\r\n")
	hear(t, plain, "GET / HTTP/1.1\r\n")
	_ = plain.Close()
	broken := dial(t, addresses.Listeners["open"])
	say(t, broken, "\x16\x03\x01\x00\x00")
	if n, err := broken.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`"reason":"no_filter_chain"`, `"authority":"other.example.com"`, `"authority":"SHOP.example.com"`,
		`"reason":"bad_preface","detail":"TLS ClientHello: a record is empty`,
	} {
		if !strings.Contains(access.String(), want) {
			t.Errorf("the log is without %s: %s", want, access.String())
		}
	}
}

// heralded serves connections that begin with a header, by which it tells whose they are.
func heralded(nc *net.TCPConn) {
	h, err := proxyproto.Read(nc, 0)
	if err != nil {
		_, _ = fmt.Fprintf(nc, "%v\n", err)
		return
	}
	_, _ = fmt.Fprintf(nc, "v%d %v %v\n", h.Version, h.Source, h.Destination)
	echo(nc)
}

func TestWhoseAConnectionIsIsToldInFrontOfIt(t *testing.T) {
	at := tcpServer(t, heralded)
	for version, v := range map[string]string{"V1": "v1", "V2": "v2"} {
		t.Run(version, func(t *testing.T) {
			addresses, stop, ended := start(t, sidecar.Config{
				DrainTimeout: time.Millisecond,
				Bootstrap: write(t, document([]string{
					relayListener("plain", "", chain("app", "", "")),
					relayListener("passed", headerFilter, chain("app", "", "")),
					relayListener("both", headerFilter+", "+tlsInspector, chain("app", "", "")),
				}, relayCluster("app", at, version))),
			})
			c := dial(t, addresses.Listeners["plain"])
			hear(t, c, fmt.Sprintf("%s %v %v\n", v, c.LocalAddr(), addresses.Listeners["plain"]))
			say(t, c, "x")
			hear(t, c, "x")
			for _, header := range []string{
				"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n",
				"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb",
			} {
				c = dial(t, addresses.Listeners["passed"])
				for _, b := range []byte(header) { // byte by byte
					say(t, c, string([]byte{b}))
				}
				hear(t, c, v+" 192.0.2.1:1234 198.51.100.2:443\n")
				c = dial(t, addresses.Listeners["both"])
				say(t, c, header+"not TLS")
				hear(t, c, v+" 192.0.2.1:1234 198.51.100.2:443\nnot TLS")
			}
			c = dial(t, addresses.Listeners["passed"])
			say(t, c, "PROXY UNKNOWN\r\n") // then what the sockets say counts
			hear(t, c, fmt.Sprintf("%s %v %v\n", v, c.LocalAddr(), addresses.Listeners["passed"]))
			c = dial(t, addresses.Listeners["passed"])
			say(t, c, "GET / HTTP/1.1\r\n")
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("without a header: %d bytes, %v", n, err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAHeaderComesInFrontOfHTTPToo(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	t.Cleanup(app.Close)
	text := fmt.Sprintf(bootstrap, 0, 0, app.Listener.Addr().(*net.TCPAddr).Port)
	text = strings.Replace(text, "    filter_chains:", "    listener_filters: ["+headerFilter+"]\n    listener_filters_timeout: 0.2s\n    filter_chains:", 1)
	var access lockedbuf.Buffer
	addresses, stop, ended := start(t, sidecar.Config{DrainTimeout: time.Millisecond, Bootstrap: write(t, text), AccessLog: &access, AccessLogFormat: accesslog.JSON})
	for _, header := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", "PROXY UNKNOWN\r\n"} {
		c := dial(t, addresses.Listeners["web"])
		say(t, c, header+"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
		responses := bufio.NewReader(c)
		for _, path := range []string{"/a", "/b"} {
			resp, err := http.ReadResponse(responses, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != path {
				t.Errorf("%q, %v", b, err)
			}
			_ = resp.Body.Close()
			if path == "/a" {
				say(t, c, "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
			}
		}
		_ = c.Close()
	}
	for name, first := range map[string]string{"without one": "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "with nothing": "", "with a part of one": "PROXY TC"} {
		c := dial(t, addresses.Listeners["web"])
		say(t, c, first)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(access.String(), `"reason":"bad_preface"`); n != 3 {
		t.Errorf("%d in the log: %s", n, access.String())
	}
}

func TestAHeaderComesInFrontOfTLSToo(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	ca.Pair(dir, "localhost")
	ca.File(dir)
	text := tlsBootstrap(t, 0, 0, 1, dir, "app.example")
	text = strings.Replace(text, "    filter_chains:", "    listener_filters: ["+headerFilter+", "+tlsInspector+"]\n    filter_chains:", 1)
	addresses, stop, ended := start(t, sidecar.Config{DrainTimeout: time.Millisecond, Bootstrap: write(t, text)})
	c := dial(t, addresses.Listeners["web"])
	say(t, c, "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n")
	over := tls.Client(c, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.Certificate("client.example")}}) //nolint:gosec // a test
	say(t, over, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(over), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	_ = resp.Body.Close()
	bare := dial(t, addresses.Listeners["web"])
	if err := tls.Client(bare, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}).Handshake(); err == nil { //nolint:gosec // a test
		t.Error("TLS without a header was served")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// haproxy runs HAProxy, if there is one, with frontends on free ports, and returns where
// they listen. Each is sections, of %s for its address.
func haproxy(t *testing.T, sections ...string) []net.Addr {
	t.Helper()
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			t.Skip("HAProxy is not installed")
		}
	}
	text := "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
	var addresses []net.Addr
	for _, section := range sections {
		at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: freeport.For(t)}
		text += fmt.Sprintf(section, at)
		addresses = append(addresses, at)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said lockedbuf.Buffer
	process := exec.Command(binary, "-db", "-f", file)
	process.Stdout, process.Stderr = &said, &said
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	for _, at := range addresses {
		for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			nc, err := net.Dial("tcp", at.String())
			if err == nil {
				_ = nc.Close()
				break
			}
			if time.Now().After(until) {
				t.Fatalf("HAProxy does not listen: %s", said.String())
			}
		}
	}
	return addresses
}

func TestHAProxyUnderstandsTheHeaderAndSendsIt(t *testing.T) {
	at := tcpServer(t, heralded)
	// HAProxy takes a header, and sends another on, of the connection as it was told of it.
	between := haproxy(t, "listen taking\n  bind %s accept-proxy\n  server app "+at.String()+" send-proxy-v2\n")
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{
			relayListener("v1", "", chain("v1", "", "")), relayListener("v2", "", chain("v2", "", "")),
			relayListener("taking", headerFilter, chain("app", "", "")),
		}, relayCluster("v1", between[0], "V1"), relayCluster("v2", between[0], "V2"), relayCluster("app", at, "V2"))),
	})
	for _, listener := range []string{"v1", "v2"} {
		c := dial(t, addresses.Listeners[listener])
		say(t, c, "x")
		hear(t, c, fmt.Sprintf("v2 %v %v\nx", c.LocalAddr(), addresses.Listeners[listener]))
		_ = c.Close()
	}
	taking := addresses.Listeners["taking"].String()
	in := haproxy(t,
		"listen one\n  bind %s\n  server fairlead "+taking+" send-proxy\n",
		"listen two\n  bind %s\n  server fairlead "+taking+" send-proxy-v2\n",
		"listen three\n  bind %s\n  server fairlead "+taking+" send-proxy-v2 proxy-v2-options crc32c,unique-id\n",
		"listen checked\n  bind %s\n  server fairlead "+taking+" check inter 100ms send-proxy-v2\n")
	for _, from := range in {
		c := dial(t, from)
		say(t, c, "x")
		hear(t, c, fmt.Sprintf("v2 %v %v\nx", c.LocalAddr(), from))
		_ = c.Close()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheConfigurationOfRelayedConnectionsIsShownAsItWasRead(t *testing.T) {
	at := tcpServer(t, echo)
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond,
		Bootstrap: write(t, document([]string{relayListener("in", headerFilter+","+tlsInspector, chain("app", "a.example", ", idle_timeout: 7s, max_connect_attempts: 5"), chain("app", "", ""))},
			relayCluster("app", at, "V1"))),
	})
	_, body := get(t, "http://"+addresses.Admin.String()+"/config_dump")
	http.DefaultClient.CloseIdleConnections()
	var dump struct {
		Listeners []struct {
			ListenerFilters []any `json:"listenerFilters"`
			FilterChains    []struct {
				Filters []struct {
					TypedConfig map[string]any `json:"typedConfig"`
				} `json:"filters"`
			} `json:"filterChains"`
		} `json:"listeners"`
	}
	if err := json.Unmarshal([]byte(body), &dump); err != nil {
		t.Fatal(err)
	}
	l := dump.Listeners[0]
	if len(l.ListenerFilters) != 2 || len(l.FilterChains) != 2 || l.FilterChains[0].Filters[0].TypedConfig["idleTimeout"] != "7s" ||
		l.FilterChains[0].Filters[0].TypedConfig["maxConnectAttempts"] != 5.0 || !strings.Contains(body, "ProxyProtocolUpstreamTransport") {
		t.Errorf("%s", body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
