package tcp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/proxyproto"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

const header = "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"

func TestWhatIsReadBeforehandIsPassedOn(t *testing.T) {
	r := start(t, setup{config: tcp.Config{ProxyProtocol: true, TLS: true}}, backend(t, echo))
	c := r.dial()
	for _, b := range []byte(header + "plain") { // in as many segments
		send(t, c, string(rune(b)))
	}
	receive(t, c, "plain")
	_ = c.Close()
	line := r.lines(1)[0]
	if line["client"] != "192.0.2.1:1234" || line["bytes_in"] != 5.0 || line["bytes_out"] != 5.0 {
		t.Errorf("%v", line)
	}
}

func TestAConnectionThatDoesNotBeginAsItMustIsClosed(t *testing.T) {
	for name, test := range map[string]struct {
		config       tcp.Config
		send         string
		reason, more string
	}{
		"no header":        {tcp.Config{ProxyProtocol: true}, "GET /", "bad_preface", "PROXY protocol: the connection does not begin with a header"},
		"a broken header":  {tcp.Config{ProxyProtocol: true}, "PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n", "bad_preface", "PROXY protocol: an address is none of TCP4"},
		"a broken hello":   {tcp.Config{TLS: true}, "\x16\x03\x01\x00\x00", "bad_preface", "TLS ClientHello: a record is empty"},
		"nothing":          {tcp.Config{TLS: true, PrefaceTimeout: 50 * time.Millisecond}, "", "bad_preface", "or not in time"},
		"half a header":    {tcp.Config{ProxyProtocol: true, PrefaceTimeout: 50 * time.Millisecond}, "PROXY TC", "bad_preface", "or not in time"},
		"half a hello":     {tcp.Config{TLS: true, PrefaceTimeout: 50 * time.Millisecond}, "\x16\x03\x01\x01\x00", "bad_preface", "or not in time"},
		"too long a hello": {tcp.Config{TLS: true}, "\x16\x03\x01\x40\x00\x01\x00\x40\x00" + strings.Repeat("x", 16<<10), "bad_preface", "longer than 16 kB"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{config: test.config}, backend(t, echo))
			c := r.dial()
			send(t, c, test.send)
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			line := r.lines(1)[0]
			if line["reason"] != test.reason || !strings.Contains(fmt.Sprint(line["detail"]), test.more) || line["destination"] != nil {
				t.Errorf("%v", line)
			}
			if n := r.value("fairlead_tcp_connections_closed_total", "web", "unknown", test.reason); n != 1 {
				t.Errorf("%v in metrics", n)
			}
			if n := r.cluster.Hosts()[0].Status(r.now()).Requests; n != 0 && !test.config.TLS { // else it might have spoken first
				t.Errorf("the host was connected to %d times", n)
			}
		})
	}
}

func TestAClientThatLeavesBeforeItBeginsIsGone(t *testing.T) {
	for _, first := range []string{"", "PROXY"} {
		r := start(t, setup{config: tcp.Config{ProxyProtocol: true}}, backend(t, echo))
		c := r.dial()
		send(t, c, first)
		_ = c.Close()
		if got := r.reason(); got != "client_gone" {
			t.Errorf("%q: the reason is %v", first, got)
		}
	}
}

func TestThoseWhoSayNothingMakeRoomAndEndWithADrain(t *testing.T) {
	r := start(t, setup{config: tcp.Config{TLS: true}, server: proxy.Config{MaxConnections: 2}}, backend(t, echo))
	relayed, silent := r.dial(), r.dial()
	send(t, relayed, "x")
	receive(t, relayed, "x")
	eventually(t, func() bool { return r.server.Connections() == 2 })
	third := r.dial()
	wantReset(t, silent)
	send(t, third, "x")
	receive(t, third, "x")
	_ = third.Close()
	eventually(t, func() bool { return r.server.Connections() == 1 })
	waits := r.dial()
	eventually(t, func() bool { return r.server.Connections() == 2 })
	r.stop()
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan int, 1)
	go func() { drained <- r.server.Drain(ctx) }()
	wantReset(t, waits)
	_ = relayed.Close()
	if cut := <-drained; cut != 0 {
		t.Errorf("%d were cut", cut)
	}
	cancel()
}

func TestTheHeaderForAHostComesInFrontOfWhatTheClientSends(t *testing.T) {
	for _, version := range []mesh.ProxyVersion{mesh.ProxyV1, mesh.ProxyV2} {
		first := make(chan string, 1)
		r := start(t, setup{cluster: mesh.Cluster{ProxyProtocol: version}, config: tcp.Config{ProxyProtocol: true, TLS: true}}, backend(t, func(nc *net.TCPConn) {
			h, err := proxyproto.Read(nc, 0)
			if err != nil || h.Version != proxyproto.Version(version) || h.Source != netip.MustParseAddrPort("192.0.2.1:1234") {
				t.Errorf("%+v, %v", h, err)
			}
			all, _ := io.ReadAll(nc)
			first <- string(all)
		}))
		c := r.dial()
		send(t, c, header+"plain")
		_ = c.CloseWrite()
		if got := <-first; got != "plain" {
			t.Errorf("%q", got)
		}
		wantEnd(t, c)
		if got := r.lines(1)[0]["bytes_in"]; got != 5.0 {
			t.Errorf("%v bytes are counted", got)
		}
	}
}

// While a client says nothing, the host of opaque bytes is connected to; whatever becomes of
// the client's connection, nothing stays behind.
func TestAHostThatIsConnectedToAheadIsLetGoOf(t *testing.T) {
	for name, end := range map[string]func(r *rig, c *net.TCPConn){
		"the client leaves":     func(_ *rig, c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"the client breaks TLS": func(r *rig, c *net.TCPConn) { send(r, c, "\x16\x03\x01\x00\x00") },
		"a drain":               func(r *rig, _ *net.TCPConn) { r.stop(); r.server.Drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			connected, closed := make(chan struct{}, 1), make(chan struct{}, 1)
			r := start(t, setup{config: tcp.Config{TLS: true, HTTP: true}}, backend(t, func(nc *net.TCPConn) {
				connected <- struct{}{}
				_, _ = nc.Read(make([]byte, 1))
				closed <- struct{}{}
			}))
			c := r.dial()
			<-connected
			end(r, c)
			<-closed
			line := r.lines(1)[0]
			if line["destination"] != nil || line["bytes_in"] != 0.0 {
				t.Errorf("%v", line)
			}
			eventually(t, func() bool { return r.cluster.Hosts()[0].Status(r.now()).Active == 0 })
		})
	}
}

// TestAClientMayBeginAfterTheHostOfOpaqueConnectionsHasSpoken has, behind one port, TLS and a host that greets at once: it is
// quicker than any client, and must not win by that.
func TestAClientMayBeginAfterTheHostOfOpaqueConnectionsHasSpoken(t *testing.T) {
	greeted := make(chan struct{}, 1)
	host := backend(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "220 ready\r\n")
		select {
		case greeted <- struct{}{}:
		default:
		}
		_, _ = io.Copy(io.Discard, nc)
	})
	r := start(t, setup{config: tcp.Config{TLS: true, Grace: patience}, secure: true}, host)
	c := r.dial()
	<-greeted
	hello := tls.Client(c, &tls.Config{ServerName: "a.example"})
	if err := hello.HandshakeContext(t.Context()); err == nil {
		t.Error("the host speaks TLS")
	}
	_ = c.Close()
	if line := r.lines(1)[0]; line["route"] != "secure" {
		t.Errorf("%v", line)
	}
}
