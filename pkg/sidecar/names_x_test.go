package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// namedBootstrap is a file as people write them for Envoy: its listener has no name, its values are in lower case, and its
// clusters have hosts by name.
const namedBootstrap = `
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    traffic_direction: INBOUND
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          codec_type: auto
          server_header_transformation: PASS_THROUGH
          http_protocol_options: {accept_http_10: true}
          access_log:
          - {name: envoy.access_loggers.stdout, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}
          route_config:
            name: local_route
            virtual_hosts:
            - name: service
              domains: ["*"]
              routes:
              - {match: {prefix: "/nowhere"}, route: {cluster: nowhere}}
              - {match: {prefix: "/logical"}, route: {cluster: logical}}
              - {match: {prefix: "/"}, route: {cluster: strict}}
          http_filters:
          - {name: envoy.filters.http.grpc_web, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}}
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}
  clusters:
  - {name: strict, type: strict_dns, lb_policy: round_robin, load_assignment: {cluster_name: strict, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: %[2]d}}}}]}]}}
  - {name: logical, type: LOGICAL_DNS, load_assignment: {cluster_name: logical, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}}}]}]}}
  - {name: nowhere, type: STRICT_DNS, load_assignment: {cluster_name: nowhere, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: nowhere.invalid, port_value: %[2]d}}}}]}]}}
`

func TestRequestsGoToHostsByName(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.URL.Path) }))
	t.Cleanup(app.Close)
	var port int
	if _, err := fmt.Sscanf(app.URL, "http://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	listen := freeport.For(t)
	addresses, cancel, ended := start(t, sidecar.Config{
		Bootstrap: write(t, fmt.Sprintf(namedBootstrap, listen, port)), AdminAddr: "127.0.0.1:0",
	})
	name := fmt.Sprintf("127.0.0.1:%d", listen)
	if addresses.Listeners[name] == nil {
		t.Fatalf("no listener is called %s: %v", name, addresses.Listeners)
	}
	for _, path := range []string{"/strict", "/logical"} {
		if status, body := get(t, "http://"+name+path); status != http.StatusOK || body != path {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	// Of a name that does not exist, or cannot be looked up, no host is known.
	if status, body := get(t, "http://"+name+"/nowhere"); status != http.StatusServiceUnavailable {
		t.Errorf("%d %q", status, body)
	}
	if status, dump := get(t, "http://"+addresses.Admin.String()+"/config_dump"); status != http.StatusOK || !strings.Contains(dump, "STRICT_DNS") || !strings.Contains(dump, "localhost") {
		t.Errorf("%d %s", status, dump)
	}
	if _, clusters := get(t, "http://"+addresses.Admin.String()+"/clusters?format=json"); !strings.Contains(clusters, fmt.Sprintf("127.0.0.1:%d", port)) {
		t.Errorf("no host is shown: %s", clusters)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// anywhereBootstrap has a listener for all addresses of each family, on one port.
const anywhereBootstrap = `
static_resources:
  listeners:
  - {name: four, address: {socket_address: {address: 0.0.0.0, port_value: %[1]d}}, filter_chains: [{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: four, cluster: four}}]}]}
  - {name: six, address: {socket_address: {address: "::", port_value: %[1]d}}, filter_chains: [{filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: six, cluster: six}}]}]}
  clusters:
  - {name: four, load_assignment: {cluster_name: four, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}}}]}]}}
  - {name: six, load_assignment: {cluster_name: six, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[3]d}}}}]}]}}
`

// TestListenersOfAllAddressesTakeThoseOfTheirFamily is as files for Envoy have it, where 0.0.0.0 is not reached over IPv6.
func TestListenersOfAllAddressesTakeThoseOfTheirFamily(t *testing.T) {
	if probe, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("there is no IPv6: %v", err)
	} else {
		_ = probe.Close()
	}
	var ports []any
	for _, says := range []string{"four", "six"} {
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, says) }))
		t.Cleanup(app.Close)
		ports = append(ports, app.Listener.Addr().(*net.TCPAddr).Port)
	}
	listen := freeport.For(t)
	_, cancel, ended := start(t, sidecar.Config{Bootstrap: write(t, fmt.Sprintf(anywhereBootstrap, listen, ports[0], ports[1]))})
	for host, want := range map[string]string{"127.0.0.1": "four", "[::1]": "six"} {
		if status, body := get(t, fmt.Sprintf("http://%s:%d/", host, listen)); status != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", host, status, body)
		}
	}
	http.DefaultClient.CloseIdleConnections() // which are relayed, and would be waited for
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
