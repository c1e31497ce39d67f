package codec

import "maps"

// The allow-list. What each field does is in docs/xds-subset.md; a test holds the
// two together.

func listenerSubset() subset {
	manager := subset{"@envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": managerSubset()}
	return subset{
		"name":                 nil,
		"address":              addressSubset(),
		"api_listener":         {"api_listener": manager},
		"filter_chains":        chainSubset(subset{"server_names": nil, "transport_protocol": nil, "application_protocols": nil}),
		"default_filter_chain": chainSubset(nil),
		"listener_filters": {
			"name": nil,
			"typed_config": {
				"@envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": {},
				"@envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":   {},
				"@envoy.extensions.filters.listener.http_inspector.v3.HttpInspector": {},
			},
		},
		"listener_filters_timeout":             nil,
		"continue_on_listener_filters_timeout": nil,
		"traffic_direction":                    nil,
		"per_connection_buffer_limit_bytes":    nil,
		"enable_reuse_port":                    nil,
		"stat_prefix":                          nil,
	}
}

// chainSubset is of a chain; the default one has nothing to match.
func chainSubset(match subset) subset {
	s := subset{
		"name":             nil,
		"filters":          {"name": nil, "typed_config": filterSubset()},
		"transport_socket": {"name": nil, "typed_config": {"@" + downstreamTLSType: downstreamSubset(), "@" + rawType: {}}},
	}
	if match != nil {
		s["filter_chain_match"] = match
	}
	return s
}

// The types of the two sides' TLS, and of none.
const (
	rawType           = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
	downstreamTLSType = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
	upstreamTLSType   = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
)

func downstreamSubset() subset {
	return subset{"common_tls_context": commonSubset(), "require_client_certificate": nil}
}

func upstreamSubset() subset {
	return subset{"common_tls_context": commonSubset(), "sni": nil}
}

func commonSubset() subset {
	file := subset{"filename": nil}
	return subset{
		"tls_params":       {"tls_minimum_protocol_version": nil, "tls_maximum_protocol_version": nil},
		"tls_certificates": {"certificate_chain": file, "private_key": file},
		"validation_context": {
			"trusted_ca": file,
			"match_typed_subject_alt_names": {
				"san_type": nil,
				"matcher":  {"exact": nil, "prefix": nil, "suffix": nil},
			},
		},
		"alpn_protocols": nil,
	}
}

// filterSubset is of the one filter that a chain has.
func filterSubset() subset {
	return subset{
		"@envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": managerSubset(),
		"@envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy":                            tcpProxySubset(),
	}
}

func tcpProxySubset() subset {
	return subset{"stat_prefix": nil, "cluster": nil, "idle_timeout": nil, "max_connect_attempts": nil, "access_log": accessLogSubset()}
}

// accessLogSubset is of a log on standard output, where there is one anyway.
func accessLogSubset() subset {
	return subset{"name": nil, "typed_config": {
		"@envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": {},
		"@envoy.extensions.access_loggers.file.v3.FileAccessLog":     {"path": nil},
	}}
}

func managerSubset() subset {
	return subset{
		"stat_prefix":  nil,
		"codec_type":   nil,
		"route_config": routeSubset(),
		"rds":          {"route_config_name": nil, "config_source": adsSubset()},
		"http_filters": {
			"name": nil,
			"typed_config": {
				"@envoy.extensions.filters.http.grpc_web.v3.GrpcWeb": {},
				"@envoy.extensions.filters.http.router.v3.Router":    {"suppress_envoy_headers": nil},
			},
		},
		"access_log":                   accessLogSubset(),
		"upgrade_configs":              {"upgrade_type": nil},
		"common_http_protocol_options": listenersSubsetHTTP(),
		"max_request_headers_kb":       nil,
		"http_protocol_options":        http1Subset(subset{"accept_http_10": nil, "allow_absolute_url": nil}),
		"http2_protocol_options":       http2Subset(),
		"server_header_transformation": nil,
		"generate_request_id":          nil,
		"preserve_external_request_id": nil,
		"use_remote_address":           nil,
		"skip_xff_append":              nil,
		"xff_num_trusted_hops":         nil,
		"internal_address_config":      nil,
		"normalize_path":               nil,
		"add_user_agent":               nil,
		"request_timeout":              nil,
		"request_headers_timeout":      nil,
		"delayed_close_timeout":        nil,

		"path_with_escaped_slashes_action": nil,
	}
}

// commonSubsetHTTP is of connections, whatever version of HTTP they speak.
func commonSubsetHTTP() subset {
	return subset{
		"idle_timeout":                   nil,
		"max_connection_duration":        nil,
		"max_connection_duration_jitter": {"value": nil},
		"max_requests_per_connection":    nil,
	}
}

// listenersSubsetHTTP is of connections of clients.
func listenersSubsetHTTP() subset {
	s := commonSubsetHTTP()
	s["max_headers_count"] = nil
	return s
}

// http1Subset is what may be said of HTTP/1.1 to either side, and more.
func http1Subset(more subset) subset {
	s := subset{"enable_trailers": nil, "header_key_format": {"stateful_formatter": {
		"name":         nil,
		"typed_config": {"@envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": {}},
	}}}
	maps.Copy(s, more)
	return s
}

func http2Subset() subset {
	return subset{
		"max_concurrent_streams":         nil,
		"initial_stream_window_size":     nil,
		"initial_connection_window_size": nil,
		"allow_connect":                  nil,
		"connection_keepalive":           {"interval": nil, "timeout": nil, "interval_jitter": {"value": nil}},
	}
}

func routeSubset() subset {
	return withFields(subset{
		"name": nil,
		"virtual_hosts": withFields(subset{
			"name":    nil,
			"domains": nil,
			"routes": withFields(subset{
				"name":        nil,
				"stat_prefix": nil,
				"match": {
					"prefix": nil, "path": nil, "safe_regex": regexSubset(), "connect_matcher": {}, "case_sensitive": nil,
					"headers": headerSubset(), "query_parameters": parameterSubset(), "grpc": {},
				},
				"route": {
					"cluster":              nil,
					"timeout":              nil,
					"host_rewrite_literal": nil,
					"prefix_rewrite":       nil,
					"max_stream_duration":  {"grpc_timeout_header_max": nil},
					"upgrade_configs":      {"upgrade_type": nil, "enabled": nil, "connect_config": {}},
				},
				"direct_response": {"status": nil, "body": {"inline_string": nil}},
				"redirect": {
					"https_redirect":  nil,
					"scheme_redirect": nil,
					"host_redirect":   nil,
					"port_redirect":   nil,
					"path_redirect":   nil,
					"prefix_rewrite":  nil,
					"response_code":   nil,
					"strip_query":     nil,
				},
			}),
		}),
	})
}

func headerSubset() subset {
	return subset{
		"name":                          nil,
		"invert_match":                  nil,
		"treat_missing_header_as_empty": nil,
		"present_match":                 nil,
		"exact_match":                   nil,
		"prefix_match":                  nil,
		"suffix_match":                  nil,
		"contains_match":                nil,
		"safe_regex_match":              regexSubset(),
		"range_match":                   {"start": nil, "end": nil},
		"string_match":                  stringSubset(),
	}
}

func parameterSubset() subset {
	return subset{"name": nil, "present_match": nil, "string_match": stringSubset()}
}

func stringSubset() subset {
	return subset{"exact": nil, "prefix": nil, "suffix": nil, "contains": nil, "safe_regex": regexSubset(), "ignore_case": nil}
}

func regexSubset() subset { return subset{"google_re2": {}, "regex": nil} }

// addedSubset is of a field that is added to a head.
func addedSubset() subset {
	return subset{
		"header":           {"key": nil, "value": nil},
		"append":           nil,
		"append_action":    nil,
		"keep_empty_value": nil,
	}
}

// withFields has what may be changed of heads, too.
func withFields(s subset) subset {
	for _, of := range []string{"request", "response"} {
		s[of+"_headers_to_add"] = addedSubset()
		s[of+"_headers_to_remove"] = nil
	}
	return s
}

func clusterSubset() subset {
	return subset{
		"name":                              nil,
		"alt_stat_name":                     nil,
		"wait_for_warm_on_init":             nil,
		"type":                              nil,
		"eds_cluster_config":                {"eds_config": adsSubset(), "service_name": nil},
		"load_assignment":                   endpointsSubset(),
		"connect_timeout":                   nil,
		"per_connection_buffer_limit_bytes": nil,
		"upstream_connection_options":       {"tcp_keepalive": {"keepalive_probes": nil, "keepalive_time": nil, "keepalive_interval": nil}},
		"lb_policy":                         nil,
		"least_request_lb_config":           {"choice_count": nil},
		"round_robin_lb_config":             {},
		"common_lb_config":                  {"healthy_panic_threshold": {"value": nil}},
		"load_balancing_policy": {"policies": {"typed_extension_config": {
			"name": nil,
			"typed_config": {
				"@envoy.extensions.load_balancing_policies.random.v3.Random":              {},
				"@envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin":     {},
				"@envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest": {"choice_count": nil},
			},
		}}},
		"circuit_breakers": {"thresholds": {
			"priority":             nil,
			"max_retries":          nil,
			"track_remaining":      nil,
			"max_connections":      nil,
			"max_pending_requests": nil,
			"max_requests":         nil,
		}},
		"outlier_detection": outlierSubset(),
		"transport_socket": {"name": nil, "typed_config": {
			"@" + upstreamTLSType: upstreamSubset(),
			"@" + rawType:         {},
			"@envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": senderSubset(),
		}},
		"typed_extension_protocol_options": protocolSubset(http1Subset(nil), http2Subset(), subset{
			"http_protocol_options":  http1Subset(nil),
			"http2_protocol_options": http2Subset(),
		}),
		"metadata": {"typed_filter_metadata": {
			clusterMetadata: {"@mesh.v1.ClusterExtension": {
				"breaker": {
					"disabled":           nil,
					"failure_percent":    nil,
					"minimum_requests":   nil,
					"window":             nil,
					"max_open_time":      nil,
					"half_open_requests": nil,
				},
				"weighted_round_robin": nil,
			}},
		}},
	}
}

// dnsSubset is what a cluster of a bootstrap file may say of its hosts if they have names.
func dnsSubset() subset {
	return subset{
		"type": nil,
		"cluster_type": {"name": nil, "typed_config": {"@envoy.extensions.clusters.dns.v3.DnsCluster": {
			"dns_refresh_rate":                 nil,
			"dns_lookup_family":                nil,
			"all_addresses_in_single_endpoint": nil,
		}}},
		"dns_refresh_rate":  nil,
		"dns_lookup_family": nil,
		"load_assignment": {
			"cluster_name": nil,
			"endpoints": {
				"locality":              {"region": nil, "zone": nil, "sub_zone": nil},
				"load_balancing_weight": nil,
				"lb_endpoints": {
					"endpoint":              {"address": addressSubset(), "hostname": nil},
					"health_status":         nil,
					"load_balancing_weight": nil,
				},
			},
		},
	}
}

// senderSubset is of the PROXY protocol in front of what goes to hosts.
func senderSubset() subset {
	return subset{
		"config": {"version": nil},
		"transport_socket": {
			"name":         nil,
			"typed_config": {"@" + rawType: {}},
		},
	}
}

func outlierSubset() subset {
	return subset{
		"consecutive_5xx":                       nil,
		"enforcing_consecutive_5xx":             nil,
		"enforcing_consecutive_gateway_failure": nil,
		"enforcing_success_rate":                nil,
		"enforcing_failure_percentage":          nil,
		"failure_percentage_threshold":          nil,
		"failure_percentage_request_volume":     nil,
		"failure_percentage_minimum_hosts":      nil,
		"interval":                              nil,
		"base_ejection_time":                    nil,
		"max_ejection_time":                     nil,
		"max_ejection_time_jitter":              nil,
		"max_ejection_percent":                  nil,
		"always_eject_one_host":                 nil,
	}
}

func endpointsSubset() subset {
	return subset{
		"cluster_name": nil,
		"endpoints": {
			"locality":              {"region": nil, "zone": nil, "sub_zone": nil},
			"load_balancing_weight": nil,
			"lb_endpoints": {
				"endpoint":              {"address": addressSubset(), "hostname": nil},
				"health_status":         nil,
				"load_balancing_weight": nil,
				"metadata": {"typed_filter_metadata": {
					endpointMetadata: {"@mesh.v1.EndpointExtension": {"instance": nil, "sidecar": nil, "takes_knocks": nil}},
				}},
			},
		},
	}
}

func bootstrapSubset() subset {
	return subset{
		"node": {
			"id":       nil,
			"cluster":  nil,
			"metadata": nil,
			"locality": {"region": nil, "zone": nil, "sub_zone": nil},
		},
		"admin":                {"address": addressSubset(), "access_log_path": nil},
		"stats_config":         {"use_all_default_tags": nil},
		"stats_flush_interval": nil,
		// Clusters are walked one by one: what is allowed depends on what they are for.
		"static_resources": {"listeners": listenerSubset(), "clusters": nil},
		"dynamic_resources": {
			"ads_config": {
				"api_type":                       nil,
				"transport_api_version":          nil,
				"set_node_on_first_message_only": nil,
				"grpc_services":                  {"envoy_grpc": {"cluster_name": nil}},
			},
			"lds_config": adsSubset(),
			"cds_config": adsSubset(),
		},
	}
}

// controlPlaneSubset is of the cluster that dynamic_resources name: addresses to
// connect to, nothing to balance requests over.
func controlPlaneSubset() subset {
	return subset{
		"name":            nil,
		"type":            nil,
		"connect_timeout": nil,
		"load_assignment": {
			"cluster_name": nil,
			"endpoints":    {"lb_endpoints": {"endpoint": {"address": addressSubset()}}},
		},
		"typed_extension_protocol_options": protocolSubset(subset{}, subset{}, nil),
	}
}

// protocolSubset is of what hosts speak, with what may be said of HTTP/1.1 and HTTP/2; auto is nil
// where they cannot be asked.
func protocolSubset(http1, http2, auto subset) subset {
	options := subset{"explicit_http_config": {"http_protocol_options": http1, "http2_protocol_options": http2}}
	if auto != nil {
		options["auto_config"] = auto
		options["common_http_protocol_options"] = commonSubsetHTTP()
	}
	return subset{httpOptionsKey: {"@" + httpOptionsKey: options}}
}

// adsSubset is a config_source: all resources come over the one ADS stream.
func adsSubset() subset { return subset{"ads": {}, "resource_api_version": nil} }

func addressSubset() subset {
	return subset{"socket_address": {"address": nil, "port_value": nil}}
}
