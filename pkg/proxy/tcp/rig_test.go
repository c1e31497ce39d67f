package tcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen. Nothing is asserted about how long it takes.
const patience = 20 * time.Second

// rig is a relay to one cluster, c, on a clock that the test can put forward.
type rig struct {
	testing.TB
	set     *upstream.Set
	cluster *upstream.Cluster
	relay   *tcp.Relay
	server  *proxy.Server
	metrics *metrics.Registry
	counted *metrics.TCP
	log     lockedbuf.Buffer
	access  *accesslog.Log
	address string
	began   time.Time
	ahead   atomic.Int64
	stop    func() // stops accepting
}

// setup is what a test changes of the usual.
type setup struct {
	cluster mesh.Cluster
	route   tcp.Route
	config  tcp.Config
	server  proxy.Config
	secure  bool // what is TLS has a route of its own, "secure"
}

func (r *rig) now() int64 { return int64(time.Since(r.began)) + r.ahead.Load() }

// later puts the clock forward.
func (r *rig) later(d time.Duration) { r.ahead.Add(int64(d)) }

// start relays to endpoints until the test ends.
func start(tb testing.TB, with setup, endpoints ...netip.AddrPort) *rig {
	tb.Helper()
	r := &rig{TB: tb, began: time.Now(), metrics: metrics.New(metrics.Config{})}
	log := slog.New(slog.DiscardHandler)
	r.set = upstream.NewSet(r.now, log)
	with.cluster.Name = "c"
	if with.cluster.LB == mesh.LBLeastRequest {
		with.cluster.LB = mesh.LBRoundRobin
	}
	assigned := mesh.LoadAssignment{Cluster: "c"}
	for _, at := range endpoints {
		assigned.Endpoints = append(assigned.Endpoints, mesh.Endpoint{Address: at, Weight: 1})
	}
	with.cluster.Static = &assigned
	var err error
	if r.cluster, err = r.set.Apply(with.cluster); err != nil {
		tb.Fatal(err)
	}
	r.counted = metrics.NewTCP(r.metrics, reason.Codes())
	if r.access, err = accesslog.New(accesslog.Config{Format: accesslog.JSON, Logger: log}, &r.log); err != nil {
		tb.Fatal(err)
	}
	if with.config.Routes == nil {
		route := with.route
		route.Name, route.Source, route.Destination = "chain", "web", "c"
		route.Cluster, route.Counted = r.cluster, r.counted.Destination("web", "c")
		route.Attempts = max(route.Attempts, 1)
		with.config.Routes = &tcp.Routes{}
		if err := with.config.Routes.Add(tcp.Match{}, &route); err != nil {
			tb.Fatal(err)
		}
	}
	if with.secure {
		route := &tcp.Route{Name: "secure", Source: "web", Destination: "c", Cluster: r.cluster, Counted: r.counted.Destination("web", "c"), Attempts: 1}
		if err := with.config.Routes.Add(tcp.Match{Transport: tcp.TLS}, route); err != nil {
			tb.Fatal(err)
		}
	}
	with.config.Clock, with.config.Source, with.config.Access = r.now, "web", r.access
	with.config.Unrouted = r.counted.Destination("web", "unknown")
	r.relay = tcp.New(with.config)
	with.server.Name, with.server.Clock, with.server.Log = "web", r.now, log
	with.server.Accept = func(nc net.Conn) proxy.Connection { return r.relay.Accept(nc) }
	r.server = proxy.NewServer(with.server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ctx, l) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() {
		r.stop()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		r.server.Drain(over)
		r.relay.Close()
		r.set.Close()
		_ = r.access.Close(context.Background())
	})
	return r
}

// dial connects to the relay until the test ends.
func (r *rig) dial() *net.TCPConn {
	r.Helper()
	nc, err := net.Dial("tcp", r.address)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return nc.(*net.TCPConn)
}

// dialRefused connects and wants to be reset, which may be so soon that connecting fails.
func (r *rig) dialRefused() {
	r.Helper()
	nc, err := net.Dial("tcp", r.address)
	if err == nil {
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(patience))
		_, err = nc.Read(make([]byte, 1))
	}
	if !isReset(err) {
		r.Fatalf("%v, want a reset", err)
	}
}

// lines waits for n lines of the log and returns them.
func (r *rig) lines(n int) []map[string]any {
	r.Helper()
	eventually(r, func() bool { return strings.Count(r.log.String(), "\n") >= n })
	var lines []map[string]any
	for _, text := range strings.Split(strings.TrimSpace(r.log.String()), "\n") {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// reason waits for the one line of the log and returns its reason.
func (r *rig) reason() any {
	r.Helper()
	return r.lines(1)[0]["reason"]
}

// value is what a scrape has of a family, summed over those labels that are not named.
func (r *rig) value(name string, labels ...string) float64 {
	r.Helper()
	samples, err := r.metrics.Samples()
	if err != nil {
		r.Fatal(err)
	}
	sum := 0.0
	for _, s := range samples {
		have := 0
		for _, l := range s.Labels {
			for _, want := range labels {
				if l.Value == want {
					have++
				}
			}
		}
		if s.Name == name && have == len(labels) {
			sum += s.Value
		}
	}
	return sum
}

func eventually(tb testing.TB, is func() bool) {
	tb.Helper()
	for until := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			tb.Fatal("it does not come about")
		}
	}
}

// backend serves every connection by a function, until the test ends.
func backend(tb testing.TB, serve func(*net.TCPConn)) netip.AddrPort {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[*net.TCPConn]struct{}{}
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc.(*net.TCPConn)] = struct{}{}
			mu.Unlock()
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				serve(nc.(*net.TCPConn))
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(nc *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{nc}, struct{ io.Reader }{nc}) }

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func send(tb testing.TB, nc net.Conn, text string) {
	tb.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		tb.Fatal(err)
	}
}

// receive wants text to come next.
func receive(tb testing.TB, nc net.Conn, text string) {
	tb.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(nc, b); err != nil || string(b) != text {
		tb.Fatalf("%q, %v, want %q", b[:n], err, text)
	}
}

// wantEnd wants the end of a stream next, and a clean one.
func wantEnd(tb testing.TB, nc net.Conn) {
	tb.Helper()
	if n, err := nc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		tb.Fatalf("%d bytes, %v, want the end", n, err)
	}
}

// wantReset wants a reset next.
func wantReset(tb testing.TB, nc net.Conn) {
	tb.Helper()
	if n, err := nc.Read(make([]byte, 1)); n != 0 || !isReset(err) {
		tb.Fatalf("%d bytes, %v, want a reset", n, err)
	}
}
