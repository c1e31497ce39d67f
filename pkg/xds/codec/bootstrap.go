package codec

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// MaxBootstrapBytes bounds a bootstrap file.
	MaxBootstrapBytes = 4 << 20
	// MaxBootstrapResources bounds its listeners, and its clusters.
	MaxBootstrapResources = 10_000
	// DefaultStatsFlushInterval is Envoy's.
	DefaultStatsFlushInterval = 5 * time.Second
)

// Bootstrap is what a bootstrap file says.
type Bootstrap struct {
	Node  Node
	Admin netip.AddrPort // the zero AddrPort if there is no admin interface
	// StatsFlushInterval is how often metrics would be pushed, 1 ms to 5 min. They
	// are pulled, so it is only shown.
	StatsFlushInterval time.Duration
	Listeners          []mesh.Listener // all with an address, by which one without a name is called
	Clusters           []mesh.Cluster  // without the control plane's
	ControlPlane       *ControlPlane   // nil if nothing is dynamic
	// WildcardListeners and WildcardClusters say that all listeners and clusters
	// that the control plane has for the node are wanted (lds_config, cds_config).
	WildcardListeners bool
	WildcardClusters  bool
	// Inline has what the file has inline of certificates and keys, by the names that stand for it in Listeners and Clusters
	// as if they were of files: "inline:" and the path of the field. Keys are among it: it is for no log.
	Inline map[string][]byte `json:"-"`
}

// Node says who asks for configuration.
type Node struct {
	ID       string
	Cluster  string // the service it belongs to
	Region   string
	Zone     string
	SubZone  string
	Metadata map[string]any // JSON values
}

// ControlPlane says where configuration comes from.
type ControlPlane struct {
	Cluster        string        // the name of the static cluster that says so
	Addresses      []string      // host:port, at least one
	ConnectTimeout time.Duration // > 0
}

// DecodeBootstrap reads an Envoy v3 Bootstrap, in YAML or JSON. Everything that is
// not in the subset is refused, as for resources; the error is an [*Error] whose
// faults have lines and come in their order.
func DecodeBootstrap(data []byte) (Bootstrap, error) {
	m := &bootstrapv3.Bootstrap{}
	doc := parseDocument(data, m)
	b := Bootstrap{}
	if doc.parsed {
		b = readBootstrap(&doc.faults, m)
	}
	if err := doc.err(); err != nil {
		return Bootstrap{}, err
	}
	return b, nil
}

func readBootstrap(f *faults, m *bootstrapv3.Bootstrap) Bootstrap {
	inline := takeInline(m.GetStaticResources())
	f.walk("", m.ProtoReflect(), bootstrapSubset())
	b := Bootstrap{
		Inline: inline,
		Node:   readNode(f, m.GetNode()),
		StatsFlushInterval: duration(f, "stats_flush_interval", m.GetStatsFlushInterval(),
			DefaultStatsFlushInterval, time.Millisecond, 5*time.Minute),
	}
	if m.GetAdmin() != nil {
		b.Admin = listenAddress(f, "admin.address", m.GetAdmin().GetAddress())
		if to := m.GetAdmin().GetAccessLogPath(); to != "" && to != "/dev/null" { //nolint:staticcheck // files have it, deprecated as it is
			f.add("admin.access_log_path", "is %q, and requests to the admin port are not logged: say /dev/null, or nothing", clip(to))
		}
	}
	static := m.GetStaticResources()
	if len(static.GetListeners()) > MaxBootstrapResources || len(static.GetClusters()) > MaxBootstrapResources {
		f.add("static_resources", "has more than %d listeners or clusters", MaxBootstrapResources)
		return b
	}
	controlPlane := readDynamic(f, m, &b)
	readClusters(f, static.GetClusters(), controlPlane, &b)
	readListeners(f, static, &b)
	return b
}

func readNode(f *faults, m *corev3.Node) Node {
	text := func(path, s string) string {
		if len(s) > maxName {
			f.add(path, "is %d bytes long, more than %d", len(s), maxName)
		}
		checkText(f, path, s)
		return s
	}
	n := Node{
		ID:      text("node.id", m.GetId()),
		Cluster: text("node.cluster", m.GetCluster()),
		Region:  text("node.locality.region", m.GetLocality().GetRegion()),
		Zone:    text("node.locality.zone", m.GetLocality().GetZone()),
		SubZone: text("node.locality.sub_zone", m.GetLocality().GetSubZone()),
	}
	if len(m.GetMetadata().GetFields()) > 0 {
		n.Metadata = m.GetMetadata().AsMap()
	}
	return n
}

// readDynamic returns the name of the control plane's cluster, "" if there is none.
func readDynamic(f *faults, m *bootstrapv3.Bootstrap, b *Bootstrap) string {
	const at = "dynamic_resources"
	d := m.GetDynamicResources()
	if d.GetLdsConfig() != nil {
		checkADS(f, at+".lds_config", d.GetLdsConfig())
		b.WildcardListeners = true
	}
	if d.GetCdsConfig() != nil {
		checkADS(f, at+".cds_config", d.GetCdsConfig())
		b.WildcardClusters = true
	}
	ads := d.GetAdsConfig()
	if ads == nil {
		if d != nil {
			f.add(at+".ads_config", "must be set: the one source of dynamic resources is ADS")
		}
		return ""
	}
	if ads.GetApiType() != corev3.ApiConfigSource_DELTA_GRPC {
		f.add(at+".ads_config.api_type", "must be DELTA_GRPC")
	}
	if ads.GetTransportApiVersion() != corev3.ApiVersion_V3 {
		f.add(at+".ads_config.transport_api_version", "must be V3")
	}
	if m.GetNode().GetId() == "" {
		f.add("node.id", "must not be empty: the control plane needs to know who asks")
	}
	if m.GetNode().GetCluster() == "" {
		f.add("node.cluster", "must not be empty: the control plane needs to know which service asks")
	}
	services := ads.GetGrpcServices()
	if len(services) != 1 {
		f.add(at+".ads_config.grpc_services", "must be one, not %d", len(services))
		return ""
	}
	name := services[0].GetEnvoyGrpc().GetClusterName()
	path := at + ".ads_config.grpc_services[0].envoy_grpc.cluster_name"
	known := func(c *clusterv3.Cluster) bool { return c.GetName() == name }
	if name == "" {
		f.add(path, "must not be empty")
	} else if !slices.ContainsFunc(m.GetStaticResources().GetClusters(), known) {
		f.add(path, "names cluster %q, which static_resources.clusters do not have", clip(name))
	}
	return name
}

func readClusters(f *faults, clusters []*clusterv3.Cluster, controlPlane string, b *Bootstrap) {
	seen := map[string]bool{}
	for i, m := range clusters {
		at := item("static_resources.clusters", i)
		if m.GetName() != "" && seen[m.GetName()] {
			f.add(field(at, "name"), "%q names two clusters", clip(m.GetName()))
		}
		seen[m.GetName()] = true
		if controlPlane != "" && m.GetName() == controlPlane {
			f.walk(at, m.ProtoReflect(), controlPlaneSubset())
			b.ControlPlane = readControlPlane(f, at, m)
			continue
		}
		if m.GetClusterDiscoveryType() == nil {
			m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC} // as for Envoy
		}
		if a := m.GetLoadAssignment(); a.GetClusterName() != "" {
			a.ClusterName = m.GetName() // whose it is, is clear: Envoy does not look
		}
		allowed := clusterSubset()
		if isDNS(m) || m.GetClusterType() != nil {
			maps.Copy(allowed, dnsSubset())
		}
		f.walk(at, m.ProtoReflect(), allowed)
		if m.GetClusterType() != nil {
			takeDNSCluster(f, at, m)
		}
		c := clusterValue(f, at, m)
		if c.Static == nil && controlPlane == "" && m.GetType() == clusterv3.Cluster_EDS {
			f.add(field(at, "type"), "EDS needs dynamic_resources.ads_config")
		}
		if c.LB == mesh.LBRoundRobin {
			c.LB = mesh.LBWeightedRoundRobin // which is what Envoy means by ROUND_ROBIN
		}
		b.Clusters = append(b.Clusters, c)
	}
}

func readControlPlane(f *faults, path string, m *clusterv3.Cluster) *ControlPlane {
	checkName(f, field(path, "name"), m.GetName())
	named := false // hosts by name, not by address
	switch m.GetType() {
	case clusterv3.Cluster_STATIC:
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		named = true
	default:
		f.add(field(path, "type"), "%s is %s for the control plane", m.GetType(), notSupported)
	}
	if readProtocol(f, path, m).protocol != mesh.ProtocolHTTP2 {
		f.add(field(path, "typed_extension_protocol_options"), "must have http2_protocol_options: gRPC is HTTP/2")
	}
	c := &ControlPlane{Cluster: m.GetName()}
	c.ConnectTimeout = duration(f, field(path, "connect_timeout"), m.GetConnectTimeout(),
		mesh.DefaultConnectTimeout, time.Millisecond, maxConnectTimeout)
	for i, locality := range m.GetLoadAssignment().GetEndpoints() {
		for j, e := range locality.GetLbEndpoints() {
			at := field(path, item(field(item("load_assignment.endpoints", i), "lb_endpoints"), j)+".endpoint.address")
			address := e.GetEndpoint().GetAddress()
			host := address.GetSocketAddress().GetAddress()
			portNumber := port(f, field(at, "socket_address"), address, 1)
			if !named {
				endpointAddress(f, at, address)
			} else if !isHost(host) {
				f.add(field(at, "socket_address.address"), "is %q, not the name of a host", clip(host))
			}
			c.Addresses = append(c.Addresses, net.JoinHostPort(host, strconv.Itoa(int(portNumber))))
		}
	}
	if len(c.Addresses) == 0 {
		f.add(field(path, "load_assignment.endpoints"), "must not be empty")
	}
	return c
}

// isHost reports whether s consists of what names and addresses of hosts do.
func isHost(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != ':' {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

func readListeners(f *faults, static *bootstrapv3.Bootstrap_StaticResources, b *Bootstrap) {
	names, addresses := map[string]bool{}, map[netip.AddrPort]bool{}
	clusters, heralded := map[string]bool{}, map[string]bool{}
	for _, c := range b.Clusters {
		clusters[c.Name] = true
		heralded[c.Name] = c.ProxyProtocol != 0
	}
	for i, m := range static.GetListeners() {
		at := item("static_resources.listeners", i)
		if m.GetName() == "" {
			m.Name = listenAddress(&faults{}, "", m.GetAddress()).String() // Envoy gives it a random name
		}
		l := listenerValue(f, at, m)
		if m.GetApiListener() != nil {
			f.add(field(at, "api_listener"), "in static_resources is %s", notSupported)
		}
		if l.Name != "" && names[l.Name] {
			f.add(field(at, "name"), "%q names two listeners", clip(l.Name))
		}
		if l.Address.Port() != 0 && addresses[l.Address] {
			f.add(field(at, "address"), "%s is listened on twice", l.Address)
		}
		names[l.Name], addresses[l.Address] = true, true
		manager := field(at, "filter_chains[0].filters[0].typed_config")
		if l.RouteName != "" && b.ControlPlane == nil {
			f.add(field(manager, "rds"), "needs dynamic_resources.ads_config")
		}
		if l.Route != nil {
			checkClusters(f, field(manager, "route_config"), *l.Route, clusters, heralded)
		}
		checkTCPClusters(f, field(at, "filter_chains"), l, b.Clusters)
		checkChainClusters(f, at, l, b, clusters, heralded)
		b.Listeners = append(b.Listeners, l)
	}
}

// checkClusters wants every route of a static listener to lead somewhere, as Envoy
// does (RouteConfiguration.validate_clusters), and not to where connections are heralded by
// whose they are: requests of all clients share them.
func checkClusters(f *faults, path string, r mesh.RouteConfiguration, known, heralded map[string]bool) {
	for i, v := range r.VirtualHosts {
		for j, one := range v.Routes {
			at := item(field(item(field(path, "virtual_hosts"), i), "routes"), j)
			switch name := one.Action.Cluster; {
			case name != "" && !known[name]:
				f.add(field(at, "route.cluster"), "names cluster %q, which does not exist", clip(name))
			case heralded[name]:
				f.add(field(at, "route.cluster"), "names cluster %q, whose connections begin with a PROXY protocol header: that is for a TCP proxy, "+
					"for the requests of all clients share connections", clip(name))
			}
		}
	}
}
