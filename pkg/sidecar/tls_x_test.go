package sidecar_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// tlsBootstrap is bootstrap with TLS on both sides; %[4]s is the directory of the files, and %[5]s is
// the name of the hosts.
func tlsBootstrap(t *testing.T, adminPort, port, app int, dir, name string) string {
	t.Helper()
	common := fmt.Sprintf(`
            common_tls_context:
              tls_certificates: [{certificate_chain: {filename: %[1]s/tls.crt}, private_key: {filename: %[1]s/tls.key}}]
              validation_context: {trusted_ca: {filename: %[1]s/ca.crt}}`, dir)
	text := fmt.Sprintf(bootstrap, adminPort, port, app)
	text = strings.Replace(text, "    filter_chains:\n    - filters:", `    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
            require_client_certificate: true`+common+`
              alpn_protocols: [h2, http/1.1]
      filters:`, 1)
	return text + `
    transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
            sni: ` + name + common + "\n"
}

// secureMesh is a sidecar between a client and an application that both insist on TLS.
type secureMesh struct {
	ca        *mtlstest.Authority
	dir       string // the sidecar's files
	addresses sidecar.Addresses
	client    *tls.Config
	served    atomic.Int64
}

func startSecure(t *testing.T, name string) *secureMesh {
	t.Helper()
	return startSecureWith(t, name, func(text, _ string) sidecar.Config { return sidecar.Config{Bootstrap: write(t, text)} })
}

// startSecureWith starts it with what config makes of the bootstrap file's text and the directory of the certificates.
func startSecureWith(t *testing.T, name string, config func(text, dir string) sidecar.Config) *secureMesh {
	t.Helper()
	m := &secureMesh{ca: mtlstest.NewAuthority(t, "ca"), dir: t.TempDir()}
	m.ca.Pair(m.dir, "localhost", mtlstest.IP("127.0.0.1"))
	m.ca.File(m.dir)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.served.Add(1)
		w.Header().Set("Session", fmt.Sprintf("%s, resumed: %t", tls.VersionName(r.TLS.Version), r.TLS.DidResume))
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.Copy(w, r.Body)
		_, _ = fmt.Fprintf(w, "%s of %s", r.URL.Path, r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	app.TLS = &tls.Config{Certificates: []tls.Certificate{m.ca.Certificate("app.example")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.ca.Pool()} //nolint:gosec // a test
	app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	app.StartTLS()
	t.Cleanup(app.Close)
	text := tlsBootstrap(t, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port, m.dir, name)
	addresses, stop, ended := start(t, config(text, m.dir))
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	m.addresses = addresses
	m.client = &tls.Config{RootCAs: m.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{m.ca.Certificate("client.example")}} //nolint:gosec // a test
	return m
}

func (m *secureMesh) url(path string) string {
	return "https://" + m.addresses.Listeners["web"].String() + path
}

// http returns a client; one that does not keep connections does a handshake for each request.
func (m *secureMesh) http(t *testing.T, keeps bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: m.client.Clone(), DisableKeepAlives: !keeps, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func fetch(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return string(b), err
}

// metric returns the value of a series, "" if there is none.
func (m *secureMesh) metric(t *testing.T, series string) string {
	t.Helper()
	_, text := get(t, "http://"+m.addresses.Admin.String()+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func TestMutualTLSFromABootstrapFile(t *testing.T) {
	m := startSecure(t, "app.example")
	if got, err := fetch(m.http(t, true), m.url("/a")); err != nil || got != "/a of localhost" {
		t.Errorf("%q, %v", got, err)
	}
	if resp, err := m.http(t, true).Get(m.url("/a")); err != nil || resp.ProtoMajor != 2 || resp.Body.Close() != nil {
		t.Errorf("it is not HTTP/2 to the client: %v, %v", resp, err)
	}
	stranger := m.http(t, true)
	stranger.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	if _, err := fetch(stranger, m.url("/a")); err == nil {
		t.Error("a client without a certificate is served")
	}
	if code, body := get(t, "http://"+m.addresses.Listeners["web"].String()+"/a"); code != 400 || !strings.Contains(body, "takes TLS only") {
		t.Errorf("in the clear: %d %s", code, body)
	}
	for series, want := range map[string]string{
		`fairlead_tls_handshakes_total{result="ok",tls="listener web"}`:             "2",
		`fairlead_tls_handshakes_total{result="ok",tls="cluster app"}`:              "1",
		`fairlead_tls_handshakes_total{result="no_certificate",tls="listener web"}`: "1",
		`fairlead_tls_handshakes_total{result="not_tls",tls="listener web"}`:        "1",
		`fairlead_tls_reload_failing{tls="listener web"}`:                           "0",
		`fairlead_tls_reloads_total{tls="cluster app"}`:                             "0",
	} {
		if got := m.metric(t, series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	if got := m.metric(t, fmt.Sprintf(`fairlead_tls_certificate_days_left{file="%s/tls.crt",tls="listener web"}`, m.dir)); !strings.HasPrefix(got, "99.9") {
		t.Errorf("days left: %q", got)
	}
	for path, wants := range map[string][]string{
		"/certs":       {`"used_by": "listener web"`, `"used_by": "cluster app"`, `"localhost"`, `"authority": true`, m.dir + "/tls.crt"},
		"/config_dump": {"DownstreamTlsContext", "UpstreamTlsContext", m.dir + "/tls.key"},
	} {
		_, text := get(t, "http://"+m.addresses.Admin.String()+path)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s is without %s:\n%.3000s", path, want, text)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s shows a key", path)
		}
	}
}

func TestTheVersionsOfTLSAreThoseOfTheFile(t *testing.T) {
	for _, c := range []struct{ params, version string }{
		{"{tls_minimum_protocol_version: TLSv1_3}", "TLS 1.3"},
		{"{tls_maximum_protocol_version: TLSv1_2}", "TLS 1.2"},
	} {
		t.Run(c.version, func(t *testing.T) {
			m := startSecureWith(t, "app.example", func(text, _ string) sidecar.Config {
				return sidecar.Config{Bootstrap: write(t, strings.ReplaceAll(text, "            common_tls_context:\n", "            common_tls_context:\n              tls_params: "+c.params+"\n"))}
			})
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				m.client.MinVersion, m.client.MaxVersion = version, version
				resp, err := m.http(t, false).Get(m.url("/a"))
				switch {
				case err != nil && tls.VersionName(version) == c.version:
					t.Error(err)
				case err == nil && tls.VersionName(version) != c.version:
					t.Errorf("the listener takes %s", tls.VersionName(version))
				}
				if err != nil {
					continue
				}
				_ = resp.Body.Close()
				if got := resp.Header.Get("Session"); !strings.HasPrefix(got, c.version+",") {
					t.Errorf("the host is spoken to by %s, want %s", got, c.version)
				}
			}
		})
	}
}

// A session is resumed at both sides of the sidecar, over both versions of TLS.
func TestSessionsOfTLSAreResumedThroughASidecar(t *testing.T) {
	for _, c := range []struct {
		version uint16
		params  string
	}{{tls.VersionTLS12, "{tls_maximum_protocol_version: TLSv1_2}"}, {tls.VersionTLS13, "{}"}} {
		t.Run(tls.VersionName(c.version), func(t *testing.T) {
			m := startSecureWith(t, "app.example", func(text, _ string) sidecar.Config {
				return sidecar.Config{Bootstrap: write(t, strings.ReplaceAll(text, "            common_tls_context:\n", "            common_tls_context:\n              tls_params: "+c.params+"\n"))}
			})
			m.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			client := m.http(t, false) // each request has a connection to itself
			for _, resumed := range []bool{false, true} {
				resp, err := client.Get(m.url("/last")) // and so at the host
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.TLS.Version != c.version || resp.TLS.DidResume != resumed {
					t.Errorf("of the client: %s, resumed: %t, want %t", tls.VersionName(resp.TLS.Version), resp.TLS.DidResume, resumed)
				}
				if got, want := resp.Header.Get("Session"), fmt.Sprintf("%s, resumed: %t", tls.VersionName(c.version), resumed); got != want {
					t.Errorf("of the host: %s, want %s", got, want)
				}
			}
		})
	}
}

func TestHostsAreCalledByWhatTheyChooseByALPN(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	authority := ca.File(dir)
	serve := func(l net.Listener, http2 bool) *httptest.Server {
		app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") == "" {
				_, _ = io.WriteString(w, r.Proto)
				return
			}
			if c, err := websocket.Accept(w, r, nil); err == nil {
				_ = c.Close(websocket.StatusNormalClosure, r.Proto)
			}
		}))
		_ = app.Listener.Close()
		app.Listener, app.EnableHTTP2 = l, http2
		app.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}} //nolint:gosec // a test
		app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		app.StartTLS()
		return app
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, fmt.Sprintf(bootstrap, 0, 0, l.Addr().(*net.TCPAddr).Port)+`
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: app.example
        common_tls_context: {validation_context: {trusted_ca: {filename: `+authority+`}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        auto_config: {}
`)})
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	web := addresses.Listeners["web"].String()
	for i, c := range []struct {
		http2 bool
		want  string
	}{{true, "HTTP/2.0"}, {false, "HTTP/1.1"}, {true, "HTTP/2.0"}} {
		if i > 0 {
			if l, err = net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			}
		}
		app := serve(l, c.http2)
		if i > 0 {
			// That the old connection is gone may cost the one retry; that the host speaks
			// something else is found out by the next.
			_, _ = get(t, "http://"+web+"/")
		}
		for range 3 {
			if status, got := get(t, "http://"+web+"/"); status != 200 || got != c.want {
				t.Errorf("with HTTP/2: %t: %d, %q", c.http2, status, got)
			}
		}
		ws, _, err := websocket.Dial(t.Context(), "ws://"+web+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("a WebSocket ends with %v", err)
		}
		app.CloseClientConnections()
		app.Close()
	}
}

func TestAHostOfAnotherNameIsNotCalled(t *testing.T) {
	m := startSecure(t, "other.example")
	if got, err := fetch(m.http(t, true), m.url("/a")); err == nil || !strings.Contains(err.Error(), "status 503: ") || !strings.Contains(err.Error(), "tls_failed") {
		t.Errorf("%q, %v", got, err)
	}
	if m.served.Load() != 0 {
		t.Error("the application was called")
	}
}

func TestCertificatesChangeUnderRequestsAndNoneFails(t *testing.T) {
	m := startSecure(t, "app.example")
	stop := make(chan struct{})
	var calling sync.WaitGroup
	var calls atomic.Int64
	for i := range 4 {
		client := m.http(t, i%2 == 0)
		calling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got, err := fetch(client, m.url("/a")); err != nil || !strings.HasPrefix(got, "/a of ") {
					t.Errorf("%q, %v", got, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for n, name := range []string{"localhost", "localhost"} {
		m.ca.Pair(m.dir, name)
		for end := time.Now().Add(30 * time.Second); m.metric(t, `fairlead_tls_reloads_total{tls="listener web"}`) != fmt.Sprint(n+1) ||
			m.metric(t, `fairlead_tls_reloads_total{tls="cluster app"}`) != fmt.Sprint(n+1); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the change is not taken")
			}
		}
		c, err := tls.Dial("tcp", m.addresses.Listeners["web"].String(), m.client)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0].IPAddresses; len(got) != 0 { // which the first one had
			t.Errorf("the certificate is of %v still", got)
		}
		_ = c.Close()
	}
	mtlstest.Write(t, filepath.Join(m.dir, "tls.key"), []byte("x"))
	for end := time.Now().Add(30 * time.Second); m.metric(t, `fairlead_tls_reload_failing{tls="listener web"}`) != "1"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the fault is not seen")
		}
	}
	before := calls.Load()
	for end := time.Now().Add(30 * time.Second); calls.Load() < before+20 && time.Now().Before(end) && !t.Failed(); time.Sleep(time.Millisecond) {
	}
	if calls.Load() < before+20 {
		t.Error("requests do not go on")
	}
	close(stop)
	calling.Wait()
}

// curl and openssl are other peoples' TLS.
func TestOtherPeoplesClientsGetThrough(t *testing.T) {
	m := startSecure(t, "app.example")
	client := t.TempDir()
	m.ca.Pair(client, "client.example")
	ca, crt, key := filepath.Join(m.dir, "ca.crt"), filepath.Join(client, "tls.crt"), filepath.Join(client, "tls.key")
	address := m.addresses.Listeners["web"].String()
	run := func(t *testing.T, stdin, program string, args ...string) (string, error) {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skip(program + " is not installed")
		}
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, version := range []string{"1.2", "1.3"} {
		t.Run("curl "+version, func(t *testing.T) {
			for _, protocol := range []string{"1.1", "2"} {
				out, err := run(t, "", "curl", "-sS", "--http"+protocol, "--cacert", ca, "--cert", crt, "--key", key, "--tlsv"+version, "--tls-max", version,
					"-w", "%{http_version};", "-o", "/dev/null", m.url("/a"))
				if err != nil || out != protocol+";" {
					t.Errorf("HTTP/%s: %q, %v", protocol, out, err)
				}
			}
			out, err := run(t, "", "curl", "-sS", "--cacert", ca, "--cert", crt, "--key", key, "--tlsv"+version, "--tls-max", version,
				m.url("/a"), m.url("/b"), "-d", "x")
			if err != nil || out != "x/a of localhostx/b of localhost" {
				t.Errorf("%q, %v", out, err)
			}
			if out, err := run(t, "", "curl", "-sS", "--cacert", ca, "--tlsv"+version, "--tls-max", version, m.url("/a")); err == nil {
				t.Errorf("without a certificate: %q", out)
			}
		})
		t.Run("openssl "+version, func(t *testing.T) {
			flag := "-tls" + strings.Replace(version, ".", "_", 1)
			request := "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			out, err := run(t, request, "openssl", "s_client", "-connect", address, "-CAfile", ca, "-cert", crt, "-key", key, flag,
				"-servername", "localhost", "-verify_return_error", "-verify_hostname", "localhost", "-alpn", "http/1.1", "-ign_eof")
			if err != nil || !strings.Contains(out, "/a of localhost") || !strings.Contains(out, "ALPN protocol: http/1.1") || !strings.Contains(out, "Verify return code: 0 (ok)") {
				t.Errorf("%v\n%s", err, out)
			}
			session := filepath.Join(t.TempDir(), "session")
			for _, way := range []string{"-sess_out", "-sess_in"} {
				out, err = run(t, request, "openssl", "s_client", "-connect", address, "-CAfile", ca, "-cert", crt, "-key", key, flag, way, session, "-ign_eof")
			}
			if err != nil || !strings.Contains(out, "Reused, ") {
				t.Errorf("the session is not resumed: %v\n%s", err, out)
			}
		})
	}
}

func TestCertificatesThatCannotBeUsedEndTheStart(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	ca.Pair(dir, "localhost")
	text := tlsBootstrap(t, freeport.For(t), freeport.For(t), 1, dir, "app.example")
	err := sidecar.Run(t.Context(), sidecar.Config{Bootstrap: write(t, text)})
	if err == nil || !strings.Contains(err.Error(), "cluster app: common_tls_context.validation_context.trusted_ca.filename "+dir+"/ca.crt: no such file") {
		t.Error(err)
	}
}

// TestCertificatesMayBeInlineAndTheirKeysAreShownNowhere has them in the file, as examples for Envoy do, one as text and one in base64.
func TestCertificatesMayBeInlineAndTheirKeysAreShownNowhere(t *testing.T) {
	var log lockedbuf.Buffer
	var key []byte
	m := startSecureWith(t, "app.example", func(text, dir string) sidecar.Config {
		for name, field := range map[string]string{"tls.crt": "inline_string: %q", "ca.crt": "inline_string: %q", "tls.key": "inline_bytes: %s"} {
			file := filepath.Join(dir, name)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			value := string(data)
			if name == "tls.key" {
				key, value = data, base64.StdEncoding.EncodeToString(data)
			}
			text = strings.ReplaceAll(text, "filename: "+file, fmt.Sprintf(field, value))
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		return sidecar.Config{Bootstrap: write(t, text), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	})
	if body, err := fetch(m.http(t, false), m.url("/inline")); err != nil || body != "/inline of localhost" {
		t.Errorf("%q, %v", body, err)
	}
	shown := log.String()
	for _, path := range []string{"/config_dump", "/certs", "/certs?format=json", "/listeners", "/clusters", "/stats/prometheus"} {
		_, body := get(t, "http://"+m.addresses.Admin.String()+path)
		shown += body
	}
	if !strings.Contains(shown, "inline:static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates[0].private_key") {
		t.Errorf("where the key is, is not shown: %s", shown)
	}
	block, _ := pem.Decode(key)
	for form, secret := range map[string]string{"text": strings.Split(string(key), "\n")[1], "base64": base64.StdEncoding.EncodeToString(key), "bytes": string(block.Bytes)} {
		if strings.Contains(shown, secret) {
			t.Errorf("the key is shown, as %s", form)
		}
	}
}
