package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
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
		call(t, http.MethodPost, orders+"/instances", fmt.Sprintf(
			`{"id":%q,"address":"127.0.0.1","ports":[{"name":"grpc","number":%d,"protocol":"GRPC"}],"ttl":"60s"}`, id, port))
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

	api := dialXDS(t, addresses, "shop-2", "orders.default")
	answered(t, api)
	call(t, http.MethodDelete, orders+"/instances/a1", "")
	eventually(t, "an instance that is gone is not called", func() bool {
		for range 20 {
			if answered(t, api) == ports["a1"] {
				return false
			}
		}
		return true
	})
}
