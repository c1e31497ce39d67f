package controlplane_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// speaking is an application that speaks one version of HTTP in the clear, and says which.
func speaking(t *testing.T, protocol mesh.Protocol) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		_, _ = fmt.Fprintf(w, "%s %s", q.Proto, body)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(protocol == mesh.ProtocolHTTP)
	s.Config.Protocols.SetUnencryptedHTTP2(protocol == mesh.ProtocolHTTP2)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestApplicationsOfEveryVersionCallEachOtherThroughTheMesh(t *testing.T) {
	for _, test := range []struct {
		app      mesh.Protocol
		separate bool
		sees     string // by the application
		between  string // by the sidecar before it
	}{
		{mesh.ProtocolHTTP, false, "HTTP/1.1", "HTTP/2"},
		{mesh.ProtocolHTTP, true, "HTTP/1.1", "HTTP/1.1"},
		{mesh.ProtocolHTTP2, false, "HTTP/2.0", "HTTP/2"},
		{mesh.ProtocolHTTP2, true, "HTTP/2.0", "HTTP/2"},
	} {
		t.Run(fmt.Sprintf("%v, separate connections %t", test.app, test.separate), func(t *testing.T) {
			addresses := runControlPlane(t)
			var access lockedbuf.Buffer
			orders := runSidecarWith(t, sidecar.Config{
				ControlPlane: addresses.GRPC.String(), AccessLog: &access, AccessLogFormat: accesslog.JSON,
				Workload: sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: speaking(t, test.app), AppProtocol: test.app},
			})
			eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
			shop := runSidecarWith(t, sidecar.Config{
				ControlPlane: addresses.GRPC.String(), SeparatePeers: test.separate, Workload: sidecar.Workload{Service: "shop"},
			})
			for _, client := range []mesh.Protocol{mesh.ProtocolHTTP, mesh.ProtocolHTTP2} {
				transport := &http.Transport{Protocols: new(http.Protocols)}
				transport.Protocols.SetHTTP1(client == mesh.ProtocolHTTP)
				transport.Protocols.SetUnencryptedHTTP2(client == mesh.ProtocolHTTP2)
				t.Cleanup(transport.CloseIdleConnections)
				q, err := http.NewRequest("POST", "http://"+shop.addresses.Listeners[sidecar.Outbound].String()+"/", strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				q.Host = "orders"
				a, err := transport.RoundTrip(q)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(a.Body)
				_ = a.Body.Close()
				if got := string(body); a.StatusCode != 200 || got != test.sees+" hello" {
					t.Errorf("a client of %v got %d %q", client, a.StatusCode, got)
				}
			}
			shop.stop()
			orders.stop() // which writes out the log
			lines := 0
			for line := range strings.Lines(access.String()) {
				var e struct{ Protocol string }
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Protocol != test.between {
					t.Errorf("between the sidecars: %s", line)
				}
				lines++
			}
			if lines != 2 {
				t.Errorf("%d requests in the log", lines)
			}
		})
	}
}

func TestGRPCIsCalledThroughTheMesh(t *testing.T) {
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{
		Service: "orders", InstanceID: "o1", AppAddr: fmt.Sprintf("127.0.0.1:%d", healthServer(t)), AppProtocol: mesh.ProtocolGRPC, HealthPath: "grpc:",
	})
	eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	conn, err := grpc.NewClient(shop.addresses.Listeners[sidecar.Outbound].String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("orders.default"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	api := healthv1.NewHealthClient(conn)
	for range 20 {
		if a, err := api.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || a.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Fatalf("%v, %v", a, err)
		}
	}
	watch, err := api.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := watch.Recv(); err != nil || a.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("a stream: %v, %v", a, err)
	}
}

// spelt answers each request with the lines of its head, in fields that are spelt oddly.
func spelt(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				var head strings.Builder
				lines := bufio.NewScanner(c)
				for lines.Scan() && lines.Text() != "" {
					head.WriteString(lines.Text() + "\n")
				}
				_, _ = fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\nX-HINT: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-ODD: 1\r\nETag: \"a\"\r\nx-low: 2\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", head.Len(), head.String())
			})
		}
	})
	return l.Addr().String()
}

func TestSpellingOfNamesIsKeptThoughSidecarsSpeakHTTP2(t *testing.T) {
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: spelt(t)})
	eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	for _, names := range []string{"Accept,X-Mine,User-Agent", "SOAPAction,x-mine,COOKIE,Cookie,USER-AGENT", "accept,x-mine"} {
		c, err := net.Dial("tcp", shop.addresses.Listeners[sidecar.Outbound].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: orders\r\n"+strings.ReplaceAll(names, ",", ": 1\r\n")+": 1\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(c)
		_ = c.Close()
		// Two cookies have become one, as HTTP/2 has them (RFC 9113 §8.2.3).
		names = strings.Replace(names, "COOKIE,Cookie", "COOKIE", 1)
		for _, name := range append(strings.Split(names, ","), "X-HINT", "X-ODD", "ETag", "x-low") {
			if !strings.Contains(string(answer), "\n"+name+": ") {
				t.Errorf("%s: %q lacks %s", names, answer, name)
			}
		}
		if strings.Contains(strings.ToLower(string(answer)), "fairlead-case") {
			t.Errorf("%s: %q", names, answer)
		}
	}
}

func TestWhatIsAsLargeAsItMayBeGoesThroughTwoSidecars(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		for name, values := range q.Header {
			if strings.HasPrefix(name, "X-Large") {
				w.Header()[name] = values
			}
		}
	}))
	t.Cleanup(app.Close)
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app.Listener.Addr().String()})
	eventually(t, "it is registered and well", func() bool { return registered(t, addresses, "orders") == "o1" })
	for _, separate := range []bool{false, true} {
		shop := runSidecarWith(t, sidecar.Config{ControlPlane: addresses.GRPC.String(), SeparatePeers: separate, Workload: sidecar.Workload{Service: "shop"}})
		c, err := net.Dial("tcp", shop.addresses.Listeners[sidecar.Outbound].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		const fields = 96 // with those that the client's own head and the answer's have: 100
		value := strings.Repeat("v", 59_000/fields-len("x-LARGE-00: \r\n"))
		head := "GET / HTTP/1.1\r\nHost: orders\r\n"
		for n := range fields {
			head += fmt.Sprintf("x-LARGE-%02d: %s\r\n", n, value)
		}
		_, _ = io.WriteString(c, head+"\r\n")
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		_ = c.Close()
		if got := len(a.Header); a.StatusCode != 200 || got < fields {
			t.Errorf("separate connections %t: %d %v, %d fields", separate, a.StatusCode, a.Header["Fairlead-Reason"], got)
		}
		shop.stop()
	}
}
