package codec

import (
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	detectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	senderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Envoy's names of its extensions. Only the types count when reading.
const (
	tcpProxyName  = "envoy.filters.network.tcp_proxy"
	headerName    = "envoy.filters.listener.proxy_protocol"
	inspectorName = "envoy.filters.listener.tls_inspector"
	detectorName  = "envoy.filters.listener.http_inspector"
	senderName    = "envoy.transport_sockets.upstream_proxy_protocol"
	rawName       = "envoy.transport_sockets.raw_buffer"
)

const (
	maxPrefaceTimeout  = time.Hour
	maxConnectAttempts = 8
)

// canonicalTCP fills in the defaults of what relays connections.
func canonicalTCP(l mesh.Listener) mesh.Listener {
	if !l.Preface.ProxyProtocol && !l.Preface.TLS && !l.Preface.HTTP {
		l.Preface = mesh.Preface{}
	} else if l.Preface.Timeout == 0 {
		l.Preface.Timeout = mesh.DefaultListenerTimeout
	}
	if len(l.TCP) == 0 {
		return l
	}
	if l.Address.IsValid() {
		l.StatPrefix = ""
	}
	l.TCP = append([]mesh.TCPChain(nil), l.TCP...)
	for i := range l.TCP {
		canonicalProxy(&l.TCP[i].TCP, l.Name)
	}
	return l
}

func canonicalProxy(to *mesh.TCPProxy, listener string) {
	if to.StatPrefix == "" {
		to.StatPrefix = listener
	}
	if to.ConnectAttempts == 0 {
		to.ConnectAttempts = mesh.DefaultConnectAttempts
	}
}

// prefaceProto writes what is read of connections before they are served.
func prefaceProto(m *listenerv3.Listener, p mesh.Preface) {
	add := func(name string, config proto.Message) {
		m.ListenerFilters = append(m.ListenerFilters, &listenerv3.ListenerFilter{
			Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(config)},
		})
	}
	if p.ProxyProtocol {
		add(headerName, &headerv3.ProxyProtocol{})
	}
	if p.TLS {
		add(inspectorName, &inspectorv3.TlsInspector{})
	}
	if p.HTTP {
		add(detectorName, &detectorv3.HttpInspector{})
	}
	if len(m.GetListenerFilters()) > 0 {
		m.ListenerFiltersTimeout = durationpb.New(p.Timeout)
		m.ContinueOnListenerFiltersTimeout = p.Continue
	}
}

// prefaceValue reads the listener filters: each once, and the PROXY protocol's header
// before what comes behind it.
func prefaceValue(f *faults, path string, m *listenerv3.Listener) mesh.Preface {
	var p mesh.Preface
	for i, filter := range m.GetListenerFilters() {
		at := item(field(path, "listener_filters"), i)
		checkName(f, field(at, "name"), filter.GetName())
		is, config := &p.ProxyProtocol, filter.GetTypedConfig()
		switch {
		case unpack(config, &headerv3.ProxyProtocol{}):
			if p.TLS || p.HTTP {
				f.add(at, "the PROXY protocol's header comes before TLS and HTTP, and so must its filter")
			}
		case unpack(config, &inspectorv3.TlsInspector{}):
			is = &p.TLS
		case unpack(config, &detectorv3.HttpInspector{}):
			is = &p.HTTP
		default:
			f.add(field(at, "typed_config"), "must be the PROXY protocol's filter, the TLS inspector or the HTTP inspector")
			continue
		}
		if *is {
			f.add(at, "is there twice")
		}
		*is = true
	}
	timeout := duration(f, field(path, "listener_filters_timeout"), m.GetListenerFiltersTimeout(),
		mesh.DefaultListenerTimeout, time.Millisecond, maxPrefaceTimeout)
	if p.ProxyProtocol || p.TLS || p.HTTP {
		p.Timeout, p.Continue = timeout, m.GetContinueOnListenerFiltersTimeout()
	}
	return p
}

// relays reports whether a listener only relays connections, and tells them apart by nothing
// but the names of servers.
func relays(m *listenerv3.Listener) bool {
	for _, chain := range m.GetFilterChains() {
		match := chain.GetFilterChainMatch()
		if !isRelay(chain) || hasTLS(chain) || match.GetTransportProtocol() != "" || len(match.GetApplicationProtocols()) > 0 {
			return false
		}
	}
	return len(m.GetFilterChains()) > 0 && m.GetDefaultFilterChain() == nil
}

// hasTLS reports whether TLS ends at a chain, or what its transport_socket is is not known.
func hasTLS(m *listenerv3.FilterChain) bool {
	return m.GetTransportSocket() != nil && !m.GetTransportSocket().GetTypedConfig().MessageIs(&rawv3.RawBuffer{})
}

func isRelay(m *listenerv3.FilterChain) bool {
	return len(m.GetFilters()) == 1 && m.GetFilters()[0].GetTypedConfig().MessageIs(&tcpv3.TcpProxy{})
}

func chainProto(c mesh.TCPChain) *listenerv3.FilterChain {
	m := &listenerv3.FilterChain{Name: c.Name}
	if len(c.ServerNames) > 0 {
		m.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: c.ServerNames}
	}
	m.Filters = tcpProxyProto(c.TCP)
	return m
}

func tcpProxyProto(to mesh.TCPProxy) []*listenerv3.Filter {
	return []*listenerv3.Filter{{
		Name: tcpProxyName,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&tcpv3.TcpProxy{
			StatPrefix:         to.StatPrefix,
			ClusterSpecifier:   &tcpv3.TcpProxy_Cluster{Cluster: to.Cluster},
			IdleTimeout:        durationpb.New(to.IdleTimeout),
			MaxConnectAttempts: wrapperspb.UInt32(to.ConnectAttempts),
		})},
	}}
}

// relayChainsValue reads the chains of a listener of connections. What names a server needs the
// inspector, which finds the name.
func relayChainsValue(f *faults, path string, chains []*listenerv3.FilterChain, inspected bool) []mesh.TCPChain {
	var all []mesh.TCPChain
	taken := map[string]bool{}
	for i, m := range chains {
		at := item(path, i)
		checkText(f, field(at, "name"), m.GetName())
		match := field(at, "filter_chain_match")
		c := mesh.TCPChain{Name: m.GetName(), ServerNames: m.GetFilterChainMatch().GetServerNames()}
		if len(c.ServerNames) == 0 {
			if taken[""] {
				f.add(at, "is the second chain without server_names, and all connections go to the first")
			}
			taken[""] = true
		} else if !inspected {
			f.add(field(match, "server_names"), "needs a TLS inspector in listener_filters, which reads them")
		}
		checkServerNames(f, field(match, "server_names"), c.ServerNames, taken)
		filters := field(at, "filters")
		if n := len(m.GetFilters()); n != 1 {
			f.add(filters, "must be one, a TCP proxy, not %d", n)
			continue
		}
		filter := m.GetFilters()[0]
		checkName(f, field(item(filters, 0), "name"), filter.GetName())
		c.TCP = tcpProxyValue(f, field(item(filters, 0), "typed_config"), filter.GetTypedConfig())
		all = append(all, c)
	}
	return all
}

// checkServerNames wants exact names, or *.suffix, each in one chain only.
func checkServerNames(f *faults, path string, names []string, taken map[string]bool) {
	for i, name := range names {
		at, key := item(path, i), strings.ToLower(name)
		below := strings.TrimPrefix(name, "*.")
		switch {
		case name == "*":
			f.add(at, "%q is %s: a chain for all connections has no server_names", name, notSupported)
		case !isHost(below) || strings.ContainsAny(below, ":") || strings.HasSuffix(below, ".") || strings.HasPrefix(below, "."):
			f.add(at, "%q is neither the name of a host nor *. and the end of one", clip(name))
		case taken[key]:
			f.add(at, "%q stands for two chains", clip(name))
		}
		taken[key] = true
	}
}

func tcpProxyValue(f *faults, path string, a *anypb.Any) mesh.TCPProxy {
	m := &tcpv3.TcpProxy{}
	if !unpack(a, m) {
		f.add(path, "must be a TCP proxy, as in every chain of a listener with several, or with one of those")
		return mesh.TCPProxy{}
	}
	checkName(f, field(path, "stat_prefix"), m.GetStatPrefix())
	if _, ok := m.GetClusterSpecifier().(*tcpv3.TcpProxy_Cluster); ok {
		checkName(f, field(path, "cluster"), m.GetCluster())
	} else {
		f.add(path, "must have cluster")
	}
	checkAccessLog(f, field(path, "access_log"), m.GetAccessLog())
	return mesh.TCPProxy{
		Cluster:     m.GetCluster(),
		StatPrefix:  m.GetStatPrefix(),
		IdleTimeout: duration(f, field(path, "idle_timeout"), m.GetIdleTimeout(), mesh.DefaultTCPIdleTimeout, 0, maxTimeout),
		ConnectAttempts: number(f, field(path, "max_connect_attempts"), m.GetMaxConnectAttempts(),
			mesh.DefaultConnectAttempts, 1, maxConnectAttempts),
	}
}

// checkTCPClusters wants every chain of a static listener to lead somewhere, and not back
// to it.
func checkTCPClusters(f *faults, path string, l mesh.Listener, clusters []mesh.Cluster) {
	for i, c := range l.TCP {
		checkTCPCluster(f, field(item(path, i), "filters[0].typed_config.cluster"), c.TCP.Cluster, l, clusters)
	}
}

func checkTCPCluster(f *faults, at, name string, l mesh.Listener, clusters []mesh.Cluster) {
	n := slices.IndexFunc(clusters, func(known mesh.Cluster) bool { return known.Name == name })
	if n < 0 {
		if name != "" {
			f.add(at, "names cluster %q, which does not exist", clip(name))
		}
		return
	}
	if clusters[n].Static == nil {
		return
	}
	for _, e := range clusters[n].Static.Endpoints {
		here := e.Address.Addr() == l.Address.Addr() || l.Address.Addr().IsUnspecified() && e.Address.Addr().IsLoopback()
		if here && e.Address.Port() == l.Address.Port() {
			f.add(at, "names cluster %q, of which %s is this listener itself: connections would go round for ever", clip(name), e.Address)
		}
	}
}

// senderProto writes that connections begin with a PROXY protocol header.
func senderProto(f *faults, v mesh.ProxyVersion) *corev3.TransportSocket {
	m := &senderv3.ProxyProtocolUpstreamTransport{
		Config: &corev3.ProxyProtocolConfig{},
		TransportSocket: &corev3.TransportSocket{
			Name: rawName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&rawv3.RawBuffer{})},
		},
	}
	switch v {
	case mesh.ProxyV1:
		m.Config.Version = corev3.ProxyProtocolConfig_V1
	case mesh.ProxyV2:
		m.Config.Version = corev3.ProxyProtocolConfig_V2
	default:
		f.add("transport_socket", "PROXY protocol version %d is %s", v, notSupported)
	}
	return &corev3.TransportSocket{Name: senderName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(m)}}
}

// senderValue reads what senderProto writes; of another transport socket it says nothing.
func senderValue(f *faults, path string, m *clusterv3.Cluster) mesh.ProxyVersion {
	sender := &senderv3.ProxyProtocolUpstreamTransport{}
	if !m.GetTransportSocket().GetTypedConfig().MessageIs(sender) {
		return 0
	}
	at := field(path, "transport_socket")
	checkName(f, field(at, "name"), m.GetTransportSocket().GetName())
	at = field(at, "typed_config")
	if !unpack(m.GetTransportSocket().GetTypedConfig(), sender) {
		f.add(at, "must be a ProxyProtocolUpstreamTransport")
		return 0
	}
	checkName(f, field(at, "transport_socket.name"), sender.GetTransportSocket().GetName())
	if !unpack(sender.GetTransportSocket().GetTypedConfig(), &rawv3.RawBuffer{}) {
		f.add(field(at, "transport_socket.typed_config"), "must be a raw buffer")
	}
	switch v := sender.GetConfig().GetVersion(); {
	case sender.GetConfig() == nil:
		f.add(field(at, "config"), "must be set")
	case v == corev3.ProxyProtocolConfig_V1:
		return mesh.ProxyV1
	case v != corev3.ProxyProtocolConfig_V2:
		f.add(field(at, "config.version"), "%s is %s", v, notSupported)
	}
	return mesh.ProxyV2
}
