package sidecar_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

var (
	takesProtocol = frames.Setting{ID: frames.SettingEnableConnectProtocol, Val: 1}
	takesNone     = frames.Setting{ID: frames.SettingEnableConnectProtocol, Val: 0}
)

// reluctant is a host of HTTP/2 that says nothing, then that it takes tunnels or whatever settings
// say, and then takes them; and how many connections it took. It fails the test if it is asked for
// one before it has said that it takes them.
func reluctant(t *testing.T, settings func(nc net.Conn)) (net.Addr, *atomic.Int32) {
	t.Helper()
	connections := new(atomic.Int32)
	return tcpServer(t, func(nc *net.TCPConn) {
		connections.Add(1)
		p := h2Host(nc)
		// All that a client may send without knowing anything: RFC 9113 §3.4.
		_ = nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if frame, err := p.listen(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("before its SETTINGS, the host is sent %v, %v", frame, err)
		}
		_ = nc.SetReadDeadline(time.Now().Add(2 * patience))
		settings(nc)
		_ = p.WriteSettingsAck()
		for {
			head, err := p.request()
			if err != nil {
				return
			}
			if head.PseudoValue("method") != "CONNECT" || head.PseudoValue("protocol") != "websocket" {
				t.Errorf("the host is asked for %v", head.Fields)
			}
			p.head(head.StreamID, false, ":status", "200")
			_ = p.WriteData(head.StreamID, true, []byte("tunnel"))
		}
	}), connections
}

func TestAHostIsAskedForATunnelOnlyOnceItHasSaidThatItTakesOne(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("a client of HTTP/2: %t", http2), func(t *testing.T) {
			at, connections := reluctant(t, func(nc net.Conn) { _ = frames.NewFramer(nc, nil).WriteSettings(takesProtocol) })
			r := serve(t, sidecar.Config{}, webListener(webRoute("/", "app", "0s")), webCluster("app", at, true, "60s"))
			for range 2 {
				client := tunnelTo(t, r.web, http2)
				wantText(t, client, "tunnel")
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestAHostThatTakesNoTunnelsIsNotAskedUntilItDoes(t *testing.T) {
	for name, first := range map[string][]frames.Setting{"says 0": {takesNone}, "says nothing of it": nil} {
		for _, http2 := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, a client of HTTP/2: %t", name, http2), func(t *testing.T) {
				changed := make(chan struct{})
				at, connections := reluctant(t, func(nc net.Conn) {
					p := frames.NewFramer(nc, nil)
					_ = p.WriteSettings(first...)
					go func() { // a setting may change at any time (RFC 9113 §6.5.3)
						<-changed
						_ = p.WriteSettings(takesProtocol)
					}()
				})
				r := serve(t, sidecar.Config{}, webListener(webRoute("/", "app", "0s")), webCluster("app", at, true, "60s"))
				for range 2 {
					_, status, why, text := askForTunnel(t, r.web, http2)
					if status != 501 || why != "upgrade_unsupported" || !strings.Contains(text, "SETTINGS_ENABLE_CONNECT_PROTOCOL") {
						t.Errorf("%d %s %q", status, why, text)
					}
				}
				close(changed)
				eventually(t, "it is asked when it has changed its mind", func() bool {
					client, status, _, _ := askForTunnel(t, r.web, http2)
					if status >= 300 {
						return false
					}
					wantText(t, client, "tunnel")
					return true
				})
				if n := connections.Load(); n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

func TestAHostThatNeverSaysWhatItTakesIsWaitedForAsLongAsForAConnection(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("a client of HTTP/2: %t", http2), func(t *testing.T) {
			at := tcpServer(t, func(nc *net.TCPConn) {
				p := h2Host(nc)
				if frame, err := p.listen(); err == nil {
					t.Errorf("the host is sent %v", frame)
				}
			})
			r := serve(t, sidecar.Config{}, webListener(webRoute("/app", "app", "0s"), webRoute("/", "well", "0s")),
				webCluster("app", at, true, "0.2s"), webCluster("well", webServer(t), false, "1s"))
			for range 2 {
				_, status, why, text := askForTunnel(t, r.web, http2)
				if status != 503 || why != "connect_timeout" || !strings.Contains(text, "has not sent its SETTINGS") {
					t.Errorf("%d %s %q", status, why, text)
				}
			}
			if status, body := get(t, "http://"+r.web.String()+"/other"); status != 200 || body != "web /other" {
				t.Errorf("%d %q", status, body)
			}
			eventually(t, "nothing of it is under way", func() bool {
				return r.series(t, "fairlead_requests_in_flight")+r.series(t, "fairlead_upstream_active") == 0
			})
		})
	}
}
