package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
)

// healthServer runs a gRPC server and returns its port.
func healthServer(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, health.NewServer())
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return l.Addr().(*net.TCPAddr).Port
}

// dialXDS dials a target of the mesh with grpc-go's own xDS client.
func dialXDS(t *testing.T, addresses controlplane.Addresses, node, target string) healthv1.HealthClient {
	t.Helper()
	builder, err := xds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil, `{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": %q, "cluster": "shop.default"}}`, addresses.GRPC.String(), node))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+target, grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthv1.NewHealthClient(conn)
}

// answered calls, and returns the port that answered.
func answered(t *testing.T, api healthv1.HealthClient) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var p peer.Peer
	if _, err := api.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	return p.Addr.(*net.TCPAddr).Port
}

func TestProxylessGRPCFindsAndBalancesWhatIsRegisteredOverREST(t *testing.T) {
	addresses := runControlPlane(t)
	orders := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders"
	ports := map[string]int{"a1": healthServer(t), "a2": healthServer(t)}
	for id, port := range ports {
		registerGRPC(t, addresses, id, port, "")
	}
	for _, target := range []string{"orders.default", "orders.default:grpc"} {
		api := dialXDS(t, addresses, "shop-1", target)
		for _, policy := range []string{
			`{"loadBalancing":"LEAST_REQUEST"}`, `{"loadBalancing":"ROUND_ROBIN","requestTimeout":"3s"}`, `{"loadBalancing":"WEIGHTED_ROUND_ROBIN"}`,
			`{"loadBalancing":"RANDOM","requestTimeout":"0s","breaker":{"consecutiveFailures":2,"failurePercent":10,"openTime":"1s","maxOpenTime":"5s"}}`,
			`{"breaker":{"disabled":true}}`,
		} {
			call(t, http.MethodPut, orders+"/policy", policy)
			seen := map[int]bool{}
			eventually(t, "both instances of "+target+" are called with "+policy, func() bool {
				seen[answered(t, api)] = true
				return len(seen) == len(ports)
			})
		}
	}
	if refused := rejected(t, "http://"+addresses.HTTP.String(), "shop-1"); refused != "" {
		t.Errorf("grpc-go refused: %s", refused)
	}
}

// registerGRPC registers an instance that speaks gRPC, with a minute to live.
func registerGRPC(t *testing.T, addresses controlplane.Addresses, id string, port int, more string) {
	t.Helper()
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances", fmt.Sprintf(
		`{"id":%q,"address":"127.0.0.1","ports":[{"name":"grpc","number":%d,"protocol":"GRPC"}],"ttl":"60s"%s}`, id, port, more))
}

// shares calls so many times and counts who answered.
func shares(t *testing.T, api healthv1.HealthClient, calls int) map[int]int {
	t.Helper()
	count := map[int]int{}
	for range calls {
		count[answered(t, api)]++
	}
	return count
}

// grpc-go's round robin is even: of weights it takes only those of localities.
func TestProxylessGRPCSharesCallsAmongThoseThatAreWell(t *testing.T) {
	addresses := runControlPlane(t)
	well, unchecked, unwell, draining := healthServer(t), healthServer(t), healthServer(t), healthServer(t)
	registerGRPC(t, addresses, "unwell", unwell, `,"status":"UNHEALTHY"`)
	registerGRPC(t, addresses, "draining", draining, `,"status":"DRAINING"`)
	registerGRPC(t, addresses, "well", well, `,"status":"HEALTHY"`)
	registerGRPC(t, addresses, "unchecked", unchecked, "")
	call(t, http.MethodPut, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/policy", `{"loadBalancing":"ROUND_ROBIN"}`)
	api := dialXDS(t, addresses, "shop-1", "orders.default")
	eventually(t, "both usable instances are called", func() bool { return len(shares(t, api, 4)) == 2 })
	if count := shares(t, api, 40); count[well] != 20 || count[unchecked] != 20 {
		t.Errorf("calls by port: %v", count)
	}
	if refused := rejected(t, "http://"+addresses.HTTP.String(), "shop-1"); refused != "" {
		t.Errorf("grpc-go refused: %s", refused)
	}
}

func TestProxylessGRPCLosesNoCallWhenAnInstanceDeregistersOrJoins(t *testing.T) {
	addresses := runControlPlane(t)
	ports := map[string]int{"a1": healthServer(t), "a2": healthServer(t), "a3": healthServer(t)}
	for _, id := range []string{"a1", "a2"} {
		registerGRPC(t, addresses, id, ports[id], "")
	}
	api := dialXDS(t, addresses, "shop-1", "orders.default")
	eventually(t, "both are called", func() bool { return len(shares(t, api, 8)) == 2 })
	var called [3]atomic.Int64
	asked, end := steadily(t, 4, func() (int, string, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var p peer.Peer
		// Without wait-for-ready: a call that finds no instance fails.
		if _, err := api.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
			return 0, "", err.Error()
		}
		for n, id := range []string{"a1", "a2", "a3"} {
			if ports[id] == portOf(p.Addr) {
				called[n].Add(1)
			}
		}
		return http.StatusOK, "", ""
	})
	eventually(t, "calls are under way", func() bool { return asked.Load() > 50 })
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances/a1", "")
	eventually(t, "the one that is gone is called no more", func() bool {
		was, before := called[0].Load(), asked.Load()
		eventually(t, "calls go on", func() bool { return asked.Load() > before+50 })
		return called[0].Load() == was
	})
	registerGRPC(t, addresses, "a3", ports["a3"], "")
	eventually(t, "the one that joined is called", func() bool { return called[2].Load() > 10 })
	end()
}

func TestProxylessGRPCFailsAtOnceWhileAServiceHasNoInstance(t *testing.T) {
	addresses := runControlPlane(t)
	registerGRPC(t, addresses, "a1", 1, "")
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances/a1", "")
	api := dialXDS(t, addresses, "shop-1", "orders.default")
	if err := failure(t, api, 5*time.Second); status.Code(err) != codes.Unavailable {
		t.Errorf("without instances: %v", err)
	}
	port := healthServer(t)
	registerGRPC(t, addresses, "a2", port, "")
	if got := answered(t, api); got != port {
		t.Errorf("port %d answered, not %d", got, port)
	}
}

// grpc-go gives a name that it has never seen 15 s before it takes it for unknown,
// whatever it was answered (gRFC A27).
func TestProxylessGRPCIsToldThatANameIsUnknown(t *testing.T) {
	slowly(t)
	addresses := runControlPlane(t)
	if err := failure(t, dialXDS(t, addresses, "shop-1", "never.default"), 20*time.Second); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

// failure calls, without waiting for an instance to come, and returns how that failed.
func failure(t *testing.T, api healthv1.HealthClient, bound time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	_, err := api.Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}
