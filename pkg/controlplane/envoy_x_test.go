package controlplane_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// envoyPath is where make envoy puts the real Envoy, from here.
const envoyPath = "../../bin/peers/envoy"

const envoyConfig = `
node: {id: %s, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
dynamic_resources:
  ads_config:
    api_type: %s
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: control-plane}}]
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
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
          rds: {route_config_name: "orders.default:http", config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: db
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: db
          cluster: "db.default:tcp"
  clusters:
  - name: control-plane
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`

// TestEnvoyJoinsTheMesh runs the real Envoy as a data plane, over both variants of
// ADS: it takes everything that it gets, and serves what is registered.
func TestEnvoyJoinsTheMesh(t *testing.T) {
	if _, err := os.Stat(envoyPath); err != nil {
		t.Skip("there is no Envoy here: make envoy installs it")
	}
	addresses := runControlPlane(t)
	api := "http://" + addresses.HTTP.String()
	app := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		return s
	}
	register := func(id string, s *httptest.Server) {
		call(t, http.MethodPost, api+"/v1/namespaces/default/services/orders/instances", fmt.Sprintf(
			`{"id":%q,"address":"127.0.0.1","ports":[{"name":"http","number":%d}],"ttl":"60s"}`, id, s.Listener.Addr().(*net.TCPAddr).Port))
	}
	register("a1", app("a1"))
	tcpSidecar(t, addresses, "d1", startTCPApp(t, greet("d1")))
	eventually(t, "the TCP service is registered", func() bool { return registered(t, addresses, "db") == "d1" })
	for n, variant := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(variant, func(t *testing.T) {
			node := strings.ToLower(variant)
			admin, web, db := freeport.For(t), freeport.For(t), freeport.For(t)
			startEnvoy(t, n, fmt.Sprintf(envoyConfig, node, admin, variant, web, db, addresses.GRPC.(*net.TCPAddr).Port))
			url := fmt.Sprintf("http://127.0.0.1:%d", web)
			eventually(t, "Envoy serves what is registered", func() bool { return ask(url) == "a1" })
			envoy := caller{port: fmt.Sprintf("127.0.0.1:%d", db)}
			eventually(t, "Envoy relays to a sidecar beside a TCP service", func() bool { return envoy.line(t) == "d1" })

			register("a2", app("a2"))
			eventually(t, "Envoy learns of another instance", func() bool { return ask(url) == "a2" })
			for _, policy := range []string{
				`{"loadBalancing":"RANDOM","breaker":{"consecutiveFailures":3,"openTime":"1s"}}`, `{"loadBalancing":"ROUND_ROBIN","requestTimeout":"0s"}`,
				`{"loadBalancing":"WEIGHTED_ROUND_ROBIN"}`, `{"breaker":{"disabled":true}}`,
			} {
				call(t, http.MethodPut, api+"/v1/namespaces/default/services/orders/policy", policy)
			}
			call(t, http.MethodDelete, api+"/v1/namespaces/default/services/orders/instances/a2", "")
			eventually(t, "Envoy forgets an instance that is gone", func() bool {
				for range 10 {
					if ask(url) != "a1" {
						return false
					}
				}
				return true
			})
			if refused := rejected(t, api, node); refused != "" {
				t.Errorf("Envoy refused: %s", refused)
			}
		})
	}
}

// runControlPlane runs one with a store of its own until the test ends.
func runControlPlane(t *testing.T) controlplane.Addresses {
	t.Helper()
	a, _ := runControlPlaneAt(t, controlplane.Config{DataDir: t.TempDir(), GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"})
	return a
}

// runControlPlaneAt runs one until the test ends or it is stopped, and returns when
// it has read its store.
func runControlPlaneAt(t *testing.T, config controlplane.Config) (a controlplane.Addresses, stop func()) {
	t.Helper()
	a, stop = launch(t, config)
	eventually(t, "the control plane is ready", func() bool { return ask("http://"+a.HTTP.String()+"/readyz") == "ready\n" })
	return a, stop
}

// launch runs a control plane until the test ends or it is stopped, and returns when
// it listens.
func launch(t *testing.T, config controlplane.Config) (a controlplane.Addresses, stop func()) {
	t.Helper()
	ready, tell := make(chan controlplane.Addresses, 1), config.Ready
	config.DrainTime = cmp.Or(config.DrainTime, 50*time.Millisecond)
	config.Log = slog.New(slog.DiscardHandler)
	config.Ready = func(a controlplane.Addresses) {
		if tell != nil {
			tell(a)
		}
		ready <- a
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- controlplane.Run(ctx, config) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case a = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the control plane did not start: %v", err)
	}
	return a, stop
}

func startEnvoy(t *testing.T, id int, config string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(envoyPath, "-c", path, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(id, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: that it says so is no news
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

// call calls the REST API, which must agree.
func call(t *testing.T, method, url, body string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	if text, _ := io.ReadAll(a.Body); a.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", method, url, a.Status, text)
	}
}

// ask returns what is answered, "" if that is no success.
func ask(url string) string {
	a, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not so: %s", what)
}

// rejected lists what a node refused, by the control plane's account.
func rejected(t *testing.T, api, node string) string {
	t.Helper()
	a, err := http.Get(api + "/v1/sidecars")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	var list struct {
		Sidecars []struct {
			Node  string
			Types []struct {
				Rejected []struct{ Name, Reason string }
			}
		}
	}
	if err := json.NewDecoder(a.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Sidecars {
		if s.Node != node {
			continue
		}
		var all []string
		for _, typ := range s.Types {
			for _, r := range typ.Rejected {
				all = append(all, r.Name+": "+r.Reason)
			}
		}
		return strings.Join(all, "; ")
	}
	return "the node is not connected"
}
