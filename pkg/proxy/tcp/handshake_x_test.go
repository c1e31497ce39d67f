package tcp_test

import (
	"context"
	"crypto/tls"
	"log/slog"
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
	for range 2 {
		send(t, r.dial(), "\x16\x03\x01\x01\x00")
	}
	eventually(t, func() bool { return r.server.Connections() == 3 })
	for range 3 {
		c := tls.Client(r.dial(), trust)
		send(t, c, "x")
		receive(t, c, "x")
		_ = c.Close()
		eventually(t, func() bool { return r.server.Connections() < 3 }) // it has ended here too, and makes room for the next
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
