package tcp_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

// secured is a listener's TLS, and what its clients trust.
func secured(t *testing.T) (*mtls.Server, *tls.Config) {
	t.Helper()
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(k.Close)
	a := mtlstest.NewAuthority(t, "root")
	s, err := k.Server("listener web", mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{a.Pair(t.TempDir(), "proxy.example")}}})
	if err != nil {
		t.Fatal(err)
	}
	return s, &tls.Config{ServerName: "proxy.example", RootCAs: a.Pool(), MinVersion: tls.VersionTLS13}
}

func TestThoseWhoDoNotEndTheirHandshakeMakeRoom(t *testing.T) {
	server, trust := secured(t)
	r := start(t, setup{route: tcp.Route{TLS: server}, server: proxy.Config{MaxConnections: 3}}, backend(t, echo))
	relayed := tls.Client(r.dial(), trust)
	send(t, relayed, "x")
	receive(t, relayed, "x")
	send(t, r.dial(), "\x16\x03\x01\x01\x00")
	for range 3 {
		send(t, r.dial(), "\x16\x03\x01\x01\x00")
		eventually(t, func() bool { return r.server.Connections() == 3 })
		c := tls.Client(r.dial(), trust)
		send(t, c, "x")
		receive(t, c, "x")
		_ = c.Close()
		eventually(t, func() bool { return r.server.Connections() == 2 }) // c is one of them no more
	}
	send(t, relayed, "y") // which was not taken for one of them
	receive(t, relayed, "y")
	_ = relayed.Close()
}

func TestADrainEndsHandshakes(t *testing.T) {
	server, _ := secured(t)
	r := start(t, setup{route: tcp.Route{TLS: server}, config: tcp.Config{PrefaceTimeout: time.Hour}}, backend(t, echo))
	c := r.dial()
	send(t, c, "\x16\x03\x01\x01\x00")
	eventually(t, func() bool { return r.server.Connections() == 1 })
	r.stop()
	if cut := r.server.Drain(context.Background()); cut != 0 {
		t.Errorf("%d were cut", cut)
	}
}

func TestWhatASlowClientHasNotReadYetOfItsTLSIsNotLostToAReset(t *testing.T) {
	const n = 400_000
	server, trust := secured(t)
	r := start(t, setup{route: tcp.Route{TLS: server}}, backend(t, func(nc *net.TCPConn) {
		_, _ = nc.Write(make([]byte, n))
		acknowledged(nc)
		time.Sleep(100 * time.Millisecond) // until the relay has read it
		_ = nc.SetLinger(0)
	}))
	socket := r.dial()
	if err := socket.SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(socket, trust)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond)
	if n, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("%v, want a reset", err)
	}
	if got := r.reason(); got != "upstream_reset" {
		t.Errorf("the reason is %v", got)
	}
}

func TestAHandshakeThatFailsIsLoggedWithWhatTheClientDid(t *testing.T) {
	server, trust := secured(t)
	old := trust.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	stranger := trust.Clone()
	stranger.RootCAs = nil
	for name, one := range map[string]struct {
		client         func(net.Conn)
		reason, saying string
	}{
		"speaks in the clear":     {func(c net.Conn) { send(t, c, "GET / HTTP/1.1\r\n\r\n") }, "bad_preface", "the client does not speak TLS"},
		"knows an old version":    {func(c net.Conn) { _ = tls.Client(c, old).Handshake() }, "bad_preface", "no version that both sides speak"},
		"knows another authority": {func(c net.Conn) { _ = tls.Client(c, stranger).Handshake() }, "bad_preface", "the client refused: tls: "},
		"goes away":               {func(c net.Conn) { _ = c.Close() }, "client_gone", "the client went away"},
		"goes away in the middle": {func(c net.Conn) { send(t, c, "\x16\x03\x01\x01\x00"); _ = c.Close() }, "client_gone", "the client went away"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{route: tcp.Route{TLS: server}}, backend(t, echo))
			one.client(r.dial())
			line := r.lines(1)[0]
			said, _ := line["detail"].(string)
			if line["reason"] != one.reason || !strings.Contains(said, one.saying) {
				t.Errorf("%v: %q", line["reason"], said)
			}
		})
	}
}

func TestAnEndOfTLSWithoutCloseNotifyIsABreakThatTheLogTells(t *testing.T) {
	server, trust := secured(t)
	seen := make(chan error, 1)
	r := start(t, setup{route: tcp.Route{TLS: server}}, backend(t, func(nc *net.TCPConn) {
		receive(t, nc, "x")
		_, err := nc.Read(make([]byte, 1))
		seen <- err
	}))
	socket := r.dial()
	send(t, tls.Client(socket, trust), "x")
	_ = socket.CloseWrite()
	if err := <-seen; !isReset(err) {
		t.Errorf("the host sees %v", err)
	}
	if line := r.lines(1)[0]; line["reason"] != "client_gone" || !strings.Contains(line["detail"].(string), "without a close_notify") {
		t.Errorf("%v: %q", line["reason"], line["detail"])
	}
}
