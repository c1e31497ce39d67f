package sidecar_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// What a host says first within TLS is heard as what it says in the clear is, on a port that
// tells HTTP from all else.
func TestAHostBehindTLSMaySpeakFirstWhereHTTPIsLookedFor(t *testing.T) {
	ca, dir := mtlstest.NewAuthority(t, "ca"), t.TempDir()
	ca.Pair(dir, "localhost", mtlstest.IP("127.0.0.1"))
	ca.File(dir)
	pair, err := tls.LoadX509KeyPair(dir+"/tls.crt", dir+"/tls.key")
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcdef", 1<<13)
	serve := func(greeting string) net.Addr {
		return tcpServer(t, func(nc *net.TCPConn) {
			over := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{pair}})
			_, _ = io.WriteString(over, greeting)
			_, _ = io.Copy(struct{ io.Writer }{over}, struct{ io.Reader }{over})
			_ = over.CloseWrite()
		})
	}
	for name, greeting := range map[string]string{"one that speaks first": "220 ready\r\n", "one that says much": big, "one that waits": ""} {
		t.Run(name, func(t *testing.T) {
			upstream := strings.Replace(transportSocket("Upstream", dir, "sni: localhost, "), ", transport_socket", "\n    transport_socket", 1)
			app := serve(greeting)
			addresses, stop, ended := start(t, sidecar.Config{
				DrainTimeout: time.Millisecond,
				Bootstrap:    write(t, document([]string{tellsApart("")}, relayCluster("web", webServer(t), ""), relayCluster("shop", app, ""), relayCluster("opaque", app, "")+upstream)),
			})
			for range 2 {
				c := dial(t, addresses.Listeners["any"])
				hear(t, c, greeting)
				say(t, c, "EHLO\r\n")
				hear(t, c, "EHLO\r\n")
				_ = c.CloseWrite()
				if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
					t.Errorf("%q, %v", rest, err)
				}
				if greeting == "" { // else it is no port for clients of HTTP
					c = dial(t, addresses.Listeners["any"])
					time.Sleep(20 * time.Millisecond) // while its host is connected to; nothing depends on it
					say(t, c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
					wantWeb(t, c, "/a")
					_ = c.Close()
				}
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that says nothing has its place in the limit of the opaque cluster, for it may be
// the host's to speak; but no longer than listener_filters_timeout.
func TestASilentClientGivesItsPlaceBackWhenItsTimeIsOver(t *testing.T) {
	connected := make(chan struct{}, 16)
	app := tcpServer(t, func(nc *net.TCPConn) {
		connected <- struct{}{}
		echo(nc)
	})
	limited := strings.Replace(relayCluster("opaque", app, ""), "    connect_timeout", "    circuit_breakers: {thresholds: [{max_connections: 1}]}\n    connect_timeout", 1)
	var access lockedbuf.Buffer
	addresses, stop, ended := start(t, sidecar.Config{
		DrainTimeout: time.Millisecond, AccessLog: &access, AccessLogFormat: accesslog.JSON,
		Bootstrap: write(t, document([]string{tellsApart("    listener_filters_timeout: 2s\n")}, relayCluster("web", app, ""), relayCluster("shop", app, ""), limited)),
	})
	silent := dial(t, addresses.Listeners["any"])
	<-connected
	if n, err := silent.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a client that says nothing: %d bytes, %v", n, err)
	}
	for until := time.Now().Add(patience); ; { // it is given back a moment later
		c := dial(t, addresses.Listeners["any"])
		say(t, c, "EHLO\r\n")
		b := make([]byte, 6)
		if _, err := io.ReadFull(c, b); err == nil && string(b) == "EHLO\r\n" {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the place is not given back")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if want := `"reason":"bad_preface"`; !strings.Contains(access.String(), want) {
		t.Errorf("the log is without %s: %s", want, access.String())
	}
}
