package codec

import (
	"fmt"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	fileloggerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamloggerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	casev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Envoy's names of its extensions. Only the types count when reading.
const (
	managerName = "envoy.filters.network.http_connection_manager"
	routerName  = "envoy.filters.http.router"
)

// CanonicalListener returns l as it comes back from the wire: an empty StatPrefix,
// which Envoy would refuse, is the listener's name.
func CanonicalListener(l mesh.Listener) mesh.Listener {
	if l.StatPrefix == "" {
		l.StatPrefix = l.Name
	}
	l.Address = unmapped(l.Address)
	l = canonicalTCP(l)
	if len(l.Chains) > 0 {
		l = canonicalChains(l)
	}
	return l
}

// EncodeListener encodes a listener: as an ApiListener if it has no address, which
// is what grpc-go asks for (gRFC A27), else with one filter chain, or with those that relay
// connections. A destination of connections has both: what requests to it meet with, and the
// chains, of which clients that know of requests only take no notice. It fails if
// DecodeListener would refuse what came out, with the same faults.
func EncodeListener(l mesh.Listener) (Encoded, error) {
	var f faults
	m := listenerProto(&f, CanonicalListener(l))
	listenerValue(&f, "", m)
	if err := f.err(); err != nil {
		return Encoded{}, fmt.Errorf("encode listener %q: %w", clip(l.Name), err)
	}
	e, err := seal(TypeListener, l.Name, m)
	e.ByName = !l.Address.IsValid()
	return e, err
}

// DecodeListener decodes and validates a listener. Its error is an [*Error].
func DecodeListener(a *anypb.Any) (mesh.Listener, error) {
	var f faults
	m := &listenerv3.Listener{}
	if !open(&f, a, TypeListener, m, listenerSubset()) {
		return mesh.Listener{}, f.err()
	}
	l := listenerValue(&f, "", m)
	if err := f.err(); err != nil {
		return mesh.Listener{}, err
	}
	return l, nil
}

// listenerProto notes what the message could not express.
func listenerProto(f *faults, l mesh.Listener) *listenerv3.Listener {
	m := &listenerv3.Listener{Name: l.Name}
	prefaceProto(m, l.Preface)
	if len(l.Chains) > 0 {
		if l.Route != nil || l.RouteName != "" || l.TLS != nil || len(l.TCP) > 0 {
			f.add("filter_chains", "has both chains and what is one chain")
		}
		m.Address = addressProto(l.Address)
		chainsProto(f, m, l)
		return m
	}
	for _, c := range l.TCP {
		m.FilterChains = append(m.FilterChains, chainProto(c))
	}
	if len(l.TCP) > 0 && l.Address.IsValid() {
		if l.Route != nil || l.RouteName != "" {
			f.add("filter_chains", "has both routes of requests and chains for connections")
		}
		if l.TLS != nil {
			f.add("filter_chains", "has TLS of all its chains, which only those of Chains have")
		}
		m.Address = addressProto(l.Address)
		return m
	}
	if !l.Address.Addr().IsValid() {
		if l.Address.Port() != 0 {
			f.add("address", "has a port without an IP address")
		}
		manager := pack(managerProto(f, "api_listener.api_listener", l))
		m.ApiListener = &listenerv3.ApiListener{ApiListener: manager}
		if l.TLS != nil {
			f.add("api_listener", "has TLS, and no connections to have it on")
		}
		return m
	}
	m.Address = addressProto(l.Address)
	m.FilterChains = []*listenerv3.FilterChain{{
		Filters:         managerFilter(f, "filter_chains[0].filters[0].typed_config", l),
		TransportSocket: downstreamProto(f, l.TLS),
	}}
	return m
}

func managerFilter(f *faults, path string, l mesh.Listener) []*listenerv3.Filter {
	return []*listenerv3.Filter{{
		Name:       managerName,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(managerProto(f, path, l))},
	}}
}

func managerProto(f *faults, path string, l mesh.Listener) *managerv3.HttpConnectionManager {
	m := &managerv3.HttpConnectionManager{
		StatPrefix: l.StatPrefix,
		HttpFilters: []*managerv3.HttpFilter{{
			Name:       routerName,
			ConfigType: &managerv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{})},
		}},
	}
	optionsProto(m, l.HTTP)
	if l.Route == nil {
		m.RouteSpecifier = &managerv3.HttpConnectionManager_Rds{Rds: &managerv3.Rds{
			RouteConfigName: l.RouteName,
			ConfigSource:    adsProto(),
		}}
		return m
	}
	if l.RouteName != "" {
		f.add(path, "has both routes and the name of routes")
	}
	m.RouteSpecifier = &managerv3.HttpConnectionManager_RouteConfig{
		RouteConfig: routeProto(f, field(path, "route_config"), *l.Route),
	}
	return m
}

func listenerValue(f *faults, path string, m *listenerv3.Listener) mesh.Listener {
	l := mesh.Listener{Name: m.GetName()}
	checkName(f, field(path, "name"), m.GetName())
	if m.GetApiListener() != nil {
		if m.GetAddress() != nil || m.GetDefaultFilterChain() != nil || len(m.GetListenerFilters()) > 0 {
			f.add(field(path, "api_listener"), "beside address, listener_filters or default_filter_chain is %s", notSupported)
		}
		readManager(f, field(path, "api_listener.api_listener"), m.GetApiListener().GetApiListener(), &l)
		if len(m.GetFilterChains()) > 0 {
			if !relays(m) {
				f.add(field(path, "filter_chains"), "beside api_listener must relay connections with a TCP proxy, as they are")
			}
			l.TCP = relayChainsValue(f, field(path, "filter_chains"), m.GetFilterChains(), false)
		}
		return l
	}
	l.Address = listenAddress(f, field(path, "address"), m.GetAddress())
	chains := field(path, "filter_chains")
	l.Preface = prefaceValue(f, path, m)
	switch {
	case relays(m):
		l.TCP = relayChainsValue(f, chains, m.GetFilterChains(), l.Preface.TLS)
		return l
	case isTold(m):
		l.Chains = chainsValue(f, path, m, l.Preface)
		return l
	case len(m.GetFilterChains()) != 1:
		f.add(chains, "must be one at least")
		return l
	}
	checkText(f, field(item(chains, 0), "name"), m.GetFilterChains()[0].GetName())
	l.TLS = downstreamValue(f, field(item(chains, 0), "transport_socket"), m.GetFilterChains()[0].GetTransportSocket())
	filters := field(item(chains, 0), "filters")
	if n := len(m.GetFilterChains()[0].GetFilters()); n != 1 {
		f.add(filters, "must be one, an HTTP connection manager, not %d", n)
		return l
	}
	filter := m.GetFilterChains()[0].GetFilters()[0]
	checkName(f, field(item(filters, 0), "name"), filter.GetName())
	readManager(f, field(item(filters, 0), "typed_config"), filter.GetTypedConfig(), &l)
	return l
}

// isTold reports whether a listener tells its connections apart, or relays what was TLS.
func isTold(m *listenerv3.Listener) bool {
	if len(m.GetFilterChains()) != 1 || m.GetDefaultFilterChain() != nil {
		return len(m.GetFilterChains()) > 0 || m.GetDefaultFilterChain() != nil
	}
	match := m.GetFilterChains()[0].GetFilterChainMatch()
	return isRelay(m.GetFilterChains()[0]) || len(match.GetServerNames()) > 0 || match.GetTransportProtocol() != "" || len(match.GetApplicationProtocols()) > 0
}

func readManager(f *faults, path string, a *anypb.Any, l *mesh.Listener) {
	m := &managerv3.HttpConnectionManager{}
	if !unpack(a, m) {
		f.add(path, "must be an HTTP connection manager")
		return
	}
	checkName(f, field(path, "stat_prefix"), m.GetStatPrefix())
	l.StatPrefix = m.GetStatPrefix()
	l.HTTP = optionsValue(f, path, m)
	switch by := m.GetRouteSpecifier().(type) {
	case *managerv3.HttpConnectionManager_RouteConfig:
		route := routeValue(f, field(path, "route_config"), by.RouteConfig)
		l.Route = &route
	case *managerv3.HttpConnectionManager_Rds:
		checkADS(f, field(path, "rds.config_source"), by.Rds.GetConfigSource())
		checkName(f, field(path, "rds.route_config_name"), by.Rds.GetRouteConfigName())
		l.RouteName = by.Rds.GetRouteConfigName()
	default:
		f.add(path, "must have route_config or rds")
	}
	checkRouter(f, field(path, "http_filters"), m.GetHttpFilters())
	checkUpgrades(f, field(path, "upgrade_configs"), m.GetUpgradeConfigs())
	checkAccessLog(f, field(path, "access_log"), m.GetAccessLog())
	checkFixed(f, path, m)
}

// checkFixed wants what is done to no request: its fields pass as they are.
func checkFixed(f *faults, path string, m *managerv3.HttpConnectionManager) {
	if how := m.GetServerHeaderTransformation(); how != managerv3.HttpConnectionManager_OVERWRITE && how != managerv3.HttpConnectionManager_PASS_THROUGH {
		f.add(field(path, "server_header_transformation"), "%s is %s: Server passes as it is, which is PASS_THROUGH", how, notSupported)
	}
	untouched := func(name string, said *wrapperspb.BoolValue) {
		if said.GetValue() {
			f.add(field(path, name), "true is %s: requests pass as they are", notSupported)
		}
	}
	untouched("generate_request_id", m.GetGenerateRequestId())
	untouched("normalize_path", m.GetNormalizePath())
	untouched("add_user_agent", m.GetAddUserAgent())
	if how := m.GetPathWithEscapedSlashesAction(); how != managerv3.HttpConnectionManager_KEEP_UNCHANGED && how != managerv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT {
		f.add(field(path, "path_with_escaped_slashes_action"), "%s is %s: paths pass as they are, which is KEEP_UNCHANGED", how, notSupported)
	}
	if absolute := m.GetHttpProtocolOptions().GetAllowAbsoluteUrl(); absolute != nil && !absolute.GetValue() {
		f.add(field(path, "http_protocol_options.allow_absolute_url"), "must be true: requests that name the whole URL are taken (RFC 9112 §3.2.2)")
	}
	number(f, field(path, "max_request_headers_kb"), m.GetMaxRequestHeadersKb(), headKB, headKB, headKB)
	number(f, field(path, "common_http_protocol_options.max_headers_count"), m.GetCommonHttpProtocolOptions().GetMaxHeadersCount(), headFields, headFields, headFields)
	checkSpelling(f, field(path, "http_protocol_options"), m.GetHttpProtocolOptions())
	if m.GetRequestTimeout().AsDuration() != 0 {
		f.add(field(path, "request_timeout"), "is %s, and no other value than 0s is supported by Fairlead: a route's timeout bounds requests", durationText(m.GetRequestTimeout()))
	}
	duration(f, field(path, "delayed_close_timeout"), m.GetDelayedCloseTimeout(), 0, 0, maxTimeout)
}

// What a client's head may have, which is Envoy's default.
const (
	headKB     = 60
	headFields = 100
)

// checkSpelling wants the names of fields to keep the spelling that they come with, which they do anyway.
func checkSpelling(f *faults, path string, m *corev3.Http1ProtocolOptions) {
	if format := m.GetHeaderKeyFormat(); format != nil && !unpack(format.GetStatefulFormatter().GetTypedConfig(), &casev3.PreserveCaseFormatterConfig{}) {
		f.add(field(path, "header_key_format"), "must be a stateful_formatter with an empty PreserveCaseFormatterConfig: the names of fields keep the spelling that they come with")
	}
}

// checkAccessLog wants logs to go where the sidecar writes its own anyway: to standard output, in its own format.
func checkAccessLog(f *faults, path string, logs []*accesslogv3.AccessLog) {
	for i, one := range logs {
		at := field(item(path, i), "typed_config")
		file := &fileloggerv3.FileAccessLog{}
		switch {
		case unpack(one.GetTypedConfig(), &streamloggerv3.StdoutAccessLog{}):
		case !unpack(one.GetTypedConfig(), file):
			f.add(at, "must be a StdoutAccessLog, or a FileAccessLog to /dev/stdout")
		case file.GetPath() != "/dev/stdout":
			f.add(field(at, "path"), "is %q, and no other file than /dev/stdout is supported by Fairlead", clip(file.GetPath()))
		}
	}
}

// checkUpgrades wants what happens anyway: WebSocket is let through, and CONNECT where there
// are routes that are for it.
func checkUpgrades(f *faults, path string, configs []*managerv3.HttpConnectionManager_UpgradeConfig) {
	for i, c := range configs {
		if !strings.EqualFold(c.GetUpgradeType(), "websocket") && !strings.EqualFold(c.GetUpgradeType(), connectType) {
			f.add(field(item(path, i), "upgrade_type"), "%q is %s: it must be websocket or CONNECT", c.GetUpgradeType(), notSupported)
		}
	}
}

// checkRouter wants the router, which ends the chain in Envoy and in grpc-go (gRFC A39). Before it there may be the filter
// of gRPC-Web, which says what happens anyway; no other is in the subset.
func checkRouter(f *faults, path string, filters []*managerv3.HttpFilter) {
	last := len(filters) - 1
	if last < 0 || last > 1 {
		f.add(path, "must be exactly the router filter, not %d filters", len(filters))
		return
	}
	for i, filter := range filters {
		checkName(f, field(item(path, i), "name"), filter.GetName())
		at, config := field(item(path, i), "typed_config"), filter.GetTypedConfig()
		switch {
		case i == last && !unpack(config, &routerv3.Router{}):
			f.add(at, "must be the router filter")
		case i < last && !unpack(config, &grpcwebv3.GrpcWeb{}):
			f.add(at, "must be the filter of gRPC-Web: no other comes before the router's")
		}
	}
}
