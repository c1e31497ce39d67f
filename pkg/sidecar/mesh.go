package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/xds/client"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// controlPlaneKeepalive finds a control plane that fell silent within 15 s.
func controlPlaneKeepalive() keepalive.ClientParameters {
	return keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}
}

// maxMessage bounds a response of the control plane.
const maxMessage = 64 << 20

// joinMesh connects to the control plane and opens the sidecar's listeners.
func (s *sidecar) joinMesh() error {
	conn, err := grpc.NewClient(s.config.ControlPlane,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(controlPlaneKeepalive()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUserAgent("fairlead-sidecar/"+flags.Version()))
	if err != nil {
		return fmt.Errorf("--control-plane: %w", err)
	}
	s.onAbandon(func() { _ = conn.Close() })
	s.group.Add("control plane connection", func(ctx context.Context) error {
		<-ctx.Done()
		return conn.Close()
	})
	s.subscribeTo(conn)
	router := catalog.Router{Catalog: s.catalog, Namespace: s.config.Workload.Namespace}
	if err := s.listen(Outbound, s.config.OutboundAddr, router); err != nil {
		return err
	}
	s.set.Own(s.listeners[len(s.listeners)-1].net.Addr().(*net.TCPAddr).AddrPort())
	if err := s.openUpstreams(router); err != nil {
		return err
	}
	if s.config.Workload.AppAddr == "" {
		return nil
	}
	return s.openInbound(conn)
}

// subscribeTo starts the catalog and the xDS client that fills it.
func (s *sidecar) subscribeTo(conn grpc.ClientConnInterface) {
	w := s.config.Workload
	connected := s.ready.Condition("control plane", "the first connection to the control plane")
	s.xds = client.New(client.Config{
		Node: &core.Node{
			Id:            w.InstanceID + "." + w.name(),
			Cluster:       w.name(),
			Locality:      &core.Locality{Zone: w.Zone},
			UserAgentName: "fairlead-sidecar",
		},
		Conn:      conn,
		Apply:     s.apply,
		OnConnect: connected.Done,
		Log:       s.log,
	})
	s.catalog = catalog.New(catalog.Config{Source: w.name(), Keep: s.config.destinations()}, s.set, s.proxy, subscriptions{s.xds}, s.clock, s.log)
	s.onAbandon(s.catalog.Close)
	s.group.Add("catalog", func(ctx context.Context) error {
		<-ctx.Done()
		s.catalog.Close()
		return nil
	})
	s.group.Add("xds", s.xds.Run)
}

// subscriptions lets the catalog ask the xDS client.
type subscriptions struct{ c *client.Client }

func (s subscriptions) Subscribe(k catalog.Kind, names ...string) {
	s.c.Subscribe(typeOf(k).URL(), names...)
}

func (s subscriptions) Unsubscribe(k catalog.Kind, names ...string) {
	s.c.Unsubscribe(typeOf(k).URL(), names...)
}

func (s subscriptions) Connected() bool { return s.c.Status().Connected }

func typeOf(k catalog.Kind) codec.Type {
	switch k {
	case catalog.Listeners:
		return codec.TypeListener
	case catalog.Routes:
		return codec.TypeRoute
	case catalog.Clusters:
		return codec.TypeCluster
	default:
		return codec.TypeEndpoints
	}
}

// apply decodes an update and puts it in force; the client acknowledges it when
// this returns.
func (s *sidecar) apply(u client.Update) []client.Rejection {
	var update catalog.Update
	var bad []client.Rejection
	t, known := codec.ParseType(u.TypeURL)
	if !known {
		return nil // nothing of it was asked for
	}
	for k := catalog.Listeners; k <= catalog.Endpoints; k++ {
		if typeOf(k) == t {
			update.Kind = k
		}
	}
	for _, r := range u.Resources {
		if err := decode(&update, t, r); err != nil {
			bad = append(bad, client.Rejection{Name: r.Name, Reason: err.Error()})
		}
	}
	update.Removed = u.Removed
	for name, err := range s.catalog.Apply(update) {
		bad = append(bad, client.Rejection{Name: name, Reason: err.Error()})
	}
	return bad
}

func decode(u *catalog.Update, t codec.Type, r client.Resource) error {
	switch t {
	case codec.TypeListener:
		return decodeInto(&u.Listeners, codec.DecodeListener, r)
	case codec.TypeRoute:
		return decodeInto(&u.Routes, codec.DecodeRoute, r)
	case codec.TypeCluster:
		return decodeInto(&u.Clusters, codec.DecodeCluster, r)
	default:
		return decodeInto(&u.Endpoints, codec.DecodeEndpoints, r)
	}
}

// openInbound opens the listener that leads to the application, and registers the
// workload.
func (s *sidecar) openInbound(conn *grpc.ClientConn) error {
	w := s.config.Workload
	app, err := netip.ParseAddrPort(w.AppAddr)
	if err != nil {
		resolved, lookupErr := net.ResolveTCPAddr("tcp", w.AppAddr)
		if lookupErr != nil {
			return fmt.Errorf("--app-addr: %w", lookupErr)
		}
		app = resolved.AddrPort()
	}
	protocol := w.AppProtocol
	if protocol == mesh.ProtocolTCP {
		protocol = mesh.ProtocolUnspecified // of requests, of which there are none
	}
	cluster, err := s.set.Apply(mesh.Cluster{
		Name:           "app",
		Protocol:       protocol,
		ConnectTimeout: time.Second,
		// Peers have breakers for this instance; one here would hide from them what
		// the application answers.
		Breaker: mesh.Breaker{Disabled: true},
		Static: &mesh.LoadAssignment{Cluster: "app", Endpoints: []mesh.Endpoint{
			{Instance: w.InstanceID, Address: app, Weight: 1, Zone: w.Zone},
		}},
	})
	if err != nil {
		return err
	}
	if err := s.listenInbound(cluster); err != nil {
		return err
	}
	inbound := s.listeners[len(s.listeners)-1].net.Addr()
	for _, l := range s.listeners {
		own := l.net.Addr().(*net.TCPAddr).AddrPort()
		same := own.Addr().Unmap() == app.Addr().Unmap() || own.Addr().IsUnspecified() && app.Addr().Unmap().IsLoopback()
		if same && own.Port() == app.Port() {
			return fmt.Errorf("--app-addr %s is the sidecar's own %s address, not its application's", w.AppAddr, l.name)
		}
	}
	address, port, err := advertised(w.AdvertiseAddr, inbound, s.config.ControlPlane)
	if err != nil {
		return fmt.Errorf("--advertise-addr: %w", err)
	}
	s.attachment = newAttachment(conn, instanceOf(w, address, port, app.Port()), s.log)
	s.attachment.reconnect = conn.ResetConnectBackoff
	return nil
}

// listenInbound opens the listener that leads to the application. Where that is not said to
// speak HTTP, what does not begin as HTTP does is relayed to it.
func (s *sidecar) listenInbound(app *upstream.Cluster) error {
	w := s.config.Workload
	router := table.NewInbound(app, w.name(), s.proxy)
	switch {
	case w.AppProtocol == mesh.ProtocolTCP:
		return s.relayInbound(app)
	case !w.DetectProtocol:
		return s.listen(Inbound, s.config.InboundAddr, router)
	}
	http := s.behind(Inbound, s.serverConfig(Inbound, s.source(Inbound), router, mesh.HTTPOptions{}))
	relayed := &tcp.Route{
		Name:        Inbound,
		Source:      unknown,
		Destination: w.name(),
		Cluster:     app,
		Counted:     s.relayed().Destination(unknown, w.name()),
		IdleTimeout: s.config.TunnelIdleTimeout,
		Attempts:    1,
	}
	routes := &tcp.Routes{}
	if err := errors.Join(
		routes.Add(tcp.Match{Transport: tcp.RawBuffer, Protocols: []string{"http/1.0", "http/1.1", "h2c"}}, &tcp.Route{HTTP: http.net.(*handoff).give}),
		routes.Add(tcp.Match{Transport: tcp.RawBuffer}, relayed),
		routes.Add(tcp.Match{Transport: tcp.TLS}, relayed),
	); err != nil {
		return err
	}
	return s.relay(Inbound, s.config.InboundAddr, tcp.Config{
		Routes:         routes,
		Source:         unknown,
		TLS:            true,
		HTTP:           true,
		Continue:       true,
		PrefaceTimeout: mesh.DefaultListenerTimeout,
	}, http)
}

// advertised returns by which address and port peers reach the inbound listener.
func advertised(flag string, inbound net.Addr, controlPlane string) (netip.Addr, uint16, error) {
	port := inbound.(*net.TCPAddr).AddrPort().Port()
	if flag != "" {
		return parseAdvertised(flag, port)
	}
	own := inbound.(*net.TCPAddr).AddrPort().Addr()
	if own.IsUnspecified() {
		// No packet is sent: the kernel only says which address it would send from.
		probe, err := net.Dial("udp", controlPlane)
		if err != nil {
			return netip.Addr{}, 0, err
		}
		defer func() { _ = probe.Close() }()
		own = probe.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	}
	if !reachable(own.Unmap()) {
		return netip.Addr{}, 0, fmt.Errorf("%s is not an address that peers can reach: say by which they do", own)
	}
	return own.Unmap(), port, nil
}

// reachable reports whether peers may be able to reach an address, which is not an
// IPv4 address in IPv6 form: the registry refuses others.
func reachable(a netip.Addr) bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" && a != broadcast
}

// parseAdvertised reads an IP address with or without a port. Port 0 is no port: the
// registry has it for instances without a sidecar.
func parseAdvertised(s string, port uint16) (netip.Addr, uint16, error) {
	address, err := netip.ParseAddr(s)
	if both, bad := netip.ParseAddrPort(s); bad == nil {
		address, port, err = both.Addr(), both.Port(), nil
	}
	address = address.Unmap()
	switch {
	case err != nil:
		return address, 0, fmt.Errorf("%q is not an IP address, or one with a port such as 10.0.0.1:15006", s)
	case !reachable(address):
		return address, 0, fmt.Errorf("%q is not an address that peers can reach", s)
	case port == 0:
		return address, 0, fmt.Errorf("%q has port 0, not 1 to 65535", s)
	}
	return address, port, nil
}

// decodeInto decodes a resource and appends it to what an update brings.
func decodeInto[T any](list *[]T, decode func(*anypb.Any) (T, error), r client.Resource) error {
	v, err := decode(r.Body)
	if err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}
