package codec

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// MaxNamedHosts bounds the hosts that a cluster has by name.
const MaxNamedHosts = 1000

// isDNS reports whether a cluster's hosts are named.
func isDNS(m *clusterv3.Cluster) bool {
	return m.GetClusterDiscoveryType() != nil && (m.GetType() == clusterv3.Cluster_STRICT_DNS || m.GetType() == clusterv3.Cluster_LOGICAL_DNS)
}

// dnsFamilies is indexed by mesh.DNSFamily.
func dnsFamilies() [5]clusterv3.Cluster_DnsLookupFamily {
	return [5]clusterv3.Cluster_DnsLookupFamily{clusterv3.Cluster_AUTO, clusterv3.Cluster_V4_ONLY, clusterv3.Cluster_V6_ONLY, clusterv3.Cluster_V4_PREFERRED, clusterv3.Cluster_ALL}
}

// canonicalDNS sorts hosts as endpoints are.
func canonicalDNS(d *mesh.DNS) *mesh.DNS {
	if d == nil {
		return nil
	}
	sorted := *d
	sorted.Hosts = slices.SortedFunc(slices.Values(d.Hosts), func(a, b mesh.NamedHost) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return &sorted
}

// setDNS writes the hosts that a cluster names.
func setDNS(m *clusterv3.Cluster, c mesh.Cluster) {
	kind := clusterv3.Cluster_STRICT_DNS
	if c.DNS.Logical {
		kind = clusterv3.Cluster_LOGICAL_DNS
	}
	m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	m.DnsRefreshRate = durationpb.New(c.DNS.Refresh) //nolint:staticcheck // it is what files have
	m.DnsLookupFamily = dnsFamilies()[c.DNS.Family]
	m.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name}
	for i, h := range c.DNS.Hosts {
		if i == 0 || h.Zone != c.DNS.Hosts[i-1].Zone {
			m.LoadAssignment.Endpoints = append(m.LoadAssignment.Endpoints, &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: h.Zone}})
		}
		locality := m.LoadAssignment.Endpoints[len(m.LoadAssignment.Endpoints)-1]
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: h.Host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(h.Port)},
				}},
			}}},
			LoadBalancingWeight: wrapperspb.UInt32(h.Weight),
		})
	}
}

// takeDNSCluster puts what a cluster says by its cluster_type into the fields that say the same, where it is read.
func takeDNSCluster(f *faults, path string, m *clusterv3.Cluster) {
	checkName(f, field(path, "cluster_type.name"), m.GetClusterType().GetName())
	at := field(path, "cluster_type.typed_config")
	said := &dnsv3.DnsCluster{}
	if !unpack(m.GetClusterType().GetTypedConfig(), said) {
		f.add(at, "must be a DnsCluster")
	}
	if m.GetDnsRefreshRate() != nil { //nolint:staticcheck // it is what files have
		f.add(field(path, "dns_refresh_rate"), "beside cluster_type has no effect: say it there")
	}
	if m.GetDnsLookupFamily() != clusterv3.Cluster_AUTO {
		f.add(field(path, "dns_lookup_family"), "beside cluster_type has no effect: say it there")
	}
	refresh := duration(f, field(at, "dns_refresh_rate"), said.GetDnsRefreshRate(), mesh.DefaultDNSRefresh, time.Second, time.Hour)
	m.DnsRefreshRate = durationpb.New(min(max(refresh, time.Second), time.Hour))                 //nolint:staticcheck // as above; what is out of range was told
	family, known := clusterv3.Cluster_DnsLookupFamily_value[said.GetDnsLookupFamily().String()] // of the same names
	if !known && said.GetDnsLookupFamily() != commonv3.DnsLookupFamily_UNSPECIFIED {
		f.add(field(at, "dns_lookup_family"), "%s is %s", said.GetDnsLookupFamily(), notSupported)
	}
	m.DnsLookupFamily = clusterv3.Cluster_DnsLookupFamily(family)
	kind := clusterv3.Cluster_STRICT_DNS
	if said.GetAllAddressesInSingleEndpoint() {
		kind = clusterv3.Cluster_LOGICAL_DNS
	}
	m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
}

// dnsValue reads the hosts that a cluster names.
func dnsValue(f *faults, path string, m *clusterv3.Cluster) *mesh.DNS {
	d := &mesh.DNS{
		Logical: m.GetType() == clusterv3.Cluster_LOGICAL_DNS,
		Refresh: duration(f, field(path, "dns_refresh_rate"), m.GetDnsRefreshRate(), mesh.DefaultDNSRefresh, time.Second, time.Hour), //nolint:staticcheck // it is what files have
	}
	families := dnsFamilies()
	if family := slices.Index(families[:], m.GetDnsLookupFamily()); family >= 0 {
		d.Family = mesh.DNSFamily(family)
	} else {
		f.add(field(path, "dns_lookup_family"), "%s is %s", m.GetDnsLookupFamily(), notSupported)
	}
	if m.GetEdsClusterConfig() != nil {
		f.add(field(path, "eds_cluster_config"), "beside type %s is %s", m.GetType(), notSupported)
	}
	at := field(path, "load_assignment")
	checkName(f, field(at, "cluster_name"), m.GetLoadAssignment().GetClusterName())
	seen := map[mesh.NamedHost]bool{}
	for i, locality := range m.GetLoadAssignment().GetEndpoints() {
		zoned := item(field(at, "endpoints"), i)
		zone := zoneValue(f, zoned, locality)
		for j, one := range locality.GetLbEndpoints() {
			where := item(field(zoned, "lb_endpoints"), j)
			h := namedHost(f, where, one)
			h.Zone = zone
			if same := (mesh.NamedHost{Host: h.Host, Port: h.Port}); seen[same] {
				f.add(field(where, "endpoint.address"), "%s, port %d, is there twice", clip(h.Host), h.Port)
			} else {
				seen[same] = true
			}
			d.Hosts = append(d.Hosts, h)
		}
	}
	switch n := len(d.Hosts); {
	case n == 0:
		f.add(field(at, "endpoints"), "must not be empty: type %s has its hosts there, by name", m.GetType())
	case d.Logical && n > 1:
		f.add(field(at, "endpoints"), "must be one host for type LOGICAL_DNS, not %d", n)
	case n > MaxNamedHosts:
		f.add(field(at, "endpoints"), "has %d hosts, more than %d", n, MaxNamedHosts)
	}
	return canonicalDNS(d)
}

// namedHost reads a host by its name, or by its address, and a port to connect to.
func namedHost(f *faults, path string, m *endpointv3.LbEndpoint) mesh.NamedHost {
	h := mesh.NamedHost{Weight: number(f, field(path, "load_balancing_weight"), m.GetLoadBalancingWeight(), 1, 1, maxWeight)}
	if m.GetHealthStatus() != corev3.HealthStatus_UNKNOWN && m.GetHealthStatus() != corev3.HealthStatus_HEALTHY {
		f.add(field(path, "health_status"), "%s of a host by name is %s", m.GetHealthStatus(), notSupported)
	}
	address := m.GetEndpoint().GetAddress()
	if address.GetSocketAddress() == nil {
		f.add(field(path, "endpoint.address"), "must be a socket_address")
		return h
	}
	at := field(path, "endpoint.address.socket_address")
	h.Host, h.Port = address.GetSocketAddress().GetAddress(), port(f, at, address, 1)
	if ip, err := netip.ParseAddr(h.Host); err == nil {
		endpointAddress(f, field(path, "endpoint.address"), address)
		h.Host = ip.Unmap().String()
	} else if !isHost(h.Host) || strings.Contains(h.Host, ":") {
		f.add(field(at, "address"), "is %q, not the name of a host", clip(h.Host))
	}
	return h
}
