package codec

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/xds"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// ads is the least that grpc-go takes for a control plane: the state of the world
// (SotW), each answer once.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	resources map[string]Encoded // by URL and name; not changed while serving

	mu    sync.Mutex
	nacks []string
	acked map[string]bool // by URL
}

func (s *ads) add(e Encoded) { s.resources[e.Type.URL()+" "+e.Name] = e }

func (s *ads) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	asked := map[string][]string{}
	for nonce := 1; ; nonce++ {
		r, err := stream.Recv()
		if err != nil {
			return err // the client is gone
		}
		s.mu.Lock()
		if r.GetErrorDetail() != nil {
			s.nacks = append(s.nacks, r.GetErrorDetail().GetMessage())
		} else if r.GetResponseNonce() != "" {
			s.acked[r.GetTypeUrl()] = true
		}
		s.mu.Unlock()
		names := slices.Sorted(slices.Values(r.GetResourceNames()))
		if slices.Equal(names, asked[r.GetTypeUrl()]) {
			continue
		}
		asked[r.GetTypeUrl()] = names
		answer := &discoveryv3.DiscoveryResponse{TypeUrl: r.GetTypeUrl(), VersionInfo: fmt.Sprint(nonce), Nonce: fmt.Sprint(nonce)}
		for _, name := range names {
			if e, ok := s.resources[r.GetTypeUrl()+" "+name]; ok {
				answer.Resources = append(answer.Resources, e.Any())
			}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// refused returns what the client refused, and whether it accepted something of
// all four types.
func (s *ads) refused() (nacks []string, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nacks), len(s.acked) == 4
}

// serve runs a gRPC server on a free port until the test ends.
func serve(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func serveHealth(t *testing.T) netip.AddrPort {
	return netip.MustParseAddrPort(serve(t, func(s *grpc.Server) { healthv1.RegisterHealthServer(s, health.NewServer()) }))
}

// client returns an xDS resolver of grpc-go for the control plane at address.
func client(t *testing.T, address string) resolver.Builder {
	t.Helper()
	b, err := xds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil,
		`{"xds_servers":[{"server_uri":%q,"channel_creds":[{"type":"insecure"}]}],"node":{"id":"test"}}`, address))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// addService gives the control plane the four resources of a service.
func (s *ads) addService(name string, c mesh.Cluster, timeout time.Duration, endpoints []mesh.Endpoint) {
	c.Name = name + ":grpc"
	s.add(must(EncodeListener(mesh.Listener{Name: name, RouteName: name})))
	s.add(must(EncodeRoute(mesh.RouteConfiguration{Name: name, VirtualHosts: []mesh.VirtualHost{{
		Name: name, Domains: []string{name, "*"},
		Routes: []mesh.Route{{Match: mesh.RouteMatch{Prefix: "/"}, Action: mesh.RouteAction{Cluster: c.Name, Timeout: timeout}}},
	}}})))
	s.add(must(EncodeCluster(c)))
	s.add(must(EncodeEndpoints(mesh.LoadAssignment{Cluster: c.Name, Endpoints: endpoints})))
}

func TestGRPCAcceptsAndUsesEveryPolicyAndBreaker(t *testing.T) {
	hosts := []mesh.Endpoint{
		{Address: serveHealth(t), Weight: 1, Zone: "a", Instance: "i-1", Health: mesh.HealthHealthy},
		{Address: serveHealth(t), Weight: maxWeight, Sidecar: true},
	}
	control := &ads{resources: map[string]Encoded{}, acked: map[string]bool{}}
	targets := []string{"orders.default"}
	control.addService("orders.default", mesh.Cluster{ConnectTimeout: time.Second}, mesh.DefaultRequestTimeout, hosts)

	breakers := []mesh.Breaker{{}, {Disabled: true}, {
		ConsecutiveFailures: maxConsecutive, FailurePercent: 100, MinimumRequests: maxMinimum, Window: maxWindow,
		OpenTime: maxOpen, MaxOpenTime: maxMaxOpen, HalfOpenRequests: maxProbes, MaxEjectionPercent: 100,
	}, {
		ConsecutiveFailures: 1, FailurePercent: 1, MinimumRequests: 1, Window: minWindow,
		OpenTime: minOpen, MaxOpenTime: minOpen, HalfOpenRequests: 1, MaxEjectionPercent: 1,
	}}
	for lb := mesh.LBLeastRequest; lb <= mesh.LBRandom; lb++ {
		for i, b := range breakers {
			name := fmt.Sprintf("orders.lb-%d-breaker-%d", lb, i)
			control.addService(name, mesh.Cluster{
				LB: lb, Breaker: b, Protocol: mesh.ProtocolGRPC, ConnectTimeout: time.Second,
				MaxRequests: uint32(i) * 10, MaxConnections: uint32(i) * 10,
			}, 0, hosts)
			targets = append(targets, name)
		}
	}
	for seed := range uint64(50) {
		s, name := newSource(seed), fmt.Sprintf("orders.random-%d", seed)
		c := s.cluster()
		c.ProxyProtocol = 0        // which grpc-go does not speak
		c.TLS, c.Static = nil, nil // grpc-go takes certificates from providers of its own (gRFC A29)
		if c.ALPN {                // which TLS would have asked for: the options of connections need a protocol
			c.ALPN, c.Protocol = false, mesh.ProtocolHTTP2
		}
		control.addService(name, c, time.Minute, hosts)
		targets = append(targets, name)
	}
	address := serve(t, func(s *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, control) })
	builder := client(t, address)
	for _, target := range targets {
		callHealth(t, builder, target)
	}
	if nacks, complete := control.refused(); len(nacks) > 0 || !complete {
		t.Errorf("accepted all four types: %v; refused: %q", complete, nacks)
	}
}

func callHealth(t *testing.T, builder resolver.Builder, target string) {
	t.Helper()
	conn, err := grpc.NewClient("xds:///"+target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	// With the last connection the client ends, and says then that it refuses what comes meanwhile.
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 4 {
		if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("%s: %v", target, err)
			return
		}
	}
}

// A route's timeout is the deadline that grpc-go gives a call without one.
func TestGRPCTakesTheRoutesTimeoutForItsDeadline(t *testing.T) {
	deadlines := make(chan bool, 2)
	server := serve(t, func(s *grpc.Server) {
		healthv1.RegisterHealthServer(s, deadlineServer{deadlines: deadlines})
	})
	hosts := []mesh.Endpoint{{Address: netip.MustParseAddrPort(server), Weight: 1}}
	control := &ads{resources: map[string]Encoded{}, acked: map[string]bool{}}
	control.addService("bounded.default", mesh.Cluster{ConnectTimeout: time.Second}, time.Hour, hosts)
	control.addService("unbounded.default", mesh.Cluster{ConnectTimeout: time.Second}, 0, hosts)
	builder := client(t, serve(t, func(s *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, control) }))
	for target, want := range map[string]bool{"bounded.default": true, "unbounded.default": false} {
		conn, err := grpc.NewClient("xds:///"+target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("%s: %v", target, err)
		} else if got := <-deadlines; got != want {
			t.Errorf("%s: the call has a deadline: %v", target, got)
		}
		_ = conn.Close()
	}
}

// deadlineServer reports whether calls came with a deadline.
type deadlineServer struct {
	healthv1.UnimplementedHealthServer
	deadlines chan<- bool
}

func (s deadlineServer) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	_, ok := ctx.Deadline()
	s.deadlines <- ok
	return &healthv1.HealthCheckResponse{}, nil
}
