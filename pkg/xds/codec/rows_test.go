package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// values are what a row of docs/xds-subset.md is tried with, in JSON.
type values struct {
	other string // another value in the subset; "" if there is none
	bad   string // one outside of it; null is the lack of one; "" if there is none
	at    string // the field above that they are of, if not the row's: to be without it is another value
}

// rows is a section of docs/xds-subset.md.
type rows struct {
	bases  []string // documents in YAML; a row is tried in the first that has its field
	prefix string   // where the section begins in them
	decode func(json []byte) (any, error)
	values map[string]values
}

const (
	autoConfig        = `typed_extension_protocol_options["` + httpOptionsKey + `"].auto_config`
	httpOptions       = `typed_extension_protocol_options["` + httpOptionsKey + `"].explicit_http_config`
	commonOptions     = `typed_extension_protocol_options["` + httpOptionsKey + `"].common_http_protocol_options`
	clusterExtension  = `metadata.typed_filter_metadata["` + clusterMetadata + `"]`
	endpointExtension = `endpoints.lb_endpoints.metadata.typed_filter_metadata["` + endpointMetadata + `"]`
	sanMatcher        = "validation_context.match_typed_subject_alt_names"
	balancingPolicy   = "load_balancing_policy.policies.typed_extension_config"

	managerType = `"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`
	routerType  = `"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`
	routerHere  = `http_filters: [{name: router, typed_config: {` + routerType + `, suppress_envoy_headers: true}}]`
	rdsHere     = `rds: {route_config_name: r, config_source: {ads: {}, resource_api_version: V3}}`
	logHere     = `access_log: [{name: file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}}]`
	stdoutLog   = `{"@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"}`
	hostHere    = `endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]}]`

	changesHere = `request_headers_to_add: [{header: {key: x, value: y}}], response_headers_to_add: [{header: {key: x, value: y}}], request_headers_to_remove: [x], response_headers_to_remove: [x]`
	caseHere    = `header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}`

	anotherManager = `{` + `"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": "another", "rds": {"route_config_name": "r", "config_source": {"ads": {}, "resource_api_version": "V3"}},
		"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}`
	noManager = `{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}`
	notText   = `"a\nb"`

	tcpType   = `"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`
	tcpHere   = `address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{name: chain, filter_chain_match: {server_names: [a.example]}, filters: [{name: tcp, typed_config: {` + tcpType + `, stat_prefix: p, cluster: c, idle_timeout: 1s, max_connect_attempts: 3, ` + logHere + `}}]}]`
	inspected = `listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}], listener_filters_timeout: 1s`
	told      = `{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}, {name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}], continue_on_listener_filters_timeout: true, ` +
		`filter_chains: [{filter_chain_match: {transport_protocol: tls, application_protocols: [h2]}, filters: [{name: tcp, typed_config: {` + tcpType + `, stat_prefix: p, cluster: c}}]}], ` +
		`default_filter_chain: {name: rest, filters: [{name: hcm, typed_config: {` + managerType + `, stat_prefix: p, ` + rdsHere + `, ` + routerHere + `}}], transport_socket: {name: tls, typed_config: {` + downstreamType + `, common_tls_context: {` + pairHere + `}}}}}`
	relayed = `{name: l, stat_prefix: p, enable_reuse_port: true, per_connection_buffer_limit_bytes: 32768, traffic_direction: OUTBOUND, ` + tcpHere + `, ` + inspected + `}`

	otherFilter    = `{"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}`
	plainFilter    = `{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}`
	senderType     = `"@type": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport`
	heralded       = `{name: c, type: STATIC, load_assignment: {cluster_name: c}, transport_socket: {name: proxy, typed_config: {` + senderType + `, config: {version: V2}, transport_socket: {name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}`
	otherHerald    = `{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", "config": {}, "transport_socket": {"name": "raw", "typed_config": ` + plainFilter + `}}`
	downstreamType = `"@type": type.googleapis.com/` + downstreamTLSType
	upstreamType   = `"@type": type.googleapis.com/` + upstreamTLSType
	pairHere       = `tls_certificates: [{certificate_chain: {filename: /c.pem}, private_key: {filename: /k.pem}}]`
	sanHere        = `validation_context: {trusted_ca: {filename: /ca.pem}, match_typed_subject_alt_names: [{san_type: %s, matcher: {%s: "%s"}}]}`

	anotherPair       = `{"certificate_chain": {"filename": "/d.pem"}, "private_key": {"filename": "/l.pem"}}`
	anotherDownstream = `{"@type": "type.googleapis.com/` + downstreamTLSType + `", "common_tls_context": {"tls_certificates": [` + anotherPair + `]}}`
	anotherUpstream   = `{"@type": "type.googleapis.com/` + upstreamTLSType + `", "sni": "another"}`

	bootstrapBase = `
node:
  id: n1
  cluster: orders
  metadata: {version: v1}
  locality: {region: r, zone: z, sub_zone: s}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}, access_log_path: /dev/null}
stats_config: {use_all_default_tags: false}
stats_flush_interval: 10s
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: first}}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - &first
    name: first
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: first
      ` + hostHere + `
    typed_extension_protocol_options:
      ` + httpOptionsKey + `:
        "@type": type.googleapis.com/` + httpOptionsKey + `
        explicit_http_config: {http2_protocol_options: {}}
  - {<<: *first, name: second, load_assignment: {cluster_name: second, ` + hostHere + `}}
`
	namedBase = `{static_resources: {clusters: [{name: c, type: STRICT_DNS, dns_refresh_rate: 2s, dns_lookup_family: ALL, load_assignment: {cluster_name: c, endpoints: [
		{locality: {region: r, zone: z, sub_zone: s}, load_balancing_weight: 3, lb_endpoints: [{endpoint: {hostname: h, address: {socket_address: {address: app.example, port_value: 80}}}, health_status: HEALTHY, load_balancing_weight: 2}]}]}}]}}`
	dnsClusterBase = `{static_resources: {clusters: [{name: c, cluster_type: {name: dns, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_refresh_rate: 2s, dns_lookup_family: ALL, ` +
		`all_addresses_in_single_endpoint: true}}, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: app.example, port_value: 80}}}}]}]}}]}}`
	barestCluster = `{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}}`
	plainCluster  = `
name: c
type: EDS
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}, service_name: c}
connect_timeout: 1s
per_connection_buffer_limit_bytes: 32768
lb_policy: ROUND_ROBIN
common_lb_config: {healthy_panic_threshold: {value: 10}}
alt_stat_name: d
upstream_connection_options: {tcp_keepalive: {keepalive_time: 10, keepalive_interval: 5, keepalive_probes: 3}}
wait_for_warm_on_init: false
circuit_breakers: {thresholds: [{priority: DEFAULT, max_retries: 3, track_remaining: true, max_connections: 10, max_pending_requests: 10, max_requests: 10}]}
outlier_detection:
  consecutive_5xx: 3
  enforcing_consecutive_5xx: 100
  enforcing_consecutive_gateway_failure: 0
  enforcing_success_rate: 0
  enforcing_failure_percentage: 100
  failure_percentage_threshold: 40
  failure_percentage_request_volume: 10
  failure_percentage_minimum_hosts: 2
  interval: 5s
  base_ejection_time: 1s
  max_ejection_time: 20s
  max_ejection_time_jitter: 1s
  max_ejection_percent: 30
  always_eject_one_host: true
typed_extension_protocol_options:
  ` + httpOptionsKey + `: {"@type": type.googleapis.com/` + httpOptionsKey + `, explicit_http_config: {http_protocol_options: {enable_trailers: true, ` + caseHere + `}}, common_http_protocol_options: {idle_timeout: 60s, max_connection_duration: 3600s, max_connection_duration_jitter: {value: 20}, max_requests_per_connection: 9}}
`
	staticCluster = `
name: c
type: STATIC
load_assignment: {cluster_name: c}
load_balancing_policy:
  policies:
  - typed_extension_config:
      name: least
      typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, choice_count: 2}
typed_extension_protocol_options:
  ` + httpOptionsKey + `: {"@type": type.googleapis.com/` + httpOptionsKey + `, explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 100, initial_stream_window_size: 65535, initial_connection_window_size: 65535, allow_connect: true, connection_keepalive: {interval: 30s, timeout: 5s, interval_jitter: {value: 10}}}}}
`
	leastRequestCluster = `{name: c, type: STATIC, load_assignment: {cluster_name: c}, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 2}}`
	roundRobinCluster   = `{name: c, type: STATIC, load_assignment: {cluster_name: c}, lb_policy: ROUND_ROBIN, round_robin_lb_config: {}}`
	choosingCluster     = `
name: c
type: STATIC
load_assignment: {cluster_name: c}
transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: app.example}}
typed_extension_protocol_options:
  ` + httpOptionsKey + `:
    "@type": type.googleapis.com/` + httpOptionsKey + `
    auto_config: {http_protocol_options: {enable_trailers: true, ` + caseHere + `}, http2_protocol_options: {max_concurrent_streams: 100, initial_stream_window_size: 65535, initial_connection_window_size: 65535, allow_connect: true, connection_keepalive: {interval: 30s, timeout: 5s, interval_jitter: {value: 10}}}}
`
	extendedCluster = `
name: c
type: STATIC
load_assignment: {cluster_name: c}
outlier_detection: {}
metadata:
  typed_filter_metadata:
    ` + clusterMetadata + `:
      "@type": type.googleapis.com/mesh.v1.ClusterExtension
      weighted_round_robin: false
      breaker: {disabled: false, failure_percent: 40, minimum_requests: 10, window: 5s, max_open_time: 60s, half_open_requests: 2}
`
)

// tlsListener is a listener with TLS, of whatever else its context has.
func tlsListener(context string) string {
	return `{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: [{name: hcm, typed_config: {` +
		managerType + `, stat_prefix: p, ` + rdsHere + `, ` + routerHere + `}}], transport_socket: {name: tls, typed_config: {` + downstreamType + `, ` + context + `}}}]}`
}

// tlsCluster is tlsListener for clusters.
func tlsCluster(context string) string {
	return `{name: c, type: STATIC, load_assignment: {cluster_name: c}, transport_socket: {name: tls, typed_config: {` + upstreamType + `, ` + context + `}}}`
}

func commonTLS(common string) string { return tlsCluster(`common_tls_context: {` + common + `}`) }

func sections() map[string]rows {
	return map[string]rows{
		"Bootstrap": {
			bases: []string{bootstrapBase},
			decode: func(data []byte) (any, error) {
				b, err := DecodeBootstrap(data)
				b.StatsFlushInterval = 0 // which is shown, and has no effect
				return b, err
			},
			values: map[string]values{
				"node.id":                                                     {other: `"n2"`, bad: `null`},
				"node.cluster":                                                {other: `"users"`, bad: `null`},
				"node.metadata":                                               {other: `{"version": "v2"}`, bad: `7`},
				"node.locality.region":                                        {other: `"x"`, bad: notText},
				"node.locality.zone":                                          {other: `"x"`, bad: notText},
				"node.locality.sub_zone":                                      {other: `"x"`, bad: notText},
				"admin.address.socket_address.address":                        {other: `"127.0.0.2"`, bad: `"localhost"`},
				"admin.address.socket_address.port_value":                     {other: `0`, bad: `65536`},
				"admin.access_log_path":                                       {bad: `"/tmp/admin.log"`},
				"stats_config.use_all_default_tags":                           {other: `true`, bad: `"yes"`},
				"stats_flush_interval":                                        {other: `"300s"`, bad: `"301s"`},
				"dynamic_resources.ads_config.api_type":                       {bad: `"GRPC"`},
				"dynamic_resources.ads_config.transport_api_version":          {bad: `"V2"`},
				"dynamic_resources.ads_config.set_node_on_first_message_only": {other: `false`, bad: `7`},
				"dynamic_resources.ads_config.grpc_services.envoy_grpc.cluster_name": {other: `"second"`, bad: `"third"`},
				"dynamic_resources.lds_config.ads":                                   {other: `null`, bad: `{"resource_api_version": "V3"}`, at: "dynamic_resources.lds_config"},
				"dynamic_resources.lds_config.resource_api_version":                  {bad: `"V2"`},
				"dynamic_resources.cds_config.ads":                                   {other: `null`, bad: `{"resource_api_version": "V3"}`, at: "dynamic_resources.cds_config"},
				"dynamic_resources.cds_config.resource_api_version":                  {bad: `"V2"`},
			},
		},
		"The control plane's cluster": {
			bases:  []string{bootstrapBase},
			prefix: "static_resources.clusters.",
			decode: func(data []byte) (any, error) {
				b, err := DecodeBootstrap(data)
				return b.ControlPlane, err
			},
			values: map[string]values{
				"name":                         {bad: `""`},
				"type":                         {bad: `"EDS"`},
				"connect_timeout":              {other: `"1s"`, bad: `"3601s"`},
				"load_assignment.cluster_name": {other: `"x"`, bad: `7`},
				"load_assignment.endpoints.lb_endpoints.endpoint.address.socket_address.address":    {other: `"10.0.0.2"`, bad: `"control-plane"`},
				"load_assignment.endpoints.lb_endpoints.endpoint.address.socket_address.port_value": {other: `81`, bad: `0`},
				httpOptions + ".http2_protocol_options":                                             {bad: `{"max_concurrent_streams": 5}`},
				httpOptions + ".http_protocol_options":                                              {bad: `{"http_protocol_options": {}}`, at: httpOptions},
			},
		},
		"Listener": {
			bases: []string{
				`{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: [{name: hcm, typed_config: {` +
					managerType + `, stat_prefix: p, ` + rdsHere + `, ` + routerHere + `}}]}]}`,
				`{name: l, api_listener: {api_listener: {` + managerType + `, stat_prefix: p, ` + rdsHere + `, ` + routerHere + `}}}`,
				tlsListener(`common_tls_context: {` + pairHere + `}`),
				relayed,
				told,
			},
			decode: resources(&listenerv3.Listener{}, DecodeListener),
			values: map[string]values{
				"filter_chains.filter_chain_match.transport_protocol":    {other: `"raw_buffer"`, bad: `"quic"`},
				"filter_chains.filter_chain_match.application_protocols": {other: `["http/1.1", "h2c"]`, bad: `[""]`},
				"continue_on_listener_filters_timeout":                   {other: `false`},
				"default_filter_chain.name":                              {other: `"x"`, bad: notText},
				"default_filter_chain.filters.name":                      {other: `"x"`, bad: `""`},
				"default_filter_chain.filters.typed_config":              {other: anotherManager, bad: noManager},
				"default_filter_chain.transport_socket.name":             {other: `"x"`, bad: `""`},
				"default_filter_chain.transport_socket.typed_config":     {other: anotherDownstream, bad: anotherUpstream},
				"filter_chains.transport_socket.name":                    {other: `"x"`, bad: `""`},
				"filter_chains.transport_socket.typed_config":            {other: anotherDownstream, bad: anotherUpstream},
				"name":                               {other: `"m"`, bad: `""`},
				"address.socket_address.address":     {other: `"::1"`, bad: `"localhost"`},
				"address.socket_address.port_value":  {other: `65535`, bad: `65536`},
				"api_listener.api_listener":          {other: anotherManager, bad: noManager},
				"filter_chains.filters.name":         {other: `"x"`, bad: `""`},
				"filter_chains.filters.typed_config": {other: anotherManager, bad: noManager},

				"filter_chains.name":                            {other: `"x"`, bad: notText},
				"filter_chains.filter_chain_match.server_names": {other: `["*.b.example", "c"]`, bad: `["*"]`},
				"traffic_direction":                             {other: `"INBOUND"`},
				"stat_prefix":                                   {other: `"q"`},
				"enable_reuse_port":                             {other: `false`},
				"per_connection_buffer_limit_bytes":             {other: `1`},
				"listener_filters.name":                         {other: `"x"`, bad: `""`},
				"listener_filters.typed_config":                 {bad: plainFilter},
				"listener_filters_timeout":                      {other: `"2s"`, bad: `"0s"`},
			},
		},
		"TcpProxy": {
			bases:  []string{relayed},
			prefix: "filter_chains.filters.typed_config.",
			decode: resources(&listenerv3.Listener{}, DecodeListener),
			values: map[string]values{
				"stat_prefix":          {other: `"q"`, bad: `""`},
				"cluster":              {other: `"d"`, bad: `null`},
				"idle_timeout":         {other: `"0s"`, bad: `"86401s"`},
				"max_connect_attempts": {other: `8`, bad: `9`},

				"access_log.name":              {other: `"x"`},
				"access_log.typed_config":      {other: stdoutLog, bad: plainFilter},
				"access_log.typed_config.path": {bad: `"/var/log/access.log"`},
			},
		},
		"ProxyProtocolUpstreamTransport": {
			bases:  []string{heralded},
			prefix: "transport_socket.typed_config.",
			decode: resources(&clusterv3.Cluster{}, DecodeCluster),
			values: map[string]values{
				"config.version":                {other: `"V1"`, bad: `2`},
				"transport_socket.name":         {other: `"x"`, bad: `""`},
				"transport_socket.typed_config": {bad: otherFilter},
			},
		},
		"HttpConnectionManager": {
			bases: []string{
				`{name: l, api_listener: {api_listener: {` + managerType + `, stat_prefix: p, codec_type: AUTO, ` + rdsHere + `, ` + routerHere + `, upgrade_configs: [{upgrade_type: websocket}], ` + logHere + `, ` +
					`http_protocol_options: {accept_http_10: true, enable_trailers: true, allow_absolute_url: true, ` + caseHere + `}, max_request_headers_kb: 60, preserve_external_request_id: true, xff_num_trusted_hops: 1, internal_address_config: {unix_sockets: true}, ` +
					`path_with_escaped_slashes_action: KEEP_UNCHANGED, add_user_agent: false, request_timeout: 0s, request_headers_timeout: 5s, delayed_close_timeout: 1s, server_header_transformation: PASS_THROUGH, generate_request_id: false, use_remote_address: true, skip_xff_append: true, normalize_path: false, ` +
					`common_http_protocol_options: {idle_timeout: 60s, max_connection_duration: 3600s, max_connection_duration_jitter: {value: 20}, max_requests_per_connection: 9, max_headers_count: 100}, ` +
					`http2_protocol_options: {max_concurrent_streams: 100, initial_stream_window_size: 65535, initial_connection_window_size: 65535, allow_connect: true, connection_keepalive: {interval: 30s, timeout: 5s, interval_jitter: {value: 10}}}}}}`,
				`{name: l, api_listener: {api_listener: {` + managerType + `, stat_prefix: p, route_config: {name: r}, ` + routerHere + `}}}`,
			},
			prefix: "api_listener.api_listener.",
			decode: resources(&listenerv3.Listener{}, DecodeListener),
			values: with(map[string]values{
				"stat_prefix":                            {other: `"q"`, bad: `""`},
				"codec_type":                             {other: `"HTTP2"`, bad: `"HTTP3"`},
				"route_config":                           {other: `{}`, bad: `{"virtual_hosts": [{}]}`},
				"rds.route_config_name":                  {other: `"s"`, bad: `""`},
				"rds.config_source.ads":                  {bad: `null`},
				"rds.config_source.resource_api_version": {bad: `"V2"`},
				"http_filters.name":                      {other: `"x"`, bad: `""`},
				"http_filters.typed_config":              {bad: anotherManager},
				"http_filters.typed_config.suppress_envoy_headers": {other: `false`},
				"access_log.name":                          {other: `"x"`},
				"access_log.typed_config":                  {other: stdoutLog, bad: noManager},
				"access_log.typed_config.path":             {bad: `"access.log"`},
				"upgrade_configs.upgrade_type":             {other: `"CONNECT"`, bad: `"h2c"`},
				"http_protocol_options.accept_http_10":     {other: `false`},
				"http_protocol_options.allow_absolute_url": {bad: `false`},
				"preserve_external_request_id":             {other: `false`},
				"xff_num_trusted_hops":                     {other: `2`},
				"internal_address_config":                  {other: `{}`, bad: `{"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}`},
				"path_with_escaped_slashes_action":         {bad: `"UNESCAPE_AND_FORWARD"`},
				"add_user_agent":                           {bad: `true`},
				"request_headers_timeout":                  {other: `"86400s"`, bad: `"0s"`},
				"request_timeout":                          {bad: `"5s"`},
				"delayed_close_timeout":                    {other: `"0s"`, bad: `"86401s"`},
				"server_header_transformation":             {other: `"OVERWRITE"`, bad: `"APPEND_IF_ABSENT"`},
				"generate_request_id":                      {bad: `true`},
				"use_remote_address":                       {other: `false`},
				"skip_xff_append":                          {other: `false`},
				"normalize_path":                           {bad: `true`},
			}, map[string]values{
				"common_http_protocol_options.max_headers_count": {bad: `99`},
				"max_request_headers_kb":                         {bad: `96`},
			}, ofConnections("common_http_protocol_options"), ofHTTP1("http_protocol_options"), ofHTTP2("http2_protocol_options", `65537`)),
		},
		"RouteConfiguration": {
			bases: []string{
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{name: n, stat_prefix: p, match: {prefix: /, case_sensitive: true}, route: {cluster: c, timeout: 2s, host_rewrite_literal: a.example, prefix_rewrite: /b}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {path: /a}, route: {cluster: c, upgrade_configs: [{upgrade_type: websocket, enabled: true}], timeout: 2s, max_stream_duration: {grpc_timeout_header_max: 2s}}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {path: /a}, direct_response: {status: 200, body: {inline_string: ok}}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {path: /a}, redirect: {https_redirect: true, host_redirect: b, port_redirect: 81, path_redirect: /c, response_code: FOUND, strip_query: true}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {path: /a}, redirect: {scheme_redirect: http, prefix_rewrite: /c}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {path: /a, headers: [{name: x}], query_parameters: [{name: x}], grpc: {}}, route: {cluster: c}}]}]}`,
				`{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {safe_regex: {google_re2: {}, regex: "/a.*"}}, route: {cluster: c}}]}]}`,
				`{name: r, ` + changesHere + `, virtual_hosts: [{name: v, domains: [a], ` + changesHere + `, routes: [{match: {path: /a}, route: {cluster: c}, ` + changesHere + `}]}]}`,
			},
			decode: resources(&routev3.RouteConfiguration{}, DecodeRoute),
			values: map[string]values{
				"request_headers_to_add":                          {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"request_headers_to_remove":                       {other: `["y"]`, bad: `["Host"]`},
				"response_headers_to_add":                         {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"response_headers_to_remove":                      {other: `["y"]`, bad: `["a b"]`},
				"virtual_hosts.request_headers_to_add":            {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"virtual_hosts.request_headers_to_remove":         {other: `["y"]`, bad: `["Host"]`},
				"virtual_hosts.response_headers_to_add":           {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"virtual_hosts.response_headers_to_remove":        {other: `["y"]`, bad: `["a b"]`},
				"virtual_hosts.routes.request_headers_to_add":     {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"virtual_hosts.routes.request_headers_to_remove":  {other: `["y"]`, bad: `["Host"]`},
				"virtual_hosts.routes.response_headers_to_add":    {other: `[{"header": {"key": "y", "value": "z"}}]`, bad: `[{}]`},
				"virtual_hosts.routes.response_headers_to_remove": {other: `["y"]`, bad: `["a b"]`},
				"name":                      {other: `"s"`, bad: `""`},
				"virtual_hosts.name":        {other: `"w"`, bad: `""`},
				"virtual_hosts.domains":     {other: `["*.a", "b*", "*"]`, bad: `["a", "A"]`},
				"virtual_hosts.routes.name": {other: `""`, bad: notText},
				"virtual_hosts.routes.match.safe_regex.google_re2":                       {other: `null`, bad: `{"max_program_size": 100}`},
				"virtual_hosts.routes.match.safe_regex.regex":                            {other: `"/b"`, bad: `"("`},
				"virtual_hosts.routes.match.headers":                                     {other: `[{"name": "y"}]`, bad: `[{"name": ":status"}]`},
				"virtual_hosts.routes.match.query_parameters":                            {other: `[{"name": "y"}]`, bad: `[{}]`},
				"virtual_hosts.routes.match.grpc":                                        {other: `null`},
				"virtual_hosts.routes.match.prefix":                                      {other: `""`, bad: `"a"`},
				"virtual_hosts.routes.match.path":                                        {other: `"/b"`, bad: `"/b?"`},
				"virtual_hosts.routes.match.case_sensitive":                              {bad: `false`},
				"virtual_hosts.routes.stat_prefix":                                       {other: `"q"`},
				"virtual_hosts.routes.match.connect_matcher":                             {bad: `{}`, at: "virtual_hosts.routes.match"},
				"virtual_hosts.routes.route.upgrade_configs.upgrade_type":                {other: `"WebSocket"`, bad: `"h2c"`},
				"virtual_hosts.routes.route.upgrade_configs.enabled":                     {bad: `false`},
				"virtual_hosts.routes.route.upgrade_configs.connect_config":              {bad: `{"allow_post": true}`},
				"virtual_hosts.routes.route.cluster":                                     {other: `"d"`, bad: `""`},
				"virtual_hosts.routes.route.timeout":                                     {other: `"0s"`, bad: `"86401s"`},
				"virtual_hosts.routes.route.host_rewrite_literal":                        {other: `"[::1]:80"`, bad: `"a b"`},
				"virtual_hosts.routes.route.prefix_rewrite":                              {other: `"/"`, bad: `"b"`},
				"virtual_hosts.routes.route.max_stream_duration.grpc_timeout_header_max": {bad: `"1s"`},
				"virtual_hosts.routes.redirect.https_redirect":                           {other: `false`},
				"virtual_hosts.routes.redirect.scheme_redirect":                          {other: `"HTTPS"`, bad: `"ftp"`},
				"virtual_hosts.routes.redirect.host_redirect":                            {other: `"[::1]:80"`, bad: `"a b"`},
				"virtual_hosts.routes.redirect.port_redirect":                            {other: `65535`, bad: `65536`},
				"virtual_hosts.routes.redirect.path_redirect":                            {other: `"/b?c"`, bad: `"b"`},
				"virtual_hosts.routes.redirect.prefix_rewrite":                           {other: `"/b"`, bad: `"/b c"`},
				"virtual_hosts.routes.redirect.response_code":                            {other: `"PERMANENT_REDIRECT"`, bad: `9`},
				"virtual_hosts.routes.redirect.strip_query":                              {other: `false`},
				"virtual_hosts.routes.direct_response.status":                            {other: `599`, bad: `600`},
				"virtual_hosts.routes.direct_response.body.inline_string":                {other: `"no"`, bad: `"` + strings.Repeat("x", 4097) + `"`},
			},
		},
		"HeaderMatcher": {
			bases: []string{
				matching(`headers: [{name: x, invert_match: true, treat_missing_header_as_empty: true, present_match: true}]`),
				matching(`headers: [{name: x, exact_match: a}]`),
				matching(`headers: [{name: x, prefix_match: a}]`),
				matching(`headers: [{name: x, suffix_match: a}]`),
				matching(`headers: [{name: x, contains_match: a}]`),
				matching(`headers: [{name: x, safe_regex_match: {google_re2: {}, regex: a+}}]`),
				matching(`headers: [{name: x, range_match: {start: 1, end: 10}}]`),
				matching(`headers: [{name: x, string_match: {exact: a}}]`),
			},
			prefix: "virtual_hosts.routes.match.headers.",
			decode: resources(&routev3.RouteConfiguration{}, DecodeRoute),
			values: map[string]values{
				"name":                          {other: `":method"`, bad: `"a b"`},
				"invert_match":                  {other: `false`},
				"treat_missing_header_as_empty": {other: `false`},
				"present_match":                 {other: `false`},
				"exact_match":                   {other: `""`, bad: long(maxName + 1)},
				"prefix_match":                  {other: `"b"`, bad: `""`},
				"suffix_match":                  {other: `"b"`, bad: `""`},
				"contains_match":                {other: `"b"`, bad: `""`},
				"safe_regex_match.google_re2":   {other: `null`, bad: `{"max_program_size": 100}`},
				"safe_regex_match.regex":        {other: `"b|c"`, bad: `"("`},
				"range_match.start":             {other: `-5`, bad: `10`},
				"range_match.end":               {other: `2`, bad: `1`},
				"string_match":                  {other: `{"prefix": "a"}`, bad: `{}`},
			},
		},
		"QueryParameterMatcher": {
			bases:  []string{matching(`query_parameters: [{name: x, present_match: true}]`), matching(`query_parameters: [{name: x, string_match: {exact: a}}]`)},
			prefix: "virtual_hosts.routes.match.query_parameters.",
			decode: resources(&routev3.RouteConfiguration{}, DecodeRoute),
			values: map[string]values{
				"name":          {other: `"y"`, bad: `""`},
				"present_match": {other: `false`},
				"string_match":  {other: `{"prefix": "a"}`, bad: `{}`},
			},
		},
		"StringMatcher": {
			bases: []string{
				matching(`headers: [{name: x, string_match: {exact: a, ignore_case: true}}]`),
				matching(`headers: [{name: x, string_match: {prefix: a}}]`),
				matching(`headers: [{name: x, string_match: {suffix: a}}]`),
				matching(`headers: [{name: x, string_match: {contains: a}}]`),
				matching(`headers: [{name: x, string_match: {safe_regex: {google_re2: {}, regex: a}}}]`),
			},
			prefix: "virtual_hosts.routes.match.headers.string_match.",
			decode: resources(&routev3.RouteConfiguration{}, DecodeRoute),
			values: map[string]values{
				"exact":                 {other: `""`, bad: notText},
				"prefix":                {other: `"b"`, bad: `""`},
				"suffix":                {other: `"b"`, bad: `""`},
				"contains":              {other: `"b"`, bad: `""`},
				"safe_regex.google_re2": {other: `null`, bad: `{"max_program_size": 100}`},
				"safe_regex.regex":      {other: `"a.*"`, bad: `"a(?=b)"`},
				"ignore_case":           {other: `false`},
			},
		},
		"HeaderValueOption": {
			bases: []string{
				`{name: r, request_headers_to_add: [{header: {key: x, value: y}, append_action: ADD_IF_ABSENT}]}`,
				`{name: r, request_headers_to_add: [{header: {key: x, value: y}, append: true}]}`,
				`{name: r, request_headers_to_add: [{header: {key: x}, keep_empty_value: true}]}`,
			},
			prefix: "request_headers_to_add.",
			decode: resources(&routev3.RouteConfiguration{}, DecodeRoute),
			values: map[string]values{
				"header.key":       {other: `"X-Other"`, bad: `"Content-Length"`},
				"header.value":     {other: `"100%%"`, bad: `"%START_TIME%"`},
				"append":           {other: `false`},
				"append_action":    {other: `"OVERWRITE_IF_EXISTS"`, bad: `9`},
				"keep_empty_value": {other: `false`},
			},
		},
		"Cluster": {
			bases:  []string{barestCluster, plainCluster, staticCluster, leastRequestCluster, extendedCluster, commonTLS(""), heralded, choosingCluster, roundRobinCluster},
			decode: resources(&clusterv3.Cluster{}, DecodeCluster),
			values: with(map[string]values{
				"transport_socket.name":             {other: `"x"`, bad: `""`},
				"transport_socket.typed_config":     {other: anotherUpstream, bad: anotherDownstream},
				"name":                              {other: `"d"`, bad: `"xdstp://a/b"`},
				"type":                              {bad: `"STRICT_DNS"`},
				"eds_cluster_config.eds_config.ads": {bad: `null`},
				"eds_cluster_config.eds_config.resource_api_version":           {bad: `"V2"`},
				"eds_cluster_config.service_name":                              {other: `""`, bad: `"d"`},
				"load_assignment":                                              {other: `{"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 1}}}}]}]}`, bad: `null`},
				"connect_timeout":                                              {other: `"3600s"`, bad: `"3601s"`},
				"per_connection_buffer_limit_bytes":                            {other: `1`},
				"lb_policy":                                                    {other: `"RANDOM"`, bad: `"MAGLEV"`},
				"least_request_lb_config.choice_count":                         {bad: `3`},
				"common_lb_config.healthy_panic_threshold.value":               {other: `100`, bad: `0.5`},
				balancingPolicy + ".name":                                      {other: `"x"`, bad: `""`},
				balancingPolicy + ".typed_config":                              {other: `{"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random"}`, bad: noManager},
				balancingPolicy + ".typed_config.choice_count":                 {bad: `3`},
				"circuit_breakers.thresholds.priority":                         {other: `"HIGH"`, bad: `5`},
				"circuit_breakers.thresholds.max_retries":                      {other: `0`},
				"circuit_breakers.thresholds.track_remaining":                  {other: `false`},
				"upstream_connection_options.tcp_keepalive.keepalive_time":     {other: `32767`, bad: `0`},
				"upstream_connection_options.tcp_keepalive.keepalive_interval": {other: `null`, bad: `32768`},
				"upstream_connection_options.tcp_keepalive.keepalive_probes":   {other: `127`, bad: `128`},
				"alt_stat_name":                                                {other: `"e"`},
				"wait_for_warm_on_init":                                        {other: `true`},
				"circuit_breakers.thresholds.max_connections":                  {other: `4294967295`, bad: `0`},
				"circuit_breakers.thresholds.max_pending_requests":             {other: `4294967295`, bad: `0`},
				"circuit_breakers.thresholds.max_requests":                     {other: `4294967295`, bad: `0`},
				"outlier_detection":                                            {other: `null`, bad: `{"consecutive_5xx": 0}`},
				httpOptions + ".http_protocol_options":                         {other: `null`, at: "typed_extension_protocol_options", bad: `{"` + httpOptionsKey + `": {"@type": "type.googleapis.com/` + httpOptionsKey + `"}}`},
				httpOptions + ".http2_protocol_options":                        {other: `null`, at: "typed_extension_protocol_options", bad: `{"` + httpOptionsKey + `": {"@type": "type.googleapis.com/` + httpOptionsKey + `"}}`},
				autoConfig:                                                     {other: `null`, at: "typed_extension_protocol_options", bad: `{"` + httpOptionsKey + `": {"@type": "type.googleapis.com/` + httpOptionsKey + `", "auto_config": {"http2_protocol_options": {"hpack_table_size": 5}}}}`},
				autoConfig + ".http_protocol_options":                          {other: `null`, bad: `{"accept_http_10": true}`},
				autoConfig + ".http2_protocol_options":                         {other: `null`, bad: `{"hpack_table_size": 5}`},
				clusterExtension + ".weighted_round_robin":                     {other: `true`},
				clusterExtension + ".breaker.disabled":                         {other: `true`},
				clusterExtension + ".breaker.failure_percent":                  {other: `100`, bad: `101`},
				clusterExtension + ".breaker.minimum_requests":                 {other: `11`, bad: `1000000001`},
				clusterExtension + ".breaker.window":                           {other: `"3600s"`, bad: `"3601s"`},
				clusterExtension + ".breaker.max_open_time":                    {other: `"86400s"`, bad: `"86401s"`},
				clusterExtension + ".breaker.half_open_requests":               {other: `1000`, bad: `1001`},
				"round_robin_lb_config":                                        {other: `null`, bad: `{"slow_start_config": {}}`},
			}, ofConnections(commonOptions), ofHTTP1(httpOptions+".http_protocol_options"), ofHTTP1(autoConfig+".http_protocol_options"), ofHTTP2(httpOptions+".http2_protocol_options", `2147483648`), ofHTTP2(autoConfig+".http2_protocol_options", `2147483648`)),
		},
		"A cluster's hosts by name": {
			bases:  []string{namedBase, dnsClusterBase},
			prefix: "static_resources.clusters.",
			decode: func(data []byte) (any, error) {
				b, err := DecodeBootstrap(data)
				return b.Clusters, err
			},
			values: map[string]values{
				"type":                      {other: `"logical_dns"`, bad: `"ORIGINAL_DST"`},
				"cluster_type.name":         {other: `"x"`, bad: `""`},
				"cluster_type.typed_config": {other: `{"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster"}`, bad: noManager},
				"cluster_type.typed_config.dns_refresh_rate":                 {other: `"3600s"`, bad: `"0.9s"`},
				"cluster_type.typed_config.dns_lookup_family":                {other: `"V6_ONLY"`, bad: `"V5"`},
				"cluster_type.typed_config.all_addresses_in_single_endpoint": {other: `false`},
				"dns_refresh_rate":                                                                  {other: `"3600s"`, bad: `"0.9s"`},
				"dns_lookup_family":                                                                 {other: `"v4_only"`, bad: `"V5"`},
				"load_assignment.cluster_name":                                                      {other: `"d"`, bad: `""`},
				"load_assignment.endpoints.locality.region":                                         {other: `"x"`},
				"load_assignment.endpoints.locality.sub_zone":                                       {other: `"x"`},
				"load_assignment.endpoints.lb_endpoints.endpoint.hostname":                          {other: `"x"`},
				"load_assignment.endpoints.locality.zone":                                           {other: `"y"`, bad: notText},
				"load_assignment.endpoints.load_balancing_weight":                                   {other: `1`, bad: `0`},
				"load_assignment.endpoints.lb_endpoints.endpoint.address.socket_address.address":    {other: `"192.0.2.1"`, bad: `"a:b"`},
				"load_assignment.endpoints.lb_endpoints.endpoint.address.socket_address.port_value": {other: `81`, bad: `0`},
				"load_assignment.endpoints.lb_endpoints.health_status":                              {other: `"UNKNOWN"`, bad: `"DRAINING"`},
				"load_assignment.endpoints.lb_endpoints.load_balancing_weight":                      {other: `10000`, bad: `10001`},
			},
		},
		"DownstreamTlsContext": {
			bases:  []string{tlsListener(`common_tls_context: {` + pairHere + `, validation_context: {trusted_ca: {filename: /ca.pem}}}, require_client_certificate: false`)},
			prefix: "filter_chains.transport_socket.typed_config.",
			decode: resources(&listenerv3.Listener{}, DecodeListener),
			values: map[string]values{
				"common_tls_context":         {other: `{"tls_certificates": [` + anotherPair + `]}`, bad: `{}`},
				"require_client_certificate": {other: `true`},
			},
		},
		"UpstreamTlsContext": {
			bases:  []string{tlsCluster(`common_tls_context: {}, sni: a`)},
			prefix: "transport_socket.typed_config.",
			decode: resources(&clusterv3.Cluster{}, DecodeCluster),
			values: map[string]values{
				"common_tls_context": {other: `{"tls_certificates": [` + anotherPair + `]}`, bad: `{"tls_certificates": [` + anotherPair + `,` + anotherPair + `]}`},
				"sni":                {other: `"b.example"`, bad: `"a b"`},
			},
		},
		"CommonTlsContext": {
			bases: []string{
				commonTLS(`tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_2}, alpn_protocols: [h2], ` + pairHere + `, ` +
					fmt.Sprintf(sanHere, "DNS", "exact", "a.example")),
				commonTLS(fmt.Sprintf(sanHere, "URI", "prefix", "spiffe://a/")),
				commonTLS(fmt.Sprintf(sanHere, "URI", "suffix", "/sa/a")),
			},
			prefix: "transport_socket.typed_config.common_tls_context.",
			decode: resources(&clusterv3.Cluster{}, DecodeCluster),
			values: map[string]values{
				"tls_certificates.certificate_chain.filename": {other: `"/d.pem"`, bad: `""`},
				"tls_certificates.private_key.filename":       {other: `"/d.pem"`, bad: notText},
				"validation_context.trusted_ca.filename":      {other: `"/d.pem"`, bad: `""`},
				sanMatcher + ".san_type":                      {other: `"URI"`, bad: `"EMAIL"`},
				sanMatcher + ".matcher.exact":                 {other: `"b.example"`, bad: `""`},
				sanMatcher + ".matcher.prefix":                {other: `"spiffe://b/"`, bad: notText},
				sanMatcher + ".matcher.suffix":                {other: `"/sa/b"`, bad: `"` + strings.Repeat("x", maxName+1) + `"`},
				"alpn_protocols":                              {other: `["h2", "http/1.1"]`, bad: `[""]`},
				"tls_params.tls_minimum_protocol_version":     {other: `"TLS_AUTO"`, bad: `"TLSv1_1"`},
				"tls_params.tls_maximum_protocol_version":     {other: `"TLSv1_3"`, bad: `"TLSv1_1"`},
			},
		},
		"OutlierDetection": {
			bases:  []string{plainCluster},
			prefix: "outlier_detection.",
			decode: resources(&clusterv3.Cluster{}, DecodeCluster),
			values: map[string]values{
				"consecutive_5xx":                       {other: `1000000`, bad: `1000001`},
				"enforcing_consecutive_5xx":             {bad: `99`},
				"enforcing_consecutive_gateway_failure": {bad: `100`},
				"enforcing_success_rate":                {bad: `100`},
				"enforcing_failure_percentage":          {other: `0`, bad: `50`},
				"failure_percentage_threshold":          {other: `100`, bad: `101`},
				"failure_percentage_request_volume":     {other: `1000000000`, bad: `1000000001`},
				"failure_percentage_minimum_hosts":      {bad: `5`},
				"interval":                              {other: `"0.100s"`, bad: `"0.099s"`},
				"base_ejection_time":                    {other: `"0.001s"`, bad: `"0.0009s"`},
				"max_ejection_time":                     {other: `"86400s"`, bad: `"86401s"`},
				"max_ejection_time_jitter":              {other: `"2s"`, bad: `"-1s"`},
				"max_ejection_percent":                  {other: `100`, bad: `101`},
				"always_eject_one_host":                 {bad: `false`},
			},
		},
		"ClusterLoadAssignment": {
			bases: []string{`
cluster_name: c
endpoints:
- locality: {region: r, zone: z, sub_zone: s}
  load_balancing_weight: 1
  lb_endpoints:
  - endpoint: {hostname: h, address: {socket_address: {address: 10.0.0.1, port_value: 80}}}
    health_status: HEALTHY
    load_balancing_weight: 2
    metadata: {typed_filter_metadata: {` + endpointMetadata + `: {"@type": type.googleapis.com/mesh.v1.EndpointExtension, instance: i, sidecar: false, takes_knocks: false}}}
`},
			decode: resources(&endpointv3.ClusterLoadAssignment{}, DecodeEndpoints),
			values: map[string]values{
				"cluster_name":                                                      {other: `"d"`, bad: `""`},
				"endpoints.locality.region":                                         {other: `"x"`},
				"endpoints.locality.sub_zone":                                       {other: `"x"`},
				"endpoints.lb_endpoints.endpoint.hostname":                          {other: `"x"`},
				"endpoints.locality.zone":                                           {other: `""`, bad: notText},
				"endpoints.load_balancing_weight":                                   {other: `2`, bad: `0`},
				"endpoints.lb_endpoints.endpoint.address.socket_address.address":    {other: `"::1"`, bad: `"0.0.0.0"`},
				"endpoints.lb_endpoints.endpoint.address.socket_address.port_value": {other: `65535`, bad: `0`},
				"endpoints.lb_endpoints.health_status":                              {other: `"DRAINING"`, bad: `"DEGRADED"`},
				"endpoints.lb_endpoints.load_balancing_weight":                      {other: `10000`, bad: `10001`},
				endpointExtension + ".instance":                                     {other: `"j"`, bad: notText},
				endpointExtension + ".sidecar":                                      {other: `true`},
				endpointExtension + ".takes_knocks":                                 {other: `true`},
			},
		},
	}
}

// resources decodes what comes on the stream.
func resources[M proto.Message, T any](m M, decode func(*anypb.Any) (T, error)) func([]byte) (any, error) {
	return func(data []byte) (any, error) {
		proto.Reset(m)
		if err := protojson.Unmarshal(data, m); err != nil {
			return nil, err
		}
		return decode(pack(m))
	}
}

// Applied changes what is decoded, fixed and without effect does not, and what is outside of
// the subset is refused with the row's path.
func TestEveryRowOfTheDocumentationIsAsItSays(t *testing.T) {
	all, known := meanings(t), sections()
	for title := range all {
		if _, ok := known[title]; !ok {
			t.Errorf("section %s is not tried", title)
		}
	}
	for title, s := range known {
		for path := range s.values {
			if all[title][path] == "" {
				t.Errorf("%s: %s is not documented", title, path)
			}
		}
		for path, meaning := range all[title] {
			v, ok := s.values[path]
			if !ok || v.bad == "" && (v.other == "" || meaning == "fixed") { // of two values, both may be taken
				t.Errorf("%s: %s is not tried", title, path)
				continue
			}
			t.Run(title+"/"+path, func(t *testing.T) { s.try(t, path, meaning, v) })
		}
	}
}

func (s rows) try(t *testing.T, path, meaning string, v values) {
	at := s.prefix + path
	if v.at != "" {
		at = s.prefix + v.at
	}
	i := slices.IndexFunc(s.bases, func(base string) bool {
		return change(t, base, at, "") != nil && (meaning == "refused here" || change(t, base, s.prefix+path, "") != nil)
	})
	if i < 0 {
		t.Fatal("no document has the field")
	}
	want, err := s.decode(change(t, s.bases[i], at, ""))
	if err != nil {
		t.Fatal(err)
	}
	if v.other != "" {
		got, err := s.decode(change(t, s.bases[i], at, v.other))
		if err != nil {
			t.Errorf("%s is refused: %v", v.other, err)
		}
		if differs := !cmp.Equal(want, got, equal()...); differs != (meaning == "applied" || v.at != "") {
			t.Errorf("it is %s, and with %s something else is decoded: %v\n%+v", meaning, v.other, differs, got)
		}
	}
	if v.bad == "" {
		return
	}
	var refused *Error
	if _, err = s.decode(change(t, s.bases[i], at, v.bad)); !errors.As(err, &refused) {
		t.Fatalf("%.100s is not refused with an *Error: %v", v.bad, err)
	}
	index := regexp.MustCompile(`\[\d+\]`)
	if !slices.ContainsFunc(refused.Faults, func(f Fault) bool {
		told := index.ReplaceAllString(f.Path, "")
		return told != "" && (within(told, s.prefix+path) || within(s.prefix+path, told))
	}) {
		t.Errorf("%.100s is refused without the path:\n%v", v.bad, err)
	}
}

// meanings returns the second column of the tables by section and path.
func meanings(t *testing.T) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for title, list := range documented(t) {
		found[title] = map[string]string{}
		for _, row := range list {
			found[title][row.path] = row.meaning
		}
	}
	return found
}

// change returns a document in JSON with another value of a field, or with its own if that is
// "". It is nil if there is no such field. Of lists it takes the first item.
func change(t *testing.T, document, path, value string) []byte {
	t.Helper()
	var root map[string]any
	if err := yaml.Unmarshal([]byte(document), &root); err != nil {
		t.Fatal(err)
	}
	steps := regexp.MustCompile(`[a-z0-9_]+|\["[^"]+"\]`).FindAllString(path, -1)
	in := root
	for i, step := range steps {
		step = strings.Trim(step, `[]"`)
		next, ok := in[step]
		if !ok {
			return nil
		}
		if i == len(steps)-1 {
			if value != "" {
				in[step] = json.RawMessage(value)
			}
			break
		}
		if list, ok := next.([]any); ok {
			next = list[0]
		}
		if in, ok = next.(map[string]any); !ok {
			return nil
		}
	}
	data, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What the rows cannot say: what must be there, how much there may be, and what contradicts.
func TestWhatIsMissingTooMuchOrContradictsIsRefusedWithPath(t *testing.T) {
	const (
		boot       = "static_resources.clusters."
		ads        = "dynamic_resources.ads_config."
		vhosts     = "virtual_hosts"
		filters    = "filter_chains.filters"
		downstream = "filter_chains.transport_socket.typed_config."
		upstream   = "transport_socket.typed_config."
		common     = upstream + "common_tls_context."
		service    = `{"envoy_grpc": {"cluster_name": "first"}}`
		bare       = `{"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}}`
		host       = `{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": %d}}}}`
		vhost      = `{"name": "v", "domains": ["a"]}`
		otherVhost = `{"name": "v", "domains": ["b"]}`
	)
	inspector := `{"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}`
	header := `{"name": "proxy", "typed_config": ` + otherFilter + `}`
	long := `"` + strings.Repeat("x", maxName+1) + `"`
	longPath := `"` + strings.Repeat("x", maxPath+1) + `"`
	many := func(n int, one string) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	var hosts []string
	for port := range MaxEndpoints + 1 {
		hosts = append(hosts, fmt.Sprintf(host, port+1))
	}
	all := sections()
	for _, one := range []struct {
		section string
		base    int
		changes [][2]string // paths and values
		want    string
	}{
		{"Bootstrap", 0, [][2]string{{"node.id", long}}, "node.id: is 513 bytes long"},
		{"Bootstrap", 0, [][2]string{{"admin.address", `{}`}}, "admin.address: must be a socket_address"},
		{"Bootstrap", 0, [][2]string{{"admin.address.socket_address.address", `"fe80::1%eth0"`}}, "admin.address.socket_address.address: is"},
		{"Bootstrap", 0, [][2]string{{ads + "grpc_services", many(2, service)}}, "ads_config.grpc_services: must be one, not 2"},
		{"Bootstrap", 0, [][2]string{{ads + "grpc_services.envoy_grpc.cluster_name", `""`}}, "grpc_services[0].envoy_grpc.cluster_name: must not be empty"},
		{"Bootstrap", 0, [][2]string{{"dynamic_resources.ads_config", `null`}}, "dynamic_resources.ads_config: must be set"},
		{"Bootstrap", 0, [][2]string{{"static_resources.clusters", many(MaxBootstrapResources+1, bare)}}, "static_resources: has more than 10000"},
		{"The control plane's cluster", 0, [][2]string{{boot + "load_assignment.endpoints", `[]`}}, "load_assignment.endpoints: must not be empty"},
		{"The control plane's cluster", 0, [][2]string{{boot + "typed_extension_protocol_options", `null`}}, "must have http2_protocol_options: gRPC is HTTP/2"},
		{"The control plane's cluster", 0, [][2]string{
			{boot + "type", `"STRICT_DNS"`}, {boot + "load_assignment.endpoints.lb_endpoints.endpoint.address.socket_address.address", `"a host"`},
		}, `socket_address.address: is "a host", not the name of a host`},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "load_assignment.endpoints", `[]`}}, "load_assignment.endpoints: must not be empty: type STRICT_DNS has its hosts there, by name"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "load_assignment", `null`}}, "load_assignment.cluster_name: must not be empty"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "type", `"LOGICAL_DNS"`}, {boot + "load_assignment.endpoints.lb_endpoints", "[" + fmt.Sprintf(host, 1) + "," + fmt.Sprintf(host, 2) + "]"}}, "endpoints: must be one host for type LOGICAL_DNS, not 2"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "load_assignment.endpoints.lb_endpoints", "[" + fmt.Sprintf(host, 1) + "," + fmt.Sprintf(host, 1) + "]"}}, "lb_endpoints[1].endpoint.address: 10.0.0.1, port 1, is there twice"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "load_assignment.endpoints.lb_endpoints", "[" + strings.Join(hosts[:MaxNamedHosts+1], ",") + "]"}}, "endpoints: has 1001 hosts, more than 1000"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "load_assignment.endpoints.lb_endpoints.endpoint.address", `{"pipe": {"path": "/a"}}`}}, "endpoint.address.pipe: not supported"},
		{"A cluster's hosts by name", 0, [][2]string{{boot + "type", `"STATIC"`}}, "dns_refresh_rate: not supported"},
		{"Cluster", 7, [][2]string{{"transport_socket", `null`}}, `HttpProtocolOptions"].auto_config: needs a transport_socket`},
		{"Cluster", 7, [][2]string{{"transport_socket.typed_config", `{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": {"alpn_protocols": ["h2"]}}`}}, "alpn_protocols: must not be there with auto_config"},
		{"Listener", 0, [][2]string{{"filter_chains", `[]`}}, "filter_chains: must be one at least"},
		{"Listener", 0, [][2]string{{filters, `[]`}}, "filter_chains[0].filters: must be one, an HTTP connection manager, not 0"},
		{"Listener", 0, [][2]string{{filters + ".typed_config", `null`}}, "filters[0].typed_config: must be an HTTP connection manager"},
		{"Listener", 0, [][2]string{{"address", `{"socket_address": {"address": "::1"}}`}}, "address.socket_address.port_value: must be set"},
		{"Listener", 0, [][2]string{{"name", long}}, "name: is 513 bytes long"},
		{"Listener", 2, [][2]string{{"filter_chains.transport_socket.typed_config", `null`}}, "filter_chains[0].transport_socket.typed_config: must be a DownstreamTlsContext or a RawBuffer"},
		{"DownstreamTlsContext", 0, [][2]string{{downstream + "require_client_certificate", `true`}, {downstream + "common_tls_context.validation_context", `null`}}, "typed_config.require_client_certificate: needs validation_context.trusted_ca"},
		{"DownstreamTlsContext", 0, [][2]string{{downstream + "common_tls_context.tls_certificates", `[]`}}, "common_tls_context.tls_certificates: must not be empty"},
		{"DownstreamTlsContext", 0, [][2]string{{downstream + "common_tls_context.tls_certificates", many(9, anotherPair)}}, "common_tls_context.tls_certificates: are 9, more than 8"},
		{"DownstreamTlsContext", 0, [][2]string{{downstream + "common_tls_context.tls_certificates", `[{}]`}}, "tls_certificates[0].certificate_chain.filename: must name a file"},
		{"DownstreamTlsContext", 0, [][2]string{{downstream + "common_tls_context.tls_certificates.private_key", `{"inline_string": "x"}`}}, "tls_certificates[0].private_key.inline_string: not supported by Fairlead: say the filename of a file that has it"},
		{"Cluster", 5, [][2]string{{"transport_socket.typed_config", `null`}}, "transport_socket.typed_config: must be an UpstreamTlsContext, a ProxyProtocolUpstreamTransport or a RawBuffer"},
		{"UpstreamTlsContext", 0, [][2]string{{upstream + "common_tls_context", `{"validation_context": {"trusted_ca": {"filename": ` + longPath + `}}}`}}, "trusted_ca.filename: is 4097 bytes long, more than 4096"},
		{"CommonTlsContext", 0, [][2]string{{common + "validation_context.trusted_ca", `null`}}, "match_typed_subject_alt_names: need trusted_ca"},
		{"CommonTlsContext", 0, [][2]string{{common + sanMatcher, many(65, `{"san_type": "DNS", "matcher": {"exact": "a"}}`)}}, "match_typed_subject_alt_names: are 65, more than 64"},
		{"CommonTlsContext", 0, [][2]string{{common + sanMatcher, `[{"san_type": "IP_ADDRESS", "matcher": {"exact": "a"}}]`}}, `matcher.exact: is "a", and an IP address must be exact`},
		{"CommonTlsContext", 0, [][2]string{{common + sanMatcher, `[{"san_type": "IP_ADDRESS", "matcher": {"prefix": "10.0.0.1"}}]`}}, `matcher.prefix: is "10.0.0.1", and an IP address must be exact`},
		{"CommonTlsContext", 0, [][2]string{{common + sanMatcher, `[{"san_type": "DNS"}]`}}, "match_typed_subject_alt_names[0].matcher: must have exact, prefix or suffix"},
		{"CommonTlsContext", 0, [][2]string{{common + sanMatcher, `[{"matcher": {"exact": "a"}}]`}}, "match_typed_subject_alt_names[0].san_type: SAN_TYPE_UNSPECIFIED is not supported"},
		{"CommonTlsContext", 0, [][2]string{{common + "alpn_protocols", many(9, `"a"`)}}, "alpn_protocols: are 9, more than 8"},
		{"CommonTlsContext", 0, [][2]string{{common + "alpn_protocols", `["` + strings.Repeat("x", 256) + `"]`}}, "alpn_protocols[0]: is 256 bytes long, not 1 to 255"},
		{"Listener", 3, [][2]string{{"listener_filters", "[" + inspector + "," + header + "]"}}, "listener_filters[1]: the PROXY protocol's header comes before TLS"},
		{"Listener", 3, [][2]string{{"listener_filters", "[" + header + "," + header + "]"}}, "listener_filters[1]: is there twice"},
		{"Listener", 3, [][2]string{{"listener_filters", `[{"name": "x"}]`}}, "listener_filters[0].typed_config: must be the PROXY protocol's filter, the TLS inspector or the HTTP inspector"},
		{"Listener", 3, [][2]string{{"filter_chains", `[{}, {}]`}}, "filter_chains[0].filters: must be one, an HTTP connection manager or a TCP proxy, not 0"},
		{"Listener", 4, [][2]string{{"listener_filters", `[]`}}, "filter_chain_match.transport_protocol: needs a TLS inspector"},
		{"Listener", 4, [][2]string{{"listener_filters", `[]`}}, "filter_chain_match.application_protocols: needs an HTTP or a TLS inspector"},
		{"Listener", 4, [][2]string{{"filter_chains.filter_chain_match.application_protocols", `["h2", "h2"]`}}, "filter_chains[0]: is for connections that another chain is for"},
		{"Listener", 4, [][2]string{{"filter_chains.filter_chain_match.application_protocols", many(9, `"h2"`)}}, "application_protocols: are 9, more than 8"},
		{"Listener", 4, [][2]string{{"default_filter_chain.filters", `[]`}}, "default_filter_chain.filters: must be one"},
		{"Listener", 4, [][2]string{
			{"listener_filters", "[" + header + "," + inspector + "]"}, {"filter_chains.filter_chain_match.application_protocols", `["h2"]`},
			{"default_filter_chain.filters.typed_config", strings.Replace(anotherManager, `"stat_prefix"`, `"use_remote_address": true, "stat_prefix"`, 1)},
		}, "default_filter_chain.filters[0].typed_config.use_remote_address: behind a ProxyProtocol is not supported"},
		{"TcpProxy", 0, [][2]string{{filters + ".typed_config.cluster", `""`}}, "typed_config.cluster: must not be empty"},
		{"ProxyProtocolUpstreamTransport", 0, [][2]string{{"transport_socket.typed_config.config", `null`}}, "typed_config.config: must be set"},
		{"HttpConnectionManager", 0, [][2]string{{"api_listener.api_listener.http_filters", `[]`}}, "http_filters: must be exactly the router filter, not 0 filters"},
		{"HttpConnectionManager", 0, [][2]string{{"api_listener.api_listener.http_filters", many(2, `{"name": "router", "typed_config": `+noManager+`}`)}}, "http_filters[0].typed_config: must be the filter of gRPC-Web"},
		{"HttpConnectionManager", 0, [][2]string{{"api_listener.api_listener.http_filters", many(1, `{"name": "web", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}}`)}}, "http_filters[0].typed_config: must be the router filter"},
		{"HttpConnectionManager", 0, [][2]string{{"api_listener.api_listener.http_filters", many(3, `{"name": "router", "typed_config": `+noManager+`}`)}}, "http_filters: must be exactly the router filter, not 3 filters"},
		{"HttpConnectionManager", 0, [][2]string{{"api_listener.api_listener.http_filters.typed_config", `null`}}, "http_filters[0].typed_config: must be the router filter"},
		{"RouteConfiguration", 0, [][2]string{{vhosts, "[" + vhost + "," + otherVhost + "]"}}, `virtual_hosts[1].name: "v" names two virtual hosts`},
		{"RouteConfiguration", 3, [][2]string{{vhosts + ".routes.route.upgrade_configs", `[]`}}, "route.upgrade_configs: must be [{upgrade_type: CONNECT, connect_config: {}}]"},
		{"RouteConfiguration", 3, [][2]string{{vhosts + ".routes.match", `{"prefix": "/"}`}}, "route.upgrade_configs[0].connect_config: without match.connect_matcher is not supported"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".domains", `[]`}}, "virtual_hosts[0].domains: must not be empty"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".domains", `["a*b"]`}}, `domains[0]: "a*b" may have one * only`},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".domains", `["*a*"]`}}, `domains[0]: "*a*" may have one * only`},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".domains", "[" + long + "]"}}, "domains[0]: is 513 bytes long"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".domains", "[" + notText + "]"}}, "domains[0]: must be UTF-8"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".routes.route", `null`}}, "routes[0]: must have route, direct_response or redirect"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".routes.match", `{"path": ""}`}}, "routes[0].match.path: "},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".routes.match", `{"prefix": "/a\n"}`}}, "routes[0].match.prefix: must be UTF-8"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".routes.route", `{}`}}, "routes[0].route: must have cluster"},
		{"RouteConfiguration", 0, [][2]string{{vhosts + ".routes.match", `{"safe_regex": {"regex": "/a"}}`}}, "route.prefix_rewrite: with match.safe_regex is not supported"},
		{"Cluster", 0, [][2]string{{"eds_cluster_config", `null`}}, "eds_cluster_config.eds_config: must be ads"},
		{"Cluster", 2, [][2]string{{"type", `"EDS"`}}, "load_assignment: beside type EDS is not supported"},
		{"Cluster", 0, [][2]string{{"type", `"STATIC"`}}, "eds_cluster_config: beside type STATIC is not supported"},
		{"Cluster", 2, [][2]string{{"load_assignment", `{"cluster_name": "d"}`}}, `load_assignment.cluster_name: is "d", not the cluster's name`},
		{"Cluster", 2, [][2]string{{balancingPolicy + ".typed_config", `null`}}, "typed_extension_config.typed_config: must be a load balancing policy"},
		{"Cluster", 3, [][2]string{{"lb_policy", `"RANDOM"`}}, "least_request_lb_config: has no effect without lb_policy LEAST_REQUEST"},
		{"Cluster", 4, [][2]string{{"outlier_detection", `null`}}, "breaker: has no outlier_detection to extend"},
		{"OutlierDetection", 0, [][2]string{{"outlier_detection.max_ejection_time", `"0.5s"`}}, "max_ejection_time: is 500ms, less than base_ejection_time, 1s"},
		{"OutlierDetection", 0, [][2]string{{"outlier_detection.failure_percentage_minimum_hosts", `null`}}, "failure_percentage_minimum_hosts: must be 2"},
		{"ClusterLoadAssignment", 0, [][2]string{{"endpoints.lb_endpoints.endpoint", `{}`}}, "lb_endpoints[0].endpoint.address: must be a socket_address"},
		{"ClusterLoadAssignment", 0, [][2]string{{"endpoints.lb_endpoints.endpoint.address.socket_address.address", `"224.0.0.1"`}}, "not the IP address of a host"},
		{"ClusterLoadAssignment", 0, [][2]string{{"endpoints.lb_endpoints.endpoint.address.socket_address.address", `"fe80::1%eth0"`}}, "not the IP address of a host"},
		{"ClusterLoadAssignment", 0, [][2]string{{"endpoints.locality.zone", long}}, "endpoints[0].locality.zone: is 513 bytes long"},
		{"ClusterLoadAssignment", 0, [][2]string{{endpointExtension + ".instance", long}}, ".instance: is 513 bytes long"},
		{"ClusterLoadAssignment", 0, [][2]string{{"endpoints.lb_endpoints", "[" + strings.Join(hosts, ",") + "]"}}, "endpoints: has 20001 endpoints, more than 20000"},
	} {
		document := []byte(all[one.section].bases[one.base])
		for _, c := range one.changes {
			changed := change(t, string(document), c[0], c[1])
			if changed == nil {
				t.Fatalf("%s has no %s", one.section, c[0])
			}
			document = changed
		}
		_, err := all[one.section].decode(document)
		var refused *Error
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%.300v\nwant %s", err, one.want)
		}
	}
}

func TestTheFirstPolicyOfTheListCounts(t *testing.T) {
	const one = `{"typed_extension_config": {"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.%s"}}}`
	decode := resources(&clusterv3.Cluster{}, DecodeCluster)
	for first, want := range map[string]mesh.LBPolicy{
		"random.v3.Random":              mesh.LBRandom,
		"round_robin.v3.RoundRobin":     mesh.LBRoundRobin,
		"least_request.v3.LeastRequest": mesh.LBLeastRequest,
	} {
		list := "[" + fmt.Sprintf(one, first) + "," + fmt.Sprintf(one, "random.v3.Random") + "]"
		got, err := decode(change(t, staticCluster, "load_balancing_policy.policies", list))
		if c, ok := got.(mesh.Cluster); !ok || err != nil || c.LB != want {
			t.Errorf("%s: %+v, %v", first, got, err)
		}
	}
}

// with is what all of them have.
func with(all ...map[string]values) map[string]values {
	for _, one := range all[1:] {
		maps.Copy(all[0], one)
	}
	return all[0]
}

// ofConnections are the rows of common_http_protocol_options.
func ofConnections(at string) map[string]values {
	return map[string]values{
		at + ".idle_timeout":                         {other: `"1s"`, bad: `"0s"`},
		at + ".max_connection_duration":              {other: `"1s"`, bad: `"86401s"`},
		at + ".max_connection_duration_jitter.value": {other: `100`, bad: `100.5`},
		at + ".max_requests_per_connection":          {other: `1`, bad: `0`},
	}
}

// matching is a route with conditions.
func matching(conditions string) string {
	return `{name: r, virtual_hosts: [{name: v, domains: [a], routes: [{match: {prefix: /, ` + conditions + `}, route: {cluster: c}}]}]}`
}

// long is a string in JSON of so many bytes.
func long(n int) string { return `"` + strings.Repeat("x", n) + `"` }

// ofHTTP1 are the rows of http_protocol_options.
func ofHTTP1(at string) map[string]values {
	return map[string]values{
		at + ".enable_trailers":                                   {other: `false`},
		at + ".header_key_format.stateful_formatter.name":         {other: `"x"`},
		at + ".header_key_format.stateful_formatter.typed_config": {bad: noManager},
	}
}

// ofHTTP2 are those of http2_protocol_options, where there may be fewer streams than streams.
func ofHTTP2(at, streams string) map[string]values {
	return map[string]values{
		at + ".max_concurrent_streams":                     {other: `1`, bad: streams},
		at + ".initial_stream_window_size":                 {other: `65536`, bad: `65534`},
		at + ".initial_connection_window_size":             {other: `65536`, bad: `65534`},
		at + ".allow_connect":                              {other: `false`},
		at + ".connection_keepalive.interval":              {other: `"0.001s"`, bad: `"0s"`},
		at + ".connection_keepalive.timeout":               {other: `"0.001s"`, bad: `null`},
		at + ".connection_keepalive.interval_jitter.value": {other: `100`, bad: `-1`},
	}
}
