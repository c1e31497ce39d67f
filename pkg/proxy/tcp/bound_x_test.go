package tcp_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

// handedOn hands connections from one server to another.
type handedOn struct {
	net.Listener
	conns chan net.Conn
}

func (h handedOn) Accept() (net.Conn, error) {
	if nc, ok := <-h.conns; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (handedOn) Close() error { return nil }

// silent is a connection that may be idle, until it is ended.
type silent struct {
	nc   net.Conn
	idle bool
}

func (s silent) Serve() {
	_, _ = io.Copy(io.Discard, s.nc)
	_ = s.nc.Close()
}
func (s silent) Check(int64)              {}
func (s silent) IdleSince() (int64, bool) { return 1, s.idle }
func (s silent) Drain()                   { s.Cut() }
func (s silent) Cut()                     { _ = s.nc.Close() }

func TestConnectionsThatAreHandedOnCountInTheBoundOfTheirPort(t *testing.T) {
	for name, idle := range map[string]bool{"all are in use": false, "one that was handed on is idle": true} {
		t.Run(name, func(t *testing.T) {
			to := handedOn{conns: make(chan net.Conn)}
			routes := &tcp.Routes{}
			if err := routes.Add(tcp.Match{}, &tcp.Route{HTTP: func(nc net.Conn) { to.conns <- nc }}); err != nil {
				t.Fatal(err)
			}
			behind := proxy.NewServer(proxy.Config{
				Name: "behind", Clock: func() int64 { return 1 }, Log: slog.New(slog.DiscardHandler),
				Accept: func(nc net.Conn) proxy.Connection { return silent{nc, idle} },
			})
			r := start(t, setup{config: tcp.Config{Routes: routes}, server: proxy.Config{MaxConnections: 2, Behind: []*proxy.Server{behind}}})
			served := make(chan error, 1)
			go func() { served <- behind.Serve(t.Context(), to) }()
			t.Cleanup(func() {
				r.stop()
				close(to.conns)
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
			open := []*net.TCPConn{r.dial(), r.dial()}
			eventually(t, func() bool { return behind.Connections() == 2 && r.server.Connections() == 0 })
			open = append(open, r.dial())
			ended := make(chan int, len(open))
			for i, nc := range open {
				go func() {
					if _, err := nc.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("none of too many connections is ended")
					}
					ended <- i
				}()
			}
			if first := <-ended; (first == 2) == idle {
				t.Errorf("connection %d is ended", first)
			}
			for _, nc := range open {
				_ = nc.Close()
			}
			for range len(open) - 1 {
				<-ended
			}
			eventually(t, func() bool { return behind.Connections() == 0 })
		})
	}
}
