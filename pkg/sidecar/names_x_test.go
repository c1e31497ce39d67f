package sidecar_test

import (
	"fmt"
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
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
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
