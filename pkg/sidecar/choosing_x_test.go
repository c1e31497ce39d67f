package sidecar_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// choosing is a cluster whose hosts choose by ALPN what they speak.
func choosing(authority, more string) string {
	return more + `
transport_socket:
  name: tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: app.example
    common_tls_context: {validation_context: {trusted_ca: {filename: ` + authority + `}}}
` + speaking("auto_config: {}")
}

// secureHost runs a server of TLS that speaks HTTP/2, if its clients do, or HTTP/1.1 only.
func secureHost(t *testing.T, ca *mtlstest.Authority, http2 bool, h http.HandlerFunc) (address string, connections func() int) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}} //nolint:gosec // a test
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var mu sync.Mutex
	begun := 0
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			begun++
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return begun
	}
}

// A limit of connections is none of requests where a host takes many on one.
func TestMaxConnectionsIsNoLimitOfRequestsToHostsThatChooseHTTP2(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	authority := ca.File(t.TempDir())
	const limits = "circuit_breakers: {thresholds: [{max_connections: 1}]}"
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("HTTP/2 %t", http2), func(t *testing.T) {
			const at = 10
			here, goOn := make(chan struct{}, at), make(chan struct{})
			host, connections := secureHost(t, ca, http2, func(http.ResponseWriter, *http.Request) {
				here <- struct{}{}
				<-goOn
			})
			addr, _ := toHost(t, host, choosing(authority, limits))
			var all sync.WaitGroup
			let := func() {
				all.Go(func() {
					if status, why := statusOf(t, "http://"+addr+"/"); status != 200 {
						t.Errorf("%d (%s)", status, why)
					}
				})
			}
			if http2 { // all at once, to a host of which nothing is known
				for range at {
					let()
				}
				for range at {
					<-here
				}
			} else {
				let()
				<-here
				if status, why := statusOf(t, "http://"+addr+"/"); status != 503 || why != "request_limit" {
					t.Errorf("one more than there are connections: %d (%s)", status, why)
				}
			}
			close(goOn)
			all.Wait()
			if n := connections(); http2 && n != 1 {
				t.Errorf("%d connections", n)
			}
			for range 3 { // one after the other
				let()
				all.Wait()
			}
		})
	}
}

func TestGRPCWebGoesAsWhatTheHostHasChosen(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	authority := ca.File(t.TempDir())
	const message = "\x00\x00\x00\x00\x02hi"
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("HTTP/2 %t", http2), func(t *testing.T) {
			want := map[bool]string{true: "application/grpc+proto", false: "application/grpc-web+proto"}[http2]
			host, _ := secureHost(t, ca, http2, func(w http.ResponseWriter, q *http.Request) {
				body, _ := io.ReadAll(q.Body)
				if got := q.Header.Get("Content-Type"); got != want || string(body) != message {
					t.Errorf("the host is sent %q as %s", body, got)
				}
				w.Header().Set("Content-Type", want)
				_, _ = w.Write(body)
				if http2 {
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
				}
			})
			addr, _ := toHost(t, host, choosing(authority, ""))
			for range 3 { // before anything is known of the host, and after
				q, err := http.NewRequest("POST", "http://"+addr+"/s/M", strings.NewReader(message))
				if err != nil {
					t.Fatal(err)
				}
				q.Header.Set("Content-Type", "application/grpc-web+proto")
				a, err := http.DefaultClient.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(a.Body)
				_ = a.Body.Close()
				if err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/grpc-web+proto" || !bytes.HasPrefix(body, []byte(message)) {
					t.Errorf("%d %v %q, %v", a.StatusCode, a.Header, body, err)
				}
				if end := bytes.TrimPrefix(body, []byte(message)); http2 != bytes.Contains(end, []byte("grpc-status: 0")) {
					t.Errorf("the body ends with %q", end)
				}
			}
		})
	}
}

// The host is a sidecar's listener that takes HTTP/2 only, and CONNECT with a protocol (RFC 8441).
func TestUpgradesGoToHostsThatChooseHTTP2Only(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	ca.Pair(dir, "app.example")
	authority := ca.File(dir)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c, err := websocket.Accept(w, q, nil)
		if err != nil {
			return
		}
		kind, p, err := c.Read(q.Context())
		if err == nil {
			_ = c.Write(q.Context(), kind, p)
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
	}))
	t.Cleanup(app.Close)
	file := strings.Replace(bootstrap, "    filter_chains:\n    - filters:", `    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: `+dir+`/tls.crt}, private_key: {filename: `+dir+`/tls.key}}]
            alpn_protocols: [h2]
      filters:`, 1)
	file = strings.Replace(file, "stat_prefix: web\n", "stat_prefix: web\n          codec_type: HTTP2\n", 1)
	behind, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, fmt.Sprintf(file, 0, 0, app.Listener.Addr().(*net.TCPAddr).Port))})
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	addr, _ := toHost(t, behind.Listeners["web"].String(), choosing(authority, ""))
	for i := range 4 { // before anything is known of the host, and after
		ws, a, err := websocket.Dial(t.Context(), "ws://"+addr+"/", nil)
		if err != nil {
			if a != nil {
				body, _ := io.ReadAll(a.Body)
				t.Logf("%v %s", a.Header, body)
			}
			t.Fatalf("%d: %v", i, err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Error(err)
		}
		if _, p, err := ws.Read(t.Context()); err != nil || string(p) != "hello" {
			t.Errorf("%d: %q, %v", i, p, err)
		}
		_, _, _ = ws.Read(t.Context())
		_ = ws.CloseNow()
		if status, _ := statusOf(t, "http://"+addr+"/"); status != 426 {
			t.Errorf("%d: what is no WebSocket is answered with %d", i, status)
		}
	}
}
