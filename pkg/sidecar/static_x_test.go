package sidecar_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const bootstrap = `
node: {id: edge-1, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - {match: {path: "/hello"}, direct_response: {status: 200, body: {inline_string: "hello"}}}
              - {match: {prefix: "/"}, route: {cluster: app}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a sidecar until the test ends and returns where it listens.
func start(t *testing.T, config sidecar.Config) (sidecar.Addresses, context.CancelFunc, <-chan error) {
	t.Helper()
	ready := make(chan sidecar.Addresses, 1)
	config.Ready = func(a sidecar.Addresses) { ready <- a }
	config.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sidecar.Run(ctx, config) }()
	t.Cleanup(cancel)
	select {
	case a := <-ready:
		return a, cancel, ended
	case err := <-ended:
		t.Fatalf("it did not start: %v", err)
		return sidecar.Addresses{}, nil, nil
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestBootstrapFileIsServedLoggedTracedAndShown(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %v", r.URL.Path, len(r.Header.Get("Traceparent")))
	}))
	t.Cleanup(app.Close)
	spans, err := otlptest.Start(otlptest.Config{GRPCAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	var access lockedbuf.Buffer
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
	addresses, stop, ended := start(t, sidecar.Config{
		Bootstrap:       write(t, text),
		OTLPEndpoint:    spans.GRPCEndpoint(),
		TraceRatio:      1,
		AccessLog:       &access,
		AccessLogFormat: accesslog.JSON,
	})
	web := "http://" + addresses.Listeners["web"].String()
	if code, body := get(t, web+"/hello"); code != 200 || body != "hello" {
		t.Errorf("direct response: %d %q", code, body)
	}
	if code, body := get(t, web+"/a/b"); code != 200 || body != "/a/b 55" {
		t.Errorf("forwarded: %d %q", code, body)
	}

	raw, err := net.Dial("tcp", addresses.Listeners["web"].String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(raw, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(raw); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("a request without Host: %q %v", b, err)
	}
	_ = raw.Close()

	admin := "http://" + addresses.Admin.String()
	if code, body := get(t, admin+"/ready"); code != 200 {
		t.Errorf("ready: %d %q", code, body)
	}
	for path, want := range map[string]string{
		"/clusters":             "app::",
		"/listeners":            "web",
		"/config_dump":          "envoy.config.cluster.v3.Cluster",
		"/metrics":              `fairlead_requests_total{code="200",destination="app",reason="none",source="web"} 1`,
		"/stats?filter=unknown": `fairlead_requests_total{code="400",destination="unknown",reason="bad_request",source="web"}: 1`,
		"/certs":                "certificates",
		"/stats/prometheus":     "# TYPE fairlead_breaker_state gauge\nfairlead_breaker_state{",
		"/stats?filter=spans_":  "fairlead_spans_dropped_total: 0",
	} {
		if code, body := get(t, admin+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q:\n%.2000s", path, code, want, body)
		}
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("stop: %v", err)
	}
	// What was logged and traced is out when the sidecar has ended.
	if lines := strings.Count(access.String(), "\n"); lines != 3 {
		t.Errorf("%d access log lines:\n%s", lines, access.String())
	}
	if n := spans.Total(); n != 4 {
		t.Errorf("%d spans for a direct response (1), a forwarded request (2) and a refused one (1)", n)
	}
}

func TestStatPrefixIsTheSourceOfRequestsThatLeadNowhereToo(t *testing.T) {
	text := strings.ReplaceAll(bootstrap, "stat_prefix: web", "stat_prefix: edge")
	text = strings.ReplaceAll(text, `domains: ["*"]`, `domains: [known]`)
	addresses, _, _ := start(t, sidecar.Config{Bootstrap: write(t, fmt.Sprintf(text, freeport.For(t), freeport.For(t), freeport.For(t)))})
	if code, body := get(t, "http://"+addresses.Listeners["web"].String()+"/"); code != 404 {
		t.Fatalf("%d %s", code, body)
	}
	want := `fairlead_requests_total{code="404",destination="unknown",reason="no_route",source="edge"} 1`
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // it is counted once it is answered
		_, body := get(t, "http://"+addresses.Admin.String()+"/metrics")
		if strings.Contains(body, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("without %q:\n%.4000s", want, body)
		}
	}
}

func TestRoundRobinOfAFileGoesByTheWeightsAsInEnvoy(t *testing.T) {
	var light, heavy atomic.Int64
	count := func(n *atomic.Int64) int {
		app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) }))
		t.Cleanup(app.Close)
		return app.Listener.Addr().(*net.TCPAddr).Port
	}
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), count(&light))
	text = strings.TrimSuffix(text, "]}]\n") + fmt.Sprintf(
		", {load_balancing_weight: 3, endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]\n", count(&heavy))
	addresses, _, _ := start(t, sidecar.Config{Bootstrap: write(t, text)})
	for range 40 {
		if code, body := get(t, "http://"+addresses.Listeners["web"].String()+"/"); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
	}
	if light.Load() != 10 || heavy.Load() != 30 {
		t.Errorf("of 40 requests the weights 1 and 3 got %d and %d", light.Load(), heavy.Load())
	}
}

func TestConnectionsToTheHostsOfAFileCarrySoManyRequests(t *testing.T) {
	var mu sync.Mutex
	carried := map[string]int{} // by the connection's address
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		carried[r.RemoteAddr]++
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	for _, protocol := range []string{"http_protocol_options", "http2_protocol_options"} {
		options := strings.Replace(clusterOverHTTP2, "{http2_protocol_options: {}}",
			"{"+protocol+": {}}\n        common_http_protocol_options: {max_requests_per_connection: 2}", 1)
		text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
		addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, strings.Replace(text, "\n    connect_timeout: 1s", options, 1))})
		for range 6 {
			if code, _ := get(t, "http://"+addresses.Listeners["web"].String()+"/a"); code != 200 {
				t.Errorf("%s: %d", protocol, code)
			}
		}
		mu.Lock()
		for address, n := range carried {
			if n != 2 || len(carried) != 3 {
				t.Errorf("%s: %d requests over %s, one of %d connections", protocol, n, address, len(carried))
			}
		}
		clear(carried)
		mu.Unlock()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestRequestUnderWayIsFinishedAtTheStop(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			begun, release := make(chan struct{}), make(chan struct{})
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(begun)
				<-release
				_, _ = io.WriteString(w, "done")
			}))
			t.Cleanup(app.Close)
			text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
			addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(version == "HTTP/1.1")
			transport.Protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
			t.Cleanup(transport.CloseIdleConnections)
			got := make(chan string, 1)
			go func() {
				resp, err := (&http.Client{Transport: transport}).Get("http://" + addresses.Listeners["web"].String() + "/slow")
				if err != nil {
					got <- err.Error()
					return
				}
				defer func() { _ = resp.Body.Close() }()
				b, err := io.ReadAll(resp.Body)
				got <- fmt.Sprintf("%s %s %v", resp.Proto, b, err)
			}()
			<-begun
			stop()
			select {
			case err := <-ended:
				t.Fatalf("it ended under the request: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			if code, body := get(t, "http://"+addresses.Admin.String()+"/ready"); code != 503 || !strings.Contains(body, "drain") {
				t.Errorf("/ready while it drains: %d %s", code, body)
			}
			close(release)
			if body := <-got; body != version+" done <nil>" {
				t.Errorf("got %q", body)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSidecarWithoutItsControlPlaneSaysSoInItsMetrics(t *testing.T) {
	addresses, _, _ := start(t, sidecar.Config{
		ControlPlane: fmt.Sprintf("127.0.0.1:%d", freeport.For(t)), // where nobody is
		AdminAddr:    "127.0.0.1:0", OutboundAddr: "127.0.0.1:0",
	})
	time.Sleep(20 * time.Millisecond)
	_, text := get(t, "http://"+addresses.Admin.String()+"/metrics")
	for _, want := range []string{
		"fairlead_xds_connected 0\n", "fairlead_xds_disconnected_seconds 0.", "fairlead_xds_responses_total 0\n", "fairlead_xds_rejected_resources_total 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "fairlead_xds_disconnected_seconds 0\n") {
		t.Error("it is said to have been gone for no time")
	}
}

// advertising is a sidecar that tells its peers to come to an address.
func advertising(address string) sidecar.Config {
	return sidecar.Config{ControlPlane: "127.0.0.1:1", Workload: sidecar.Workload{
		Service: "orders", InstanceID: "o1", AppAddr: "127.0.0.1:1", AdvertiseAddr: address,
	}}
}

// mistaken takes one of the sidecar's own ports for its application's.
func mistaken(t *testing.T, listener, address string) sidecar.Config {
	t.Helper()
	port := freeport.For(t)
	config := sidecar.Config{ControlPlane: "127.0.0.1:1", AdminAddr: "127.0.0.1:0", InboundAddr: "127.0.0.1:0", OutboundAddr: "127.0.0.1:0",
		Workload: sidecar.Workload{Service: "orders", AppAddr: fmt.Sprintf("127.0.0.1:%d", port)}}
	own := fmt.Sprintf("%s:%d", address, port)
	if listener == sidecar.Inbound {
		config.InboundAddr = own
	} else {
		config.OutboundAddr = own
	}
	return config
}

func TestFaultyStartSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	good := fmt.Sprintf(bootstrap, freeport.For(t), taken.Addr().(*net.TCPAddr).Port, 1)
	for name, c := range map[string]struct {
		config sidecar.Config
		want   string
	}{
		"no bootstrap":        {sidecar.Config{}, "either --control-plane"},
		"no such file":        {sidecar.Config{Bootstrap: "/nonexistent"}, "no such file"},
		"field not supported": {sidecar.Config{Bootstrap: write(t, "overload_manager: {}")}, "overload_manager"},
		"port taken":          {sidecar.Config{Bootstrap: write(t, good)}, "address already in use"},
		"admin for all":       {sidecar.Config{Bootstrap: write(t, good), AdminAddr: "0.0.0.0:1"}, "not a loopback address"},
		"trace ratio":         {sidecar.Config{Bootstrap: write(t, good), TraceRatio: 2}, "--trace-ratio"},
		"advertised name":     {advertising("localhost"), `--advertise-addr "localhost" is not an IP address`},
		"advertised port 0":   {advertising("10.0.0.1:0"), "has port 0"},
		"advertised port":     {advertising("10.0.0.1:65536"), "is not an IP address, or one with a port"},
		"advertised for all":  {advertising("0.0.0.0"), "not an address that peers can reach"},
		"advertised group":    {advertising("[ff02::1]:15006"), "not an address that peers can reach"},
		"advertised zone":     {advertising("fe80::1%eth0"), "not an address that peers can reach"},
		"app at outbound":     {mistaken(t, sidecar.Outbound, "127.0.0.1"), "is the sidecar's own outbound address"},
		"app at inbound":      {mistaken(t, sidecar.Inbound, "127.0.0.1"), "is the sidecar's own inbound address"},
		"app at inbound, any": {mistaken(t, sidecar.Inbound, "0.0.0.0"), "is the sidecar's own inbound address"},
		"otlp endpoint":       {sidecar.Config{Bootstrap: write(t, good), OTLPEndpoint: "nowhere"}, "--otlp-endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := sidecar.Run(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
