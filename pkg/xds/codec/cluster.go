package codec

import (
	"cmp"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// clusterMetadata is the key of the ClusterExtension in typed_filter_metadata.
const clusterMetadata = "fairlead.cluster.v1"

// httpOptionsKey is both the key and the type of what a cluster's hosts speak.
const httpOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

const maxConnectTimeout = time.Hour

// CanonicalCluster returns c as it comes back from the wire:
//
//   - gRPC is HTTP/2, as Envoy has no other word for it;
//   - the breaker has its defaults filled in, and a disabled one nothing else;
//   - the endpoints of a static cluster are in the form of [CanonicalEndpoints], hosts by name in the like order.
func CanonicalCluster(c mesh.Cluster) mesh.Cluster {
	if c.Protocol == mesh.ProtocolGRPC {
		c.Protocol = mesh.ProtocolHTTP2
	}
	if c.Breaker.Disabled {
		c.Breaker = mesh.Breaker{Disabled: true}
	} else {
		c.Breaker = c.Breaker.WithDefaults()
	}
	if c.Static != nil {
		static := CanonicalEndpoints(*c.Static)
		c.Static = &static
	}
	c.DNS = canonicalDNS(c.DNS)
	return c
}

// EncodeCluster encodes a cluster. It fails if DecodeCluster would refuse what
// came out, with the same faults, and for a cluster of [mesh.ProtocolTCP]: the
// subset has listeners for HTTP only.
func EncodeCluster(c mesh.Cluster) (Encoded, error) {
	var f faults
	m := clusterProto(&f, CanonicalCluster(c))
	clusterValue(&f, "", m)
	if err := f.err(); err != nil {
		return Encoded{}, fmt.Errorf("encode cluster %q: %w", clip(c.Name), err)
	}
	return seal(TypeCluster, c.Name, m)
}

// DecodeCluster decodes and validates a cluster. Its error is an [*Error].
func DecodeCluster(a *anypb.Any) (mesh.Cluster, error) {
	var f faults
	m := &clusterv3.Cluster{}
	if !open(&f, a, TypeCluster, m, clusterSubset()) {
		return mesh.Cluster{}, f.err()
	}
	if isDNS(m) {
		f.add("type", "%s is %s outside of a bootstrap file", m.GetType(), notSupported)
		return mesh.Cluster{}, f.err()
	}
	c := clusterValue(&f, "", m)
	if err := f.err(); err != nil {
		return mesh.Cluster{}, err
	}
	return c, nil
}

// clusterProto notes what the message could not express.
func clusterProto(f *faults, c mesh.Cluster) *clusterv3.Cluster {
	m := &clusterv3.Cluster{
		Name:           c.Name,
		ConnectTimeout: durationpb.New(c.ConnectTimeout),
		// Limits are said that there are not, because their default of 1024 would be one that
		// nobody asked for.
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			Priority:           corev3.RoutingPriority_DEFAULT,
			MaxConnections:     limitProto(c.MaxConnections),
			MaxPendingRequests: limitProto(c.MaxPendingRequests),
			MaxRequests:        limitProto(c.MaxRequests),
		}}},
		OutlierDetection: outlierProto(c.Breaker),
		CommonLbConfig:   panicProto(c.Breaker.PanicPercent),
		TransportSocket:  upstreamProto(f, c.TLS),
	}
	switch {
	case c.DNS != nil:
		setDNS(m, c)
	case c.Static == nil:
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		m.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsProto()}
	default:
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		m.LoadAssignment = endpointsProto(*c.Static)
	}
	if k := c.TCPKeepalive; k != (mesh.TCPKeepalive{}) {
		m.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveTime:     numberOrNil(uint32(k.Time / time.Second)),
			KeepaliveInterval: numberOrNil(uint32(k.Interval / time.Second)),
			KeepaliveProbes:   numberOrNil(k.Probes),
		}}
	}
	if c.ProxyProtocol != 0 {
		if c.TLS != nil {
			f.add("transport_socket", "has both TLS and a PROXY protocol header")
		}
		m.TransportSocket = senderProto(f, c.ProxyProtocol)
	}
	setBalancing(f, m, c.LB)
	setProtocol(f, m, c)
	if extension := extensionProto(c); extension != nil {
		m.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{
			clusterMetadata: pack(extension),
		}}
	}
	return m
}

func setProtocol(f *faults, m *clusterv3.Cluster, c mesh.Cluster) {
	type (
		options = upstreamv3.HttpProtocolOptions
		config  = upstreamv3.HttpProtocolOptions_ExplicitHttpConfig
	)
	said := &options{
		CommonHttpProtocolOptions: keeping{c.IdleTimeout, c.MaxConnectionDuration, c.MaxConnectionJitter, c.MaxRequestsPerConnection}.proto(),
	}
	http2 := http2Proto(c.HTTP2)
	if c.ALPN {
		if c.Protocol != mesh.ProtocolUnspecified {
			f.add("typed_extension_protocol_options", "has both a protocol and auto_config")
		}
		said.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_AutoConfig{AutoConfig: &upstreamv3.HttpProtocolOptions_AutoHttpConfig{Http2ProtocolOptions: http2}}
		m.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptionsKey: pack(said)}
		return
	}
	explicit := &config{}
	switch c.Protocol {
	case mesh.ProtocolUnspecified:
		if said.GetCommonHttpProtocolOptions() != nil || http2 != nil {
			f.add("typed_extension_protocol_options", "options of connections without a protocol are %s", notSupported)
		}
		return
	case mesh.ProtocolHTTP:
		if http2 != nil {
			f.add("typed_extension_protocol_options", "options of HTTP/2 with HTTP/1.1 are %s", notSupported)
		}
		explicit.ProtocolConfig = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		}
	case mesh.ProtocolHTTP2:
		explicit.ProtocolConfig = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: cmp.Or(http2, &corev3.Http2ProtocolOptions{}),
		}
	default:
		f.add("typed_extension_protocol_options", "protocol %d is %s", c.Protocol, notSupported)
		return
	}
	said.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	m.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptionsKey: pack(said)}
}

// spoken is what a cluster says of how its hosts are called.
type spoken struct {
	protocol mesh.Protocol
	alpn     bool // the hosts choose it by ALPN
	keeping
	http2 mesh.HTTP2Options
}

// readProtocol reads it.
func readProtocol(f *faults, path string, m *clusterv3.Cluster) spoken {
	a, ok := m.GetTypedExtensionProtocolOptions()[httpOptionsKey]
	if !ok {
		return spoken{}
	}
	at := entry(field(path, "typed_extension_protocol_options"), httpOptionsKey)
	options := &upstreamv3.HttpProtocolOptions{}
	if !unpack(a, options) {
		f.add(at, "must be HttpProtocolOptions")
		return spoken{}
	}
	s := spoken{keeping: keepingValue(f, field(at, "common_http_protocol_options"), options.GetCommonHttpProtocolOptions())}
	switch options.GetExplicitHttpConfig().GetProtocolConfig().(type) {
	case *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
		s.protocol = mesh.ProtocolHTTP
		checkSpelling(f, field(at, "explicit_http_config.http_protocol_options"), options.GetExplicitHttpConfig().GetHttpProtocolOptions())
	case *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
		s.protocol = mesh.ProtocolHTTP2
		s.http2 = http2Value(f, field(at, "explicit_http_config.http2_protocol_options"), options.GetExplicitHttpConfig().GetHttp2ProtocolOptions(), maxHostStreams)
	default:
		if s.alpn = options.GetAutoConfig() != nil; !s.alpn {
			f.add(field(at, "explicit_http_config"), "must have http_protocol_options or http2_protocol_options; or there must be auto_config instead")
		}
		checkSpelling(f, field(at, "auto_config.http_protocol_options"), options.GetAutoConfig().GetHttpProtocolOptions())
		s.http2 = http2Value(f, field(at, "auto_config.http2_protocol_options"), options.GetAutoConfig().GetHttp2ProtocolOptions(), maxHostStreams)
	}
	return s
}

// checkALPN checks what auto_config needs: hosts that can be asked what they speak.
func checkALPN(f *faults, path string, t *mesh.UpstreamTLS) {
	switch {
	case t == nil:
		f.add(entry(field(path, "typed_extension_protocol_options"), httpOptionsKey)+".auto_config",
			"needs a transport_socket with an UpstreamTlsContext: hosts say by ALPN what they speak")
	case len(t.ALPN) > 0:
		f.add(field(path, "transport_socket.typed_config.common_tls_context.alpn_protocols"),
			"must not be there with auto_config, which offers h2 and http/1.1")
	}
}

// extensionProto returns what Envoy has no field for, nil if that is nothing.
func extensionProto(c mesh.Cluster) *meshv1.ClusterExtension {
	extension := &meshv1.ClusterExtension{WeightedRoundRobin: c.LB == mesh.LBWeightedRoundRobin}
	if !c.Breaker.Disabled && c.Breaker.HalfOpenRequests != mesh.DefaultHalfOpenRequests {
		extension.Breaker = &meshv1.BreakerExtension{HalfOpenRequests: c.Breaker.HalfOpenRequests}
	}
	if extension.Breaker == nil && !extension.WeightedRoundRobin {
		return nil
	}
	return extension
}

func readExtension(f *faults, path string, m *clusterv3.Cluster) *meshv1.ClusterExtension {
	extension := &meshv1.ClusterExtension{}
	a, ok := m.GetMetadata().GetTypedFilterMetadata()[clusterMetadata]
	if ok && !unpack(a, extension) {
		f.add(path, "must be a ClusterExtension")
	}
	return extension
}

func clusterValue(f *faults, path string, m *clusterv3.Cluster) mesh.Cluster {
	checkName(f, field(path, "name"), m.GetName())
	extensionPath := entry(field(path, "metadata.typed_filter_metadata"), clusterMetadata)
	extension := readExtension(f, extensionPath, m)
	c := mesh.Cluster{
		Name:    m.GetName(),
		LB:      readBalancing(f, path, m),
		Breaker: breakerValue(f, path, m.GetOutlierDetection(), extensionPath, extension.GetBreaker()),
		ConnectTimeout: duration(f, field(path, "connect_timeout"), m.GetConnectTimeout(),
			mesh.DefaultConnectTimeout, time.Millisecond, maxConnectTimeout),
	}
	c.TCPKeepalive = keepaliveValue(f, field(path, "upstream_connection_options.tcp_keepalive"), m.GetUpstreamConnectionOptions().GetTcpKeepalive())
	threshold := panicValue(f, field(path, "common_lb_config.healthy_panic_threshold.value"), m.GetCommonLbConfig().GetHealthyPanicThreshold())
	if !c.Breaker.Disabled {
		c.Breaker.PanicPercent = threshold
	}
	if extension.GetWeightedRoundRobin() {
		if c.LB != mesh.LBRoundRobin {
			f.add(field(extensionPath, "weighted_round_robin"), "contradicts the policy, which is not ROUND_ROBIN")
		}
		c.LB = mesh.LBWeightedRoundRobin
	}
	readLimits(f, &c, field(path, "circuit_breakers.thresholds"), m.GetCircuitBreakers())
	if c.ProxyProtocol = senderValue(f, path, m); c.ProxyProtocol == 0 {
		c.TLS = upstreamValue(f, field(path, "transport_socket"), m.GetTransportSocket())
	}
	said := readProtocol(f, path, m)
	c.Protocol, c.ALPN, c.HTTP2 = said.protocol, said.alpn, said.http2
	c.IdleTimeout, c.MaxConnectionDuration, c.MaxConnectionJitter, c.MaxRequestsPerConnection = said.idle, said.lifetime, said.jitter, said.requests
	if c.ALPN {
		checkALPN(f, path, c.TLS)
	}
	if isDNS(m) {
		c.DNS = dnsValue(f, path, m)
		return c
	}
	c.Static = readEndpoints(f, path, m)
	return c
}

// keepaliveValue has the bounds of Linux.
func keepaliveValue(f *faults, at string, m *corev3.TcpKeepalive) mesh.TCPKeepalive {
	seconds := func(name string, v *wrapperspb.UInt32Value) time.Duration {
		return time.Duration(number(f, field(at, name), v, 0, 1, 32767)) * time.Second
	}
	return mesh.TCPKeepalive{
		Time:     seconds("keepalive_time", m.GetKeepaliveTime()),
		Interval: seconds("keepalive_interval", m.GetKeepaliveInterval()),
		Probes:   number(f, field(at, "keepalive_probes"), m.GetKeepaliveProbes(), 0, 1, 127),
	}
}

// readEndpoints returns the endpoints that came with a cluster, nil for EDS.
func readEndpoints(f *faults, path string, m *clusterv3.Cluster) *mesh.LoadAssignment {
	switch {
	case m.GetClusterDiscoveryType() == nil:
		f.add(field(path, "type"), "must be EDS or STATIC")
	case m.GetType() == clusterv3.Cluster_EDS:
		if m.GetLoadAssignment() != nil {
			f.add(field(path, "load_assignment"), "beside type EDS is %s", notSupported)
		}
		checkADS(f, field(path, "eds_cluster_config.eds_config"), m.GetEdsClusterConfig().GetEdsConfig())
		if s := m.GetEdsClusterConfig().GetServiceName(); s != "" && s != m.GetName() {
			f.add(field(path, "eds_cluster_config.service_name"), "is %q, not the cluster's name", clip(s))
		}
	case m.GetType() == clusterv3.Cluster_STATIC:
		if m.GetEdsClusterConfig() != nil {
			f.add(field(path, "eds_cluster_config"), "beside type STATIC is %s", notSupported)
		}
		at := field(path, "load_assignment")
		if m.GetLoadAssignment() == nil {
			f.add(at, "must be set, empty if the cluster has no endpoints")
			return nil
		}
		static := endpointsValue(f, at, m.GetLoadAssignment())
		if static.Cluster != m.GetName() {
			f.add(field(at, "cluster_name"), "is %q, not the cluster's name", clip(static.Cluster))
		}
		return &static
	default:
		f.add(field(path, "type"), "%s is %s", m.GetType(), notSupported)
	}
	return nil
}

// readLimits takes Envoy's defaults of 1024 where nothing is said.
func readLimits(f *faults, c *mesh.Cluster, path string, m *clusterv3.CircuitBreakers) {
	var t *clusterv3.CircuitBreakers_Thresholds
	at := path
	high := false
	for i, one := range m.GetThresholds() {
		switch {
		case one.GetPriority() == corev3.RoutingPriority_DEFAULT && t == nil:
			t, at = one, item(path, i)
		case one.GetPriority() == corev3.RoutingPriority_HIGH && !high:
			high = true // no request has it
		default:
			f.add(field(item(path, i), "priority"), "%s is %s there, or is there twice", one.GetPriority(), notSupported)
		}
	}
	c.MaxPendingRequests = limit(f, field(at, "max_pending_requests"), t.GetMaxPendingRequests())
	c.MaxRequests = limit(f, field(at, "max_requests"), t.GetMaxRequests())
	c.MaxConnections = limit(f, field(at, "max_connections"), t.GetMaxConnections())
}
