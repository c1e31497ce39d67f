package controlplane_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// connected is what the API says of an xDS client.
type connected struct {
	Node, Service string
	Types         []struct {
		TypeURL           string `json:"typeUrl"`
		Subscribed        int
		Applied, Rejected []struct{ Name, Version, Reason string }
	}
}

// sidecars lists the connected xDS clients, by the API.
func sidecars(t *testing.T, addresses controlplane.Addresses) []connected {
	t.Helper()
	var list struct{ Sidecars []connected }
	if err := json.Unmarshal([]byte(ask("http://"+addresses.HTTP.String()+"/v1/sidecars")), &list); err != nil {
		t.Fatal(err)
	}
	return list.Sidecars
}

// applied names what the client of a service has applied, types in their order.
func applied(t *testing.T, addresses controlplane.Addresses, service string) string {
	t.Helper()
	var names []string
	for _, s := range sidecars(t, addresses) {
		if s.Service != service {
			continue
		}
		for _, typ := range s.Types {
			for _, a := range typ.Applied {
				names = append(names, a.Name)
			}
		}
	}
	return strings.Join(names, " ")
}

// rawClient is a delta ADS client that says what the test tells it to.
type rawClient struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *core.Node
}

func dialADS(t *testing.T, addresses controlplane.Addresses, node string) *rawClient {
	t.Helper()
	conn, err := grpc.NewClient(addresses.GRPC.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &rawClient{t: t, stream: stream, node: &core.Node{Id: node, Cluster: "shop.default"}}
}

func (c *rawClient) send(r *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node = c.node
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawClient) subscribe(typ codec.Type, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typ.URL(), ResourceNamesSubscribe: names})
}

// receive returns the next response, and its resources as one line.
func (c *rawClient) receive() (*discovery.DeltaDiscoveryResponse, string) {
	c.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, res := range r.GetResources() {
		names = append(names, res.GetName())
	}
	return r, strings.Join(names, " ")
}

// answer acknowledges a response, or refuses some of it, by name and reason.
func (c *rawClient) answer(r *discovery.DeltaDiscoveryResponse, refused map[string]string) {
	c.t.Helper()
	a := &discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if len(refused) > 0 {
		bad := &errdetails.BadRequest{}
		for name, reason := range refused {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: name, Description: reason})
		}
		detail, err := anypb.New(bad)
		if err != nil {
			c.t.Fatal(err)
		}
		a.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: "some of it is refused", Details: []*anypb.Any{detail}}
	}
	c.send(a)
}

func TestRefusedResourceIsParkedAndShownUntilItChanges(t *testing.T) {
	addresses := runControlPlane(t)
	policy := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders/policy"
	register(t, addresses, "orders", "a1", 9000)
	register(t, addresses, "carts", "a1", 9001)
	const orders, carts = "orders.default:http", "carts.default:http"
	client := dialADS(t, addresses, "picky")
	client.subscribe(codec.TypeCluster, orders, carts)
	first, names := client.receive()
	if names != carts+" "+orders {
		t.Fatalf("it is sent %q", names)
	}
	client.answer(first, map[string]string{orders: "no such tune"})

	eventually(t, "the refusal is shown with its reason, the rest as applied", func() bool {
		return rejected(t, "http://"+addresses.HTTP.String(), "picky") == orders+": no such tune" && applied(t, addresses, "shop.default") == carts
	})
	shown := sidecars(t, addresses)[0].Types[0]
	if shown.Subscribed != 2 || len(shown.Rejected) != 1 || shown.Rejected[0].Version != versionOf(first, orders) {
		t.Errorf("shown: %+v", shown)
	}
	if n := metric(t, addresses, "fairlead_xds_nacks_total"); n != 1 {
		t.Errorf("%v refusals are counted", n)
	}

	// Another of its clusters changes: what it refused is not sent again with that.
	call(t, http.MethodPut, strings.Replace(policy, "orders", "carts", 1), `{"loadBalancing":"ROUND_ROBIN"}`)
	second, names := client.receive()
	if names != carts {
		t.Errorf("after a change of the other one it is sent %q", names)
	}
	client.answer(second, nil)
	// What it refused changes.
	call(t, http.MethodPut, policy, `{"loadBalancing":"ROUND_ROBIN"}`)
	third, names := client.receive()
	if names != orders || versionOf(third, orders) == versionOf(first, orders) {
		t.Errorf("after a change of what it refused it is sent %q", names)
	}
	client.answer(third, nil)
	eventually(t, "nothing is refused any more", func() bool {
		return rejected(t, "http://"+addresses.HTTP.String(), "picky") == "" && applied(t, addresses, "shop.default") == carts+" "+orders
	})
	// Back to the content that it refused: it may have learnt since.
	call(t, http.MethodDelete, policy, "")
	if fourth, names := client.receive(); names != orders || versionOf(fourth, orders) != versionOf(first, orders) {
		t.Errorf("without the policy it is sent %q", names)
	}
}

func versionOf(r *discovery.DeltaDiscoveryResponse, name string) string {
	for _, res := range r.GetResources() {
		if res.GetName() == name {
			return res.GetVersion()
		}
	}
	return "none"
}
