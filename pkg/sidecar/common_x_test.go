package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// commonFile has what files for Envoy often say.
const commonFile = `
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          codec_type: AUTO
          use_remote_address: false
          skip_xff_append: true
          xff_num_trusted_hops: 1
          internal_address_config: {unix_sockets: false}
          preserve_external_request_id: true
          path_with_escaped_slashes_action: KEEP_UNCHANGED
          add_user_agent: false
          request_timeout: 0s
          delayed_close_timeout: 1s
          common_http_protocol_options: {max_headers_count: 100}
          max_request_headers_kb: 60
          http_protocol_options: {allow_absolute_url: true, header_key_format: &case {stateful_formatter: {name: preserve_case, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}}
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {prefix: "/", case_sensitive: true}
                stat_prefix: all
                route: {cluster: app}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      transport_socket: &plain {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
  - name: relay
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: relay, cluster: app}
      transport_socket: *plain
  clusters:
  - name: app
    cluster_type:
      name: envoy.clusters.dns
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
        dns_refresh_rate: 60s
        dns_lookup_family: V4_ONLY
        all_addresses_in_single_endpoint: true
    lb_policy: ROUND_ROBIN
    round_robin_lb_config: {}
    transport_socket: *plain
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http_protocol_options: {header_key_format: *case}}
    alt_stat_name: application
    wait_for_warm_on_init: true
    upstream_connection_options: {tcp_keepalive: {keepalive_time: 60, keepalive_interval: 10, keepalive_probes: 3}}
    circuit_breakers:
      thresholds:
      - {priority: DEFAULT, max_connections: 100, max_pending_requests: 100, max_requests: 100, max_retries: 3, track_remaining: true}
      - {priority: HIGH, max_connections: 1, max_requests: 1}
    load_assignment:
      cluster_name: app
      endpoints:
      - locality: {region: eu-west-1, zone: eu-west-1a, sub_zone: rack-1}
        lb_endpoints:
        - endpoint: {hostname: app.example, address: {socket_address: {address: localhost, port_value: %d}}}
`

func TestWhatFilesForEnvoyOftenSayIsServed(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.RequestURI, r.Header.Get("X-Forwarded-For"))
	}))
	t.Cleanup(app.Close)
	text := fmt.Sprintf(commonFile, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	for _, name := range []string{"web", "relay"} {
		if code, body := get(t, "http://"+addresses.Listeners[name].String()+"/a//b/%2F"); code != 200 || body != "/a//b/%2F " {
			t.Errorf("%s: %d %q", name, code, body)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
