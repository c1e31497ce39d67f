package codec

import (
	"cmp"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// subset says what is allowed below a message:
//
//   - of an ordinary message, its fields by name;
//   - of an Any, "@" and the full name of each message it may hold;
//   - of a map, its keys.
//
// A nil subset allows a scalar or a whole message. An empty one allows a message
// that says something by being there, and nothing inside of it.
type subset map[string]subset

// walk notes every populated field that is not allowed.
func (f *faults) walk(path string, m protoreflect.Message, allowed subset) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		tag, _, _ := protowire.ConsumeTag(unknown)
		f.add(path+"<"+strconv.Itoa(int(tag))+">", "field is not known, so "+notSupported)
	}
	if allowed == nil {
		return
	}
	if m.Descriptor().FullName() == anyName {
		f.walkAny(path, m, allowed)
		return
	}
	for _, fd := range populated(m) {
		below, ok := allowed[string(fd.Name())]
		at := field(path, string(fd.Name()))
		if !ok {
			f.add(at, "%s%s", notSupported, instead(fd.FullName()))
			continue
		}
		f.walkField(at, fd, m.Get(fd), below)
	}
}

// instead says what to do about some fields that others' files often have.
func instead(name protoreflect.FullName) string {
	const (
		manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager."
		action  = "envoy.config.route.v3.RouteAction."
	)
	switch name {
	case "envoy.config.core.v3.DataSource.inline_string", "envoy.config.core.v3.DataSource.inline_bytes", "envoy.config.core.v3.DataSource.environment_variable":
		return ": say the filename of a file that has it"
	case "envoy.config.cluster.v3.Cluster.http2_protocol_options", "envoy.config.cluster.v3.Cluster.http_protocol_options",
		"envoy.config.cluster.v3.Cluster.common_http_protocol_options", "envoy.config.cluster.v3.Cluster.protocol_selection":
		return ", and deprecated: say it in typed_extension_protocol_options, as explicit_http_config or auto_config"
	case "envoy.config.listener.v3.FilterChain.use_proxy_proto":
		return ", and deprecated: have a ProxyProtocol in listener_filters"
	case "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.match_subject_alt_names":
		return ", and deprecated: say match_typed_subject_alt_names"
	case "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.tls_certificate_sds_secret_configs":
		return ": say filenames in tls_certificates; they are read again when they change"
	case "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.validation_context_sds_secret_config", "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.combined_validation_context":
		return ": say a filename in validation_context; it is read again when it changes"
	case "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.upstream_http_protocol_options":
		return ": say sni in the UpstreamTlsContext"
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.stream_idle_timeout":
		return ": a route's timeout bounds requests, --tunnel-idle-timeout what they are upgraded to"
	case manager + "server_name":
		return ": Server is passed on as the application says it"
	case manager + "always_set_request_id_in_response":
		return ": no request ids are made; traceparent says which trace a request belongs to"
	case manager + "merge_slashes":
		return ": paths are passed on as they are"
	case manager + "strip_matching_host_port", manager + "strip_any_host_port", manager + "strip_port_mode":
		return ": have the name with any port among the domains, too, as name:*"
	case manager + "drain_timeout":
		return ": --drain-timeout says how long requests may take to finish"
	case manager + "local_reply_config":
		return ": answers of the proxy's own are as docs/reasons.md says"
	case manager + "via", manager + "append_x_forwarded_port":
		return ": no such field is made"
	case "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.proper_case_words":
		return ": leave it out; over HTTP/1 the names of fields keep the spelling that they come with, as of preserve_case"
	case "envoy.config.core.v3.HttpProtocolOptions.max_stream_duration":
		return ": a route's timeout bounds requests"
	case action + "retry_policy", "envoy.config.route.v3.VirtualHost.retry_policy":
		return ": a request that no host has begun with, or that may be repeated, is tried once more of itself"
	case action + "weighted_clusters", action + "cluster_header":
		return ": say one cluster; of one, load_balancing_weight shares requests among hosts"
	case action + "auto_host_rewrite", action + "host_rewrite_header", action + "host_rewrite_path_regex":
		return ": say the host as host_rewrite_literal"
	case action + "regex_rewrite", action + "path_rewrite_policy":
		return ": say what takes the place of the beginning as prefix_rewrite"
	case action + "priority":
		return ": leave it out; all requests have the DEFAULT one"
	case "envoy.config.route.v3.RedirectAction.regex_rewrite":
		return ": say path_redirect, or prefix_rewrite"
	case action + "idle_timeout":
		return ": timeout bounds requests, --tunnel-idle-timeout what they are upgraded to"
	case action + "cors", "envoy.config.route.v3.VirtualHost.cors":
		return ": the application answers requests of other origins"
	case "envoy.extensions.clusters.dns.v3.DnsCluster.respect_dns_ttl", "envoy.extensions.clusters.dns.v3.DnsCluster.dns_failure_refresh_rate", "envoy.extensions.clusters.dns.v3.DnsCluster.dns_jitter",
		"envoy.config.cluster.v3.Cluster.respect_dns_ttl", "envoy.config.cluster.v3.Cluster.dns_failure_refresh_rate", "envoy.config.cluster.v3.Cluster.dns_jitter":
		return ": names are looked up every dns_refresh_rate"
	case "envoy.config.cluster.v3.Cluster.max_requests_per_connection":
		return ", and deprecated: say it in typed_extension_protocol_options, in common_http_protocol_options"
	case "envoy.config.cluster.v3.Cluster.health_checks":
		return ": outlier_detection keeps requests away from hosts that fail"
	case "envoy.config.core.v3.SocketAddress.ipv4_compat":
		return ": have a second listener, on 0.0.0.0"
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.tracing":
		return ": spans are sent where --otlp-endpoint says"
	case "envoy.extensions.access_loggers.file.v3.FileAccessLog.log_format", "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog.log_format":
		return ": --access-log says it, text or json"
	}
	return ""
}

func (f *faults) walkField(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value, allowed subset) {
	switch {
	case fd.IsMap():
		f.walkMap(path, fd, v.Map(), allowed)
	case fd.Message() == nil:
	case fd.IsList():
		for i := range v.List().Len() {
			f.walk(item(path, i), v.List().Get(i).Message(), allowed)
		}
	default:
		f.walk(path, v.Message(), allowed)
	}
}

// walkMap looks at a map with string keys, which all maps of the subset have.
func (f *faults) walkMap(path string, fd protoreflect.FieldDescriptor, m protoreflect.Map, allowed subset) {
	if allowed == nil {
		return
	}
	var keys []string
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	slices.Sort(keys)
	for _, key := range keys {
		below, ok := allowed[key]
		if !ok {
			f.add(entry(path, key), notSupported)
			continue
		}
		if fd.MapValue().Message() != nil {
			f.walk(entry(path, key), m.Get(protoreflect.ValueOfString(key).MapKey()).Message(), below)
		}
	}
}

func (f *faults) walkAny(path string, m protoreflect.Message, allowed subset) {
	a, ok := m.Interface().(*anypb.Any)
	if !ok {
		f.add(path, "not a google.protobuf.Any")
		return
	}
	below, ok := allowed["@"+string(a.MessageName())]
	if !ok || a.GetTypeUrl() != typePrefix+string(a.MessageName()) {
		f.add(path, "type %q is %s", clip(a.GetTypeUrl()), notSupported)
		return
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(a.MessageName())
	if err != nil {
		f.add(path, "type %q is %s", clip(a.GetTypeUrl()), notSupported)
		return
	}
	inside := t.New()
	if err := unmarshal(a.GetValue(), inside.Interface()); err != nil {
		f.add(path, "not a %s: %v", a.MessageName(), err)
		return
	}
	f.walk(path, inside, below)
}

const anyName = "google.protobuf.Any"

// populated returns the fields that are set, by number.
func populated(m protoreflect.Message) []protoreflect.FieldDescriptor {
	var fields []protoreflect.FieldDescriptor
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		fields = append(fields, fd)
		return true
	})
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int {
		return cmp.Compare(a.Number(), b.Number())
	})
	return fields
}
