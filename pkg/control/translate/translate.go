// Package translate turns what the registry and the operators say of a service
// into the resources that data planes ask for. It is a pure function: the same
// service gives the same resources, whichever replica translates it.
//
// A service has, for each of its ports, a Cluster and a LoadAssignment named
// name.namespace:port, a Listener of the same name, and the Listener once more under
// the port's number. Of an HTTP port the Listener leads to a RouteConfiguration of that name;
// of a TCP port it relays connections to the cluster, and answers requests that there is no
// HTTP port. The first HTTP port stands for
// the bare name; without one, the first TCP port does. That is the chain that sidecars and proxyless gRPC ask for, by
// name: Listener, RouteConfiguration, Cluster, LoadAssignment.
package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// Service is what is known of one.
type Service struct {
	Name      mesh.ServiceName
	Ports     []Port // that its instances have or had
	Instances []Instance
	Policy    Policy
}

// Port of a service.
type Port struct {
	Name     string
	Number   uint16
	Protocol mesh.Protocol
}

// Instance of a service.
type Instance struct {
	ID      string
	Address netip.Addr
	Ports   []Port
	// Inbound is the port of its sidecar; 0: it has none, and is reached directly.
	Inbound uint16
	// Knocks says that it answers knocks at its TCP ports.
	Knocks bool
	Weight uint32
	Zone   string
	Health mesh.Health
}

// Policy is what operators want of the calls to a service.
type Policy struct {
	LB      mesh.LBPolicy
	Breaker mesh.Breaker
	// RequestTimeout of a request; negative: none; 0: the default.
	RequestTimeout time.Duration
}

// For returns the resources of a service. An error names what cannot be said.
func For(s Service) ([]codec.Encoded, error) {
	var all []codec.Encoded
	bare := slices.IndexFunc(s.Ports, func(p Port) bool { return p.Protocol.IsHTTP() })
	if bare < 0 {
		bare = slices.IndexFunc(s.Ports, func(p Port) bool { return p.Protocol == mesh.ProtocolTCP })
	}
	for i, p := range s.Ports {
		if !p.Protocol.IsHTTP() && p.Protocol != mesh.ProtocolTCP {
			continue
		}
		of, err := port(s, p)
		if err != nil {
			return nil, fmt.Errorf("service %s: port %s: %w", s.Name, p.Name, err)
		}
		all = append(all, of...)
		names := []string{mesh.ClusterName(s.Name, p.Name), mesh.Destination{Service: s.Name, Port: strconv.Itoa(int(p.Number))}.String()}
		if i == bare {
			names = append(names, s.Name.String())
		}
		for _, name := range names {
			l, err := codec.EncodeListener(listener(name, s.Name, p))
			if err != nil {
				return nil, fmt.Errorf("service %s: %w", s.Name, err)
			}
			all = append(all, l)
		}
	}
	slices.SortStableFunc(all, func(a, b codec.Encoded) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	// Two ports may share a number if instances disagree: the first one has it.
	return slices.CompactFunc(all, func(a, b codec.Encoded) bool { return a.Type == b.Type && a.Name == b.Name }), nil
}

// listener is one of the names of a port, which leads to the port's cluster. How long a
// relayed connection may be idle is left to those who relay it. What requests to a TCP port
// meet with is also for clients that know of nothing else.
func listener(name string, service mesh.ServiceName, p Port) mesh.Listener {
	cluster := mesh.ClusterName(service, p.Name)
	if p.Protocol != mesh.ProtocolTCP {
		return mesh.Listener{Name: name, RouteName: cluster}
	}
	says := "service " + service.String() + " has no HTTP port\n"
	if name != service.String() {
		says = "port " + p.Name + " of service " + service.String() + " is for TCP, no HTTP port: --tcp-upstream and CONNECT lead to it\n"
	}
	return mesh.Listener{
		Name: name,
		TCP:  []mesh.TCPChain{{TCP: mesh.TCPProxy{Cluster: cluster}}},
		Route: &mesh.RouteConfiguration{Name: name, VirtualHosts: []mesh.VirtualHost{{
			Name:    name,
			Domains: []string{"*"},
			Routes: []mesh.Route{{
				Match:  mesh.RouteMatch{Prefix: "/"},
				Action: mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 503, Body: says}},
			}},
		}}},
	}
}

// port returns what the names of one port lead to.
func port(s Service, p Port) ([]codec.Encoded, error) {
	name := mesh.ClusterName(s.Name, p.Name)
	c, errCluster := codec.EncodeCluster(mesh.Cluster{
		Name:           name,
		Protocol:       clusterProtocol(p.Protocol),
		LB:             s.Policy.LB,
		Breaker:        s.Policy.Breaker,
		ConnectTimeout: mesh.DefaultConnectTimeout,
	})
	endpoints, _ := codec.UniqueAddresses(s.Endpoints(p.Name))
	e, errEndpoints := codec.EncodeEndpoints(mesh.LoadAssignment{Cluster: name, Endpoints: endpoints})
	if p.Protocol == mesh.ProtocolTCP {
		return []codec.Encoded{c, e}, cmp.Or(errCluster, errEndpoints)
	}
	r, errRoute := codec.EncodeRoute(mesh.RouteConfiguration{Name: name, VirtualHosts: []mesh.VirtualHost{{
		Name:    name,
		Domains: []string{"*"}, // the listener is asked for by name: it is the name that matched
		Routes: []mesh.Route{{
			Match:  mesh.RouteMatch{Prefix: "/"},
			Action: mesh.RouteAction{Cluster: name, Timeout: s.Policy.timeout()},
		}},
	}}})
	return []codec.Encoded{r, c, e}, cmp.Or(errRoute, errCluster, errEndpoints)
}

// clusterProtocol is how a cluster is told to speak: gRPC is HTTP/2, and of TCP nothing is
// to be said.
func clusterProtocol(p mesh.Protocol) mesh.Protocol {
	switch p {
	case mesh.ProtocolGRPC:
		return mesh.ProtocolHTTP2
	case mesh.ProtocolTCP:
		return mesh.ProtocolUnspecified
	}
	return p
}

func (p Policy) timeout() time.Duration {
	switch {
	case p.RequestTimeout < 0:
		return 0
	case p.RequestTimeout == 0:
		return mesh.DefaultRequestTimeout
	default:
		return p.RequestTimeout
	}
}

// Endpoints lists where the instances take the requests of a port: at their
// sidecar, where they have one.
func (s Service) Endpoints(portName string) []mesh.Endpoint {
	var all []mesh.Endpoint
	for _, i := range s.Instances {
		for _, p := range i.Ports {
			if p.Name != portName {
				continue
			}
			e := mesh.Endpoint{Instance: i.ID, Address: netip.AddrPortFrom(i.Address, p.Number), Weight: i.Weight, Zone: i.Zone, Health: i.Health}
			if i.Inbound != 0 {
				e.Address, e.Sidecar = netip.AddrPortFrom(i.Address, i.Inbound), true
				e.Knocks = i.Knocks && p.Protocol == mesh.ProtocolTCP
			}
			all = append(all, e)
		}
	}
	return all
}
