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
	switch name {
	case "envoy.config.core.v3.DataSource.inline_string", "envoy.config.core.v3.DataSource.inline_bytes", "envoy.config.core.v3.DataSource.environment_variable":
		return ": say the filename of a file that has it"
	case "envoy.config.cluster.v3.Cluster.http2_protocol_options", "envoy.config.cluster.v3.Cluster.http_protocol_options",
		"envoy.config.cluster.v3.Cluster.common_http_protocol_options", "envoy.config.cluster.v3.Cluster.protocol_selection":
		return ", and deprecated: say it in typed_extension_protocol_options, as explicit_http_config or auto_config"
	case "envoy.config.listener.v3.FilterChain.use_proxy_proto":
		return ", and deprecated: have a ProxyProtocol in listener_filters"
	case "envoy.config.route.v3.RouteMatch.grpc":
		return ": say the service as a prefix, /package.Service/"
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
