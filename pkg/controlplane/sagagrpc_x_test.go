package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// stock takes part in sagas over gRPC: it reserves and counts, refuses, and does later.
type stock struct {
	sagav1.UnimplementedParticipantServer

	mu    sync.Mutex
	calls []string // guarded by mu; key, attempt, kind and body of each
}

func (s *stock) Call(_ context.Context, q *sagav1.CallRequest) (*sagav1.CallResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf("%s %d %v %s", q.GetIdempotencyKey(), q.GetAttempt(), q.GetKind(), q.GetBody()))
	switch {
	case q.GetOperation() == "refuse":
		return nil, status.Error(codes.FailedPrecondition, "none is left")
	case q.GetOperation() == "later" && q.GetAttempt() == 1:
		return &sagav1.CallResponse{Pending: true}, nil
	}
	return &sagav1.CallResponse{Result: []byte(`{"id":"r-1"}`)}, nil
}

func (s *stock) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, ", ")
}

func serveStock(t *testing.T) (*stock, net.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &stock{}, grpc.NewServer()
	sagav1.RegisterParticipantServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return s, l.Addr()
}

func TestParticipantsOverGRPCAreCalledThroughASidecarAndWithout(t *testing.T) {
	config := loopbackConfig(t)
	config.GRPCAddr = freeAddress(t)
	direct, stopMesh := startSagas(t, config)
	defer stopMesh() // behind the sidecars
	beside, at := serveStock(t)
	runSidecar(t, config.GRPCAddr, sidecar.Workload{Service: "stock", Namespace: "shop", InstanceID: "s1", AppAddr: at.String(), AppProtocol: mesh.ProtocolGRPC})
	alone, at := serveStock(t)
	if status, body := direct("POST", "/v1/namespaces/shop/services/alone/instances",
		fmt.Sprintf(`{"id":"a1","address":"127.0.0.1","ports":[{"number":%d,"protocol":"GRPC"}],"ttl":"60s"}`, portOf(at))); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	eventually(t, "it is registered", func() bool {
		_, body := direct("GET", "/v1/namespaces/shop/services/stock/instances/s1", "")
		return strings.Contains(body, `"HEALTHY"`)
	})
	gate := runSidecar(t, config.GRPCAddr, sidecar.Workload{Service: "gate"})
	config = loopbackConfig(t)
	config.SagaEgress = gate.addresses.Listeners[sidecar.Outbound].String()
	through, _ := startSagas(t, config)
	for way, ask := range map[string]func(method, path, body string) (int, string){"through": through, "direct": direct} {
		for service, called := range map[string]*stock{"stock.shop": beside, "alone.shop:grpc": alone} {
			id := way + "-" + strings.TrimSuffix(service, ":grpc")
			saga := func(id, second string) string {
				return fmt.Sprintf(`{"id":%q,"steps":[
					{"name":"a","action":{"service":%q,"grpc":"later","body":{"n":1}},"compensate":{"service":%q,"grpc":"undo","body":"${steps.a.result.id:-none}"},"retry":{"backoff":"1ms"}},
					{"name":"b","action":{"service":%q,"grpc":%q,"body":"${steps.a.result.id}"}}]}`, id, service, service, service, second)
			}
			for id, second := range map[string]string{id + "-done": "reserve", id + "-undone": "refuse"} {
				if status, body := ask("POST", "/v1/sagas", saga(id, second)); status != 200 {
					t.Fatalf("%d %s", status, body)
				}
				want := map[string]string{"reserve": "completed", "refuse": "compensated"}[second]
				if _, body := ask("GET", "/v1/sagas/"+id+":wait?timeout=20s", ""); stateOf(t, body) != want || second == "refuse" && !strings.Contains(body, "FAILED_PRECONDITION: none is left") {
					t.Errorf("%s: %s", id, body)
				}
			}
			for _, want := range []string{
				`-done/a/action 1 ACTION {"n":1}`, `-done/a/action 2 ACTION {"n":1}`, `-done/b/action 1 ACTION "r-1"`,
				`-undone/b/action 1 ACTION "r-1"`, `-undone/a/compensate 1 COMPENSATE "r-1"`,
			} {
				if n := strings.Count(called.String(), id+want); n != 1 {
					t.Errorf("%s%s was called %d times: %s", id, want, n, called)
				}
			}
		}
		if _, body := ask("POST", "/v1/sagas", `{"id":"a","steps":[{"name":"a","action":{"service":"a","grpc":"b","path":"/"}}]}`); !strings.Contains(body, "either grpc, or method and path") {
			t.Error(body)
		}
	}
}
