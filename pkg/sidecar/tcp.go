package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// tcpUpstream is a local port, and the destination that its connections are relayed to.
type tcpUpstream struct {
	listen      netip.AddrPort // on loopback; port 0: one that is free
	destination string         // canonical
}

// String is how --tcp-upstream would say it with nothing left out, and the name of the
// listener.
func (u tcpUpstream) String() string { return u.listen.String() + "=" + u.destination }

// parseTCPUpstream reads [ADDR:]PORT=SERVICE[.NAMESPACE][:PORT]. Without an address it is
// 127.0.0.1, without a namespace the given one, without a port what the bare name of the
// service stands for.
func parseTCPUpstream(s, namespace string) (tcpUpstream, error) {
	listen, to, ok := strings.Cut(strings.TrimSpace(s), "=")
	if !ok {
		return tcpUpstream{}, errors.New("has no '=': want [ADDR:]PORT=SERVICE[.NAMESPACE][:PORT], such as 5432=db.default:5432")
	}
	if !strings.Contains(listen, ":") {
		listen = "127.0.0.1:" + listen
	}
	host, number, err := net.SplitHostPort(listen)
	if err != nil {
		return tcpUpstream{}, fmt.Errorf("%q is not a port, or an address with one: want 5432, 127.0.0.1:5432 or [::1]:5432", listen)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return tcpUpstream{}, fmt.Errorf("%q is not a port: want 0 to 65535, 0 for one that is free", number)
	}
	if !mesh.IsLoopback(listen) {
		return tcpUpstream{}, fmt.Errorf("%s is not a loopback address: whoever reaches it calls in this workload's name", listen)
	}
	address := netip.AddrFrom4([4]byte{127, 0, 0, 1}) // which localhost is
	if host != "localhost" {
		address = netip.MustParseAddr(host).Unmap() // a loopback address is one
	}
	name, err := mesh.AppendDestination(nil, []byte(to), namespace)
	if err != nil {
		return tcpUpstream{}, fmt.Errorf("%q %w", to, err)
	}
	return tcpUpstream{netip.AddrPortFrom(address, uint16(port)), string(name)}, nil
}

// validateUpstreams tells all that is wrong with the local ports, each with what was said.
func (c Config) validateUpstreams(fault func(string, ...any)) {
	taken := map[netip.AddrPort]string{}
	for flag, address := range map[string]string{"--outbound-addr": c.OutboundAddr, "--admin-addr": c.AdminAddr} {
		if at, err := netip.ParseAddrPort(strings.Replace(address, "localhost", "127.0.0.1", 1)); err == nil && at.Port() != 0 {
			taken[netip.AddrPortFrom(at.Addr().Unmap(), at.Port())] = flag + " " + address
		}
	}
	for _, s := range c.TCPUpstreams {
		u, err := parseTCPUpstream(s, c.Workload.Namespace)
		if err != nil {
			fault("--tcp-upstream %.300q: %w", s, err)
			continue
		}
		if c.takesInbound(u.listen) {
			fault("--tcp-upstream %.300q: %s is taken already, by --inbound-addr %s", s, u.listen, c.InboundAddr)
		}
		if by, is := taken[u.listen]; is {
			fault("--tcp-upstream %.300q: %s is taken already, by %s", s, u.listen, by)
		}
		if u.listen.Port() != 0 {
			taken[u.listen] = fmt.Sprintf("--tcp-upstream %.300q", s)
		}
	}
}

// destinations are those of the local ports, which were validated.
func (c Config) destinations() map[string]bool {
	all := map[string]bool{}
	for _, s := range c.TCPUpstreams {
		if u, err := parseTCPUpstream(s, c.Workload.Namespace); err == nil {
			all[u.destination] = true
		}
	}
	return all
}

// takesInbound reports whether the inbound listener takes an address.
func (c Config) takesInbound(a netip.AddrPort) bool {
	host, port, err := net.SplitHostPort(c.InboundAddr)
	if c.Workload.AppAddr == "" || err != nil || port == "0" || port != strconv.Itoa(int(a.Port())) {
		return false
	}
	at, err := netip.ParseAddr(host)
	return host == "" || err == nil && (at.IsUnspecified() || at.Unmap() == a.Addr())
}

// relayed counts relayed connections, once there are any.
func (s *sidecar) relayed() *metrics.TCP {
	if s.tcp == nil {
		s.tcp = metrics.NewTCP(s.metrics, reason.Codes())
	}
	return s.tcp
}

// relay opens a listener whose connections are relayed, or handed to those behind it.
func (s *sidecar) relay(name, address string, config tcp.Config, behind ...listener) error {
	config.Clock, config.Access = s.clock, s.access
	config.Unrouted = s.relayed().Destination(config.Source, unknown)
	config.MaxPipes = maxPipes(descriptors(), s.ports)
	relay := tcp.New(config)
	s.onAbandon(relay.Close)
	s.group.Add("relay "+name, func(ctx context.Context) error {
		<-ctx.Done() // after its listener's
		relay.Close()
		return nil
	})
	front := proxy.Config{Accept: func(nc net.Conn) proxy.Connection { return relay.Accept(nc) }}
	for _, l := range behind {
		front.Behind = append(front.Behind, l.server)
	}
	if err := s.bind(name, address, front); err != nil {
		return err
	}
	s.listeners[len(s.listeners)-1].behind = behind
	return nil
}

// openUpstreams opens the local ports that lead to destinations of the mesh.
func (s *sidecar) openUpstreams(router catalog.Router) error {
	for _, said := range s.config.TCPUpstreams {
		u, err := parseTCPUpstream(said, s.config.Workload.Namespace)
		if err != nil {
			return fmt.Errorf("--tcp-upstream %q: %w", said, err)
		}
		r := &road{sidecar: s, router: router, name: []byte(u.destination), path: []byte{'/'}}
		if err := s.relay(u.String(), u.listen.String(), tcp.Config{Find: r.find, Authority: r.name, Source: s.config.Workload.name()}); err != nil {
			return fmt.Errorf("--tcp-upstream %q: %w", said, err)
		}
		s.set.Own(s.listeners[len(s.listeners)-1].net.Addr().(*net.TCPAddr).AddrPort())
	}
	return nil
}

// road leads the connections of a local port to a destination, which is learnt when the
// first of them comes, and kept. It is safe for concurrent use.
type road struct {
	sidecar *sidecar
	router  catalog.Router
	name    []byte // of the destination
	path    []byte // of the requests that go where connections do, if they do

	last atomic.Pointer[paved]
}

// paved is a road as the newest table has it.
type paved struct {
	entry *table.Entry
	route *tcp.Route
}

// find returns the route to the destination. Of one that takes requests, it is where those
// for / go: what its instances, or their sidecars, speak are bytes too.
func (r *road) find(ctx context.Context) (*tcp.Route, reason.Reason) {
	e, why, wait := r.router.Route(r.name, r.path, r.sidecar.clock())
	if wait {
		e, why = r.router.Await(ctx, r.name, r.path)
	}
	if why != reason.None {
		return nil, why
	}
	if e.Relay != nil {
		e = e.Relay
	}
	if e.Direct != nil {
		return nil, reason.DirectResponse
	}
	if last := r.last.Load(); last != nil && last.entry == e {
		return last.route, reason.None
	}
	route := &tcp.Route{
		Name:        e.Route,
		Source:      e.Source,
		Destination: e.Destination,
		Cluster:     e.Cluster,
		Counted:     r.sidecar.relayed().Destination(e.Source, e.Destination),
		IdleTimeout: r.sidecar.config.TunnelIdleTimeout,
		Attempts:    mesh.DefaultConnectAttempts,
	}
	if e.TCP != nil {
		route.IdleTimeout = shorter(route.IdleTimeout, e.TCP.IdleTimeout)
		route.Attempts = int(e.TCP.ConnectAttempts)
	}
	r.last.Store(&paved{e, route})
	return route, reason.None
}

// shorter returns the shorter of two bounds, of which the second may be 0, for none.
func shorter(a, b time.Duration) time.Duration {
	if b == 0 {
		return a
	}
	return min(a, b)
}

// relayInbound opens the listener that relays connections to an application that takes no
// requests.
func (s *sidecar) relayInbound(app *upstream.Cluster) error {
	service := s.config.Workload.name()
	routes := &tcp.Routes{}
	if err := routes.Add(tcp.Match{}, &tcp.Route{
		Source:      s.source(Inbound),
		Destination: service,
		Cluster:     app,
		Counted:     s.relayed().Destination(s.source(Inbound), service),
		IdleTimeout: s.config.TunnelIdleTimeout,
		Attempts:    1, // there is one application
	}); err != nil {
		return err
	}
	return s.relay(Inbound, s.config.InboundAddr, tcp.Config{Routes: routes, Source: s.source(Inbound), Knocks: true})
}
