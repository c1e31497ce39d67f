package controlplane_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// bound is how long a conversation of a test may take. Nothing is asserted about how long
// it does.
const bound = 60 * time.Second

// tcpApp serves each connection by a function, until the test ends or it is killed.
type tcpApp struct {
	listener net.Listener
	port     int

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

func startTCPApp(t *testing.T, serve func(*net.TCPConn)) *tcpApp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &tcpApp{listener: l, port: l.Addr().(*net.TCPAddr).Port, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = nc.SetDeadline(time.Now().Add(bound))
			a.mu.Lock()
			a.conns[nc] = true
			a.mu.Unlock()
			all.Go(func() {
				serve(nc.(*net.TCPConn))
				_ = nc.Close()
				a.mu.Lock()
				delete(a.conns, nc)
				a.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		a.kill()
		all.Wait()
	})
	return a
}

// kill ends the application as the end of its process does.
func (a *tcpApp) kill() {
	_ = a.listener.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for nc := range a.conns {
		_ = nc.(*net.TCPConn).SetLinger(0)
		_ = nc.Close()
	}
}

func (a *tcpApp) address() string { return a.listener.Addr().String() }

func echo(nc *net.TCPConn) { _, _ = io.Copy(nc, nc) }

// greet says a line before it hears one, and then says again what it hears.
func greet(line string) func(*net.TCPConn) {
	return func(nc *net.TCPConn) {
		if _, err := io.WriteString(nc, line+"\n"); err == nil {
			echo(nc)
		}
	}
}

// tcpSidecar runs a sidecar beside a TCP application.
func tcpSidecar(t *testing.T, addresses controlplane.Addresses, id string, a *tcpApp) beside {
	t.Helper()
	return runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "db", InstanceID: id, AppAddr: a.address(), AppProtocol: mesh.ProtocolTCP})
}

// byHand registers an instance with a port of TCP, without a sidecar.
func byHand(t *testing.T, addresses controlplane.Addresses, service, id string, port int, more string) {
	t.Helper()
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/"+service+"/instances",
		fmt.Sprintf(`{"id":%q,"address":"127.0.0.1","ports":[{"number":%d,"protocol":"TCP"}],"ttl":"60s"%s}`, id, port, more))
}

// caller is a sidecar with a local port that leads to a destination.
type caller struct {
	beside
	log  *lockedbuf.Buffer
	port string // its address
}

func runCaller(t *testing.T, addresses controlplane.Addresses, destination string) caller {
	t.Helper()
	c := caller{log: &lockedbuf.Buffer{}}
	c.beside = runSidecarWith(t, sidecar.Config{
		ControlPlane: addresses.GRPC.String(), Workload: sidecar.Workload{Service: "shop"},
		TCPUpstreams: []string{"0=" + destination}, AccessLog: c.log, AccessLogFormat: accesslog.JSON,
		DrainTimeout: 5 * time.Second,
	})
	for name, at := range c.addresses.Listeners {
		if strings.HasPrefix(name, "127.0.0.1:0=") {
			c.port = at.String()
		}
	}
	return c
}

func (c caller) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	return dialTCP(t, c.port)
}

func dialTCP(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(bound))
	return nc.(*net.TCPConn)
}

// line dials, and returns the line that it is greeted with; "" if the connection ends first.
func (c caller) line(t *testing.T) string {
	t.Helper()
	nc, err := net.Dial("tcp", c.port)
	if err != nil {
		return ""
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(bound))
	text, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(text, "\n")
}

// only reports whether ten connections in a row are greeted with a line.
func (c caller) only(t *testing.T, line string) bool {
	t.Helper()
	for range 10 {
		if c.line(t) != line {
			return false
		}
	}
	return true
}

// converse says something and wants it back, with its end.
func converse(t *testing.T, nc *net.TCPConn, r io.Reader, text string) {
	t.Helper()
	if _, err := io.WriteString(nc, text); err != nil {
		t.Fatal(err)
	}
	if err := nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(r); string(back) != text || err != nil {
		t.Errorf("%q comes back as %q, %v", text, back, err)
	}
}

func TestATCPServiceIsReachedByALocalPortAndByCONNECT(t *testing.T) {
	addresses := runControlPlane(t)
	first, second := startTCPApp(t, echo), startTCPApp(t, greet("hello"))
	tcpSidecar(t, addresses, "d1", first)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "mail", InstanceID: "m1", AppAddr: second.address(), AppProtocol: mesh.ProtocolTCP})
	byHand(t, addresses, "legacy", "l1", first.port, "")
	byHand(t, addresses, "notes", "n1", second.port, "")
	for _, service := range []string{"db", "mail"} {
		eventually(t, service+" is registered", func() bool { return registered(t, addresses, service) != "" })
	}
	for _, c := range []struct{ name, destination, greeting string }{
		{"client first", fmt.Sprintf("db:%d", first.port), ""},
		{"client first, by the port's name", "db.default:tcp", ""},
		{"client first, by the bare name", "db", ""},
		{"server first", fmt.Sprintf("mail.default:%d", second.port), "hello\n"},
		{"client first, without a sidecar", fmt.Sprintf("legacy:%d", first.port), ""},
		{"server first, without a sidecar", "notes", "hello\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shop := runCaller(t, addresses, c.destination)
			proxied := dialTCP(t, shop.addresses.Listeners[sidecar.Outbound].String())
			authority := c.destination
			if !strings.Contains(authority, ":") {
				authority += ":tcp"
			}
			if _, err := fmt.Fprintf(proxied, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority); err != nil {
				t.Fatal(err)
			}
			through := bufio.NewReader(proxied)
			if a, err := http.ReadResponse(through, &http.Request{Method: http.MethodConnect}); err != nil || a.StatusCode != http.StatusOK {
				t.Fatalf("CONNECT: %v, %v", a, err)
			}
			local := shop.dial(t)
			for nc, r := range map[*net.TCPConn]*bufio.Reader{local: bufio.NewReader(local), proxied: through} {
				said := make([]byte, len(c.greeting))
				if _, err := io.ReadFull(r, said); err != nil || string(said) != c.greeting {
					t.Fatalf("it is greeted with %q, %v", said, err)
				}
				converse(t, nc, r, "SELECT 1")
			}
		})
	}
}

func TestMuchGoesBothWaysAtOnceThroughTwoSidecars(t *testing.T) {
	const size = 100 << 20
	addresses := runControlPlane(t)
	tcpSidecar(t, addresses, "d1", startTCPApp(t, echo))
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	nc := runCaller(t, addresses, "db:tcp").dial(t)
	sent, got := sha256.New(), sha256.New()
	var sending sync.WaitGroup
	sending.Go(func() {
		random := rand.NewChaCha8([32]byte{1})
		if _, err := io.Copy(io.MultiWriter(nc, sent), io.LimitReader(random, size)); err != nil {
			t.Error(err)
		}
		_ = nc.CloseWrite()
	})
	n, err := io.Copy(got, nc)
	sending.Wait()
	if n != size || err != nil || string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Errorf("of %d bytes %d came back, %v, the same: %v", size, n, err, string(got.Sum(nil)) == string(sent.Sum(nil)))
	}
}

// wantReset fails the test unless the connection is ended with a reset.
func wantReset(t *testing.T, nc net.Conn) {
	t.Helper()
	b := make([]byte, 1)
	if n, err := nc.Read(b); n != 0 || err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("%d bytes, %v: it is not reset", n, err)
	}
}

// wantNothing fails the test unless a connection to the local port is reset, which may be
// so soon that not even connecting succeeds.
func (c caller) wantNothing(t *testing.T) {
	t.Helper()
	nc, err := net.Dial("tcp", c.port)
	if err != nil {
		if !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		return
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(bound))
	wantReset(t, nc)
}

func TestWhatCannotBeReachedIsResetWithItsReasonUntilItCan(t *testing.T) {
	addresses := runControlPlane(t)
	shop := runCaller(t, addresses, "db:tcp")
	shop.wantNothing(t)
	byHand(t, addresses, "db", "d1", startTCPApp(t, greet("d1")).port, "")
	eventually(t, "it is reached once it is registered", func() bool { return shop.line(t) == "d1" })
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/db/instances/d1", "")
	eventually(t, "it is not once it is gone", func() bool { return shop.line(t) == "" })
	shop.wantNothing(t)
	eventually(t, "the log says why", func() bool {
		log := shop.log.String()
		for _, part := range []string{
			`"authority":"db.default:tcp"`, `"reason":"unknown_service"`, `"reason":"no_endpoints"`, `"destination":"db.default:tcp"`, `"instance":"d1"`,
			`"source":"shop.default"`,
		} {
			if !strings.Contains(log, part) {
				return false
			}
		}
		return true
	})
	stats := ask("http://" + shop.addresses.Admin.String() + "/stats/prometheus")
	for _, part := range []string{
		`fairlead_tcp_connections_closed_total{destination="unknown",reason="unknown_service",source="shop.default"} `,
		`fairlead_tcp_connections_closed_total{destination="db.default:tcp",reason="no_endpoints",source="shop.default"} `,
		`fairlead_tcp_connections_opened_total{destination="db.default:tcp",source="shop.default"} `,
	} {
		if !strings.Contains(stats, part) {
			t.Errorf("the metrics lack %s", part)
		}
	}
}

func TestAnInstanceThatDiesResetsItsConnectionsAndTheNextGoElsewhere(t *testing.T) {
	addresses := runControlPlane(t)
	apps := map[string]*tcpApp{"d1": startTCPApp(t, greet("d1")), "d2": startTCPApp(t, greet("d2"))}
	for id, a := range apps {
		byHand(t, addresses, "db", id, a.port, "")
	}
	call(t, http.MethodPut, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/db/policy",
		`{"loadBalancing":"ROUND_ROBIN","breaker":{"consecutiveFailures":1,"openTime":"60s"}}`)
	shop := runCaller(t, addresses, "db:tcp")
	eventually(t, "the policy is in force", func() bool {
		all := shop.clusters(t)
		return shop.line(t) != "" && len(all) == 1 && all[0].Policy == "ROUND_ROBIN"
	})
	count := map[string]int{}
	for range 10 {
		count[shop.line(t)]++
	}
	if count["d1"] != 5 || count["d2"] != 5 {
		t.Errorf("they take turns as %v", count)
	}
	held := map[string]*bufio.Reader{}
	conns := map[string]*net.TCPConn{}
	for len(held) < 2 {
		nc := shop.dial(t)
		r := bufio.NewReader(nc)
		id, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		held[strings.TrimSpace(id)], conns[strings.TrimSpace(id)] = r, nc
	}
	apps["d1"].kill()
	wantReset(t, conns["d1"])
	if !shop.only(t, "d2") {
		t.Error("other connections go to the dead instance")
	}
	if stats := ask("http://" + shop.addresses.Admin.String() + "/stats/prometheus"); !strings.Contains(stats, fmt.Sprintf(`fairlead_breaker_state{address="127.0.0.1:%d",cluster="db.default:tcp",instance="d1"} 1`, apps["d1"].port)) {
		t.Errorf("no breaker of the dead instance is open:\n%s", stats)
	}
	converse(t, conns["d2"], held["d2"], "still here")
}

func TestAnApplicationThatDiesBesideItsSidecarIsLeftAlone(t *testing.T) {
	addresses := runControlPlane(t)
	apps := map[string]*tcpApp{"d1": startTCPApp(t, greet("d1")), "d2": startTCPApp(t, greet("d2"))}
	for id, a := range apps {
		tcpSidecar(t, addresses, id, a)
	}
	eventually(t, "both are registered", func() bool { return len(registered(t, addresses, "db")) == len("d1 d2") })
	shop := runCaller(t, addresses, "db:tcp")
	seen := map[string]bool{}
	eventually(t, "both are called", func() bool { seen[shop.line(t)] = true; return seen["d1"] && seen["d2"] })
	apps["d1"].kill()
	eventually(t, "it is found to be unwell", func() bool { return registered(t, addresses, "db") == "d2" })
	eventually(t, "its peers know", func() bool { return shop.only(t, "d2") })
}

func TestAnInstanceThatDrainsKeepsItsConnectionsAndTakesNoMore(t *testing.T) {
	addresses := runControlPlane(t)
	draining := tcpSidecar(t, addresses, "d1", startTCPApp(t, greet("d1")))
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	shop := runCaller(t, addresses, "db:tcp")
	nc := shop.dial(t)
	r := bufio.NewReader(nc)
	if id, err := r.ReadString('\n'); id != "d1\n" || err != nil {
		t.Fatal(id, err)
	}
	tcpSidecar(t, addresses, "d2", startTCPApp(t, greet("d2")))
	eventually(t, "the other is registered", func() bool { return strings.Contains(registered(t, addresses, "db"), "d2") })
	stopped := make(chan struct{})
	go func() { defer close(stopped); draining.stop() }()
	defer func() { <-stopped }()
	eventually(t, "it drains", func() bool { return registered(t, addresses, "db") == "d2" })
	eventually(t, "its peers know", func() bool { return shop.only(t, "d2") })
	if !shop.only(t, "d2") {
		t.Error("other connections go to the instance that drains")
	}
	converse(t, nc, r, "still here")
}

func TestARequestToATCPPortIsToldSo(t *testing.T) {
	addresses := runControlPlane(t)
	a := startTCPApp(t, echo)
	tcpSidecar(t, addresses, "d1", a)
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	for _, host := range []string{"db", "db.default", "db:tcp", fmt.Sprintf("db.default:%d", a.port)} {
		if status, reason, body := shop.through(host, "/"); status != 503 || reason != "no_http_port" || !strings.Contains(body, "no HTTP port") {
			t.Errorf("%s: %d %s %q", host, status, reason, body)
		}
	}
	q, err := http.NewRequest(http.MethodPost, "http://"+shop.addresses.Listeners[sidecar.Outbound].String()+"/db.Query/Run", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = "db:tcp"
	q.Header.Set("Content-Type", "application/grpc-web+proto")
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if got := answer.Header.Get("Grpc-Status"); answer.StatusCode != 200 || got != strconv.Itoa(int(codes.Unimplemented)) {
		t.Errorf("a gRPC call: %d, status %q", answer.StatusCode, got)
	}
	eventually(t, "the metrics say so", func() bool {
		return strings.Contains(ask("http://"+shop.addresses.Admin.String()+"/metrics"), `reason="no_http_port"`)
	})
	if dump := ask("http://" + shop.addresses.Admin.String() + "/config_dump"); !strings.Contains(dump, "tcp_proxy") {
		t.Error("what is in force is not shown")
	}
}

func TestALocalPortLeadsToAnHTTPServiceToo(t *testing.T) {
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runCaller(t, addresses, "orders")
	if body := ask("http://" + shop.port + "/"); body != "o1" {
		t.Errorf("it answers %q", body)
	}
}

func TestProxylessGRPCThatCallsATCPPortFailsAndRefusesNothing(t *testing.T) {
	addresses := runControlPlane(t)
	byHand(t, addresses, "db", "d1", startTCPApp(t, echo).port, "")
	port := healthServer(t)
	registerGRPC(t, addresses, "a1", port, "")
	for _, target := range []string{"db.default:tcp", "db.default"} {
		if err := failure(t, dialXDS(t, addresses, "shop-1", target), 10*time.Second); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", target, err)
		}
	}
	if got := answered(t, dialXDS(t, addresses, "shop-1", "orders.default")); got != port {
		t.Errorf("port %d answers", got)
	}
	if refused := rejected(t, "http://"+addresses.HTTP.String(), "shop-1"); refused != "" {
		t.Errorf("grpc-go refused: %s", refused)
	}
}

func TestAnInstanceAtALocalPortIsNotConnectedTo(t *testing.T) {
	addresses := runControlPlane(t)
	shop := runCaller(t, addresses, "db:tcp")
	_, port, err := net.SplitHostPort(shop.port)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	byHand(t, addresses, "db", "d1", number, "")
	shop.wantNothing(t)
	eventually(t, "the log says why", func() bool { return strings.Contains(shop.log.String(), `"reason":"loop"`) })
	if n := strings.Count(shop.log.String(), "\n"); n != 1 {
		t.Errorf("the log has %d connections", n)
	}
}

func TestAConnectionOutlivesTheRegistrationOfItsInstance(t *testing.T) {
	addresses := runControlPlane(t)
	byHand(t, addresses, "db", "d1", startTCPApp(t, greet("d1")).port, "")
	shop := runCaller(t, addresses, "db:tcp")
	nc := shop.dial(t)
	r := bufio.NewReader(nc)
	if line, err := r.ReadString('\n'); line != "d1\n" || err != nil {
		t.Fatal(line, err)
	}
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/db/instances/d1", "")
	eventually(t, "no more connections go there", func() bool { return shop.line(t) == "" })
	converse(t, nc, r, "still here")
}

func TestAConnectionOnWhichNothingMovesEndsByItsIdleTimeout(t *testing.T) {
	addresses := runControlPlane(t)
	tcpSidecar(t, addresses, "d1", startTCPApp(t, echo))
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	log := &lockedbuf.Buffer{}
	shop := caller{beside: runSidecarWith(t, sidecar.Config{
		ControlPlane: addresses.GRPC.String(), Workload: sidecar.Workload{Service: "shop"},
		TCPUpstreams: []string{"0=db"}, TunnelIdleTimeout: time.Second, AccessLog: log, AccessLogFormat: accesslog.JSON,
	})}
	wantReset(t, dialTCP(t, shop.addresses.Listeners["127.0.0.1:0=db.default"].String()))
	eventually(t, "the log says why", func() bool { return strings.Contains(log.String(), `"reason":"idle_timeout"`) })
}

func TestAStopEndsWhatIsLeftOfConnectionsOnAllPorts(t *testing.T) {
	addresses := runControlPlane(t)
	tcpSidecar(t, addresses, "d1", startTCPApp(t, greet("d1")))
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	log := &lockedbuf.Buffer{}
	both := runSidecarWith(t, sidecar.Config{
		ControlPlane: addresses.GRPC.String(), DrainTimeout: 200 * time.Millisecond, AccessLog: log, AccessLogFormat: accesslog.JSON,
		Workload:     sidecar.Workload{Service: "web", InstanceID: "w1", AppAddr: startTCPApp(t, greet("w1")).address(), AppProtocol: mesh.ProtocolTCP},
		TCPUpstreams: []string{"0=db", "0=db:tcp"},
	})
	var open []*net.TCPConn
	for _, name := range []string{sidecar.Inbound, "127.0.0.1:0=db.default", "127.0.0.1:0=db.default:tcp"} {
		nc := dialTCP(t, both.addresses.Listeners[name].String())
		if _, err := io.ReadFull(nc, make([]byte, len("d1\n"))); err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
	}
	both.stop()
	for _, nc := range open {
		wantReset(t, nc)
	}
	if n := strings.Count(log.String(), `"reason":"stopped"`); n != len(open) {
		t.Errorf("of %d connections that were cut off, the log has %d", len(open), n)
	}
}
