package codec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// endpointMetadata is the key of the EndpointExtension in typed_filter_metadata.
const endpointMetadata = "fairlead.endpoint.v1"

// MaxEndpoints bounds a load assignment.
const MaxEndpoints = 20_000

// maxWeight is the largest weight of a [mesh.Endpoint].
const maxWeight = mesh.MaxWeight

// CanonicalEndpoints returns a as it comes back from the wire: sorted by zone,
// address and instance. It does not change a.
func CanonicalEndpoints(a mesh.LoadAssignment) mesh.LoadAssignment {
	a.Endpoints = slices.Clone(a.Endpoints)
	for i, e := range a.Endpoints {
		a.Endpoints[i].Address = unmapped(e.Address)
	}
	slices.SortFunc(a.Endpoints, func(a, b mesh.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), a.Address.Compare(b.Address), cmp.Compare(a.Instance, b.Instance))
	})
	if len(a.Endpoints) == 0 {
		a.Endpoints = nil
	}
	return a
}

// UniqueAddresses splits endpoints into those that an assignment can hold and
// those whose address another one has: grpc-go refuses an assignment with the same
// address twice (gRFC A27), so [EncodeEndpoints] does. Of several, the one that is
// usable stays, then the one whose instance id sorts first, so that every replica
// keeps the same. The order of those kept does not change.
func UniqueAddresses(endpoints []mesh.Endpoint) (kept, dropped []mesh.Endpoint) {
	best := make(map[netip.AddrPort]int, len(endpoints))
	for i, e := range endpoints {
		address := unmapped(e.Address)
		j, taken := best[address]
		if !taken || preferred(e, endpoints[j]) {
			best[address] = i
		}
	}
	for i, e := range endpoints {
		if best[unmapped(e.Address)] == i {
			kept = append(kept, e)
		} else {
			dropped = append(dropped, e)
		}
	}
	return kept, dropped
}

// unmapped gives an IPv4 address that is written as an IPv6 one its one spelling.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func preferred(e, over mesh.Endpoint) bool {
	if e.Health.Usable() != over.Health.Usable() {
		return e.Health.Usable()
	}
	return e.Instance < over.Instance
}

// EncodeEndpoints encodes an assignment; one without endpoints says that the
// cluster is known to have none. It fails if DecodeEndpoints would refuse what
// came out, with the same faults: see [UniqueAddresses].
func EncodeEndpoints(a mesh.LoadAssignment) (Encoded, error) {
	var f faults
	m := endpointsProto(CanonicalEndpoints(a))
	endpointsValue(&f, "", m)
	if err := f.err(); err != nil {
		return Encoded{}, fmt.Errorf("encode endpoints %q: %w", clip(a.Cluster), err)
	}
	return seal(TypeEndpoints, a.Cluster, m)
}

// DecodeEndpoints decodes and validates an assignment. Its error is an [*Error].
func DecodeEndpoints(a *anypb.Any) (mesh.LoadAssignment, error) {
	var f faults
	m := &endpointv3.ClusterLoadAssignment{}
	if !open(&f, a, TypeEndpoints, m, endpointsSubset()) {
		return mesh.LoadAssignment{}, f.err()
	}
	assignment := endpointsValue(&f, "", m)
	if err := f.err(); err != nil {
		return mesh.LoadAssignment{}, err
	}
	return assignment, nil
}

// endpointsProto groups sorted endpoints by zone. A locality weighs as much as its
// endpoints together: grpc-go drops one without a weight, and shares requests by it.
func endpointsProto(a mesh.LoadAssignment) *endpointv3.ClusterLoadAssignment {
	m := &endpointv3.ClusterLoadAssignment{ClusterName: a.Cluster}
	for i, e := range a.Endpoints {
		if i == 0 || e.Zone != a.Endpoints[i-1].Zone {
			m.Endpoints = append(m.Endpoints, &endpointv3.LocalityLbEndpoints{
				Locality:            &corev3.Locality{Zone: e.Zone},
				LoadBalancingWeight: wrapperspb.UInt32(0),
			})
		}
		locality := m.Endpoints[len(m.Endpoints)-1]
		locality.LoadBalancingWeight.Value += e.Weight
		locality.LbEndpoints = append(locality.LbEndpoints, endpointProto(e))
	}
	return m
}

func endpointProto(e mesh.Endpoint) *endpointv3.LbEndpoint {
	m := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: addressProto(e.Address)},
		},
		HealthStatus:        corev3.HealthStatus(e.Health),
		LoadBalancingWeight: wrapperspb.UInt32(e.Weight),
	}
	if e.Instance != "" || e.Sidecar || e.Knocks {
		m.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{
			endpointMetadata: pack(&meshv1.EndpointExtension{Instance: e.Instance, Sidecar: e.Sidecar, TakesKnocks: e.Knocks}),
		}}
	}
	return m
}

func endpointsValue(f *faults, path string, m *endpointv3.ClusterLoadAssignment) mesh.LoadAssignment {
	a := mesh.LoadAssignment{Cluster: m.GetClusterName()}
	checkName(f, field(path, "cluster_name"), m.GetClusterName())
	seen := map[netip.AddrPort]bool{}
	for i, locality := range m.GetEndpoints() {
		at := item(field(path, "endpoints"), i)
		zone := zoneValue(f, at, locality)
		for j, one := range locality.GetLbEndpoints() {
			where := item(field(at, "lb_endpoints"), j)
			e := endpointValue(f, where, one)
			e.Zone = zone
			if e.Address.IsValid() && seen[e.Address] {
				f.add(field(where, "endpoint.address"), "%s is there twice", e.Address)
			}
			seen[e.Address] = true
			a.Endpoints = append(a.Endpoints, e)
		}
	}
	if len(a.Endpoints) > MaxEndpoints {
		f.add(field(path, "endpoints"), "has %d endpoints, more than %d", len(a.Endpoints), MaxEndpoints)
	}
	return CanonicalEndpoints(a)
}

// zoneValue reads what a locality says of all its endpoints.
func zoneValue(f *faults, path string, m *endpointv3.LocalityLbEndpoints) string {
	number(f, field(path, "load_balancing_weight"), m.GetLoadBalancingWeight(), 1, 1, unlimited)
	zone := m.GetLocality().GetZone()
	if len(zone) > maxName {
		f.add(field(path, "locality.zone"), "is %d bytes long, more than %d", len(zone), maxName)
	}
	checkText(f, field(path, "locality.zone"), zone)
	return zone
}

func endpointValue(f *faults, path string, m *endpointv3.LbEndpoint) mesh.Endpoint {
	e := mesh.Endpoint{
		Address: endpointAddress(f, field(path, "endpoint.address"), m.GetEndpoint().GetAddress()),
		Weight:  number(f, field(path, "load_balancing_weight"), m.GetLoadBalancingWeight(), 1, 1, maxWeight),
	}
	switch m.GetHealthStatus() {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY, corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_DRAINING:
		e.Health = mesh.Health(m.GetHealthStatus())
	default:
		f.add(field(path, "health_status"), "%s is %s", m.GetHealthStatus(), notSupported)
	}
	if a, ok := m.GetMetadata().GetTypedFilterMetadata()[endpointMetadata]; ok {
		extension := &meshv1.EndpointExtension{}
		at := entry(field(path, "metadata.typed_filter_metadata"), endpointMetadata)
		if !unpack(a, extension) {
			f.add(at, "must be an EndpointExtension")
		}
		if len(extension.GetInstance()) > maxName {
			f.add(field(at, "instance"), "is %d bytes long, more than %d", len(extension.GetInstance()), maxName)
		}
		checkText(f, field(at, "instance"), extension.GetInstance())
		e.Instance, e.Sidecar, e.Knocks = extension.GetInstance(), extension.GetSidecar(), extension.GetTakesKnocks()
	}
	return e
}
