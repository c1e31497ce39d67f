package codec

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const seeds = 600

func TestDecodeIsTheInverseOfEncode(t *testing.T) {
	for seed := range uint64(seeds) {
		s := newSource(seed)
		c, r, l, e := s.cluster(), s.route("routes"), s.listener(), s.endpoints("orders.default:http")
		law(t, seed, c, CanonicalCluster, EncodeCluster, DecodeCluster)
		law(t, seed, r, same[mesh.RouteConfiguration], EncodeRoute, DecodeRoute)
		law(t, seed, l, CanonicalListener, EncodeListener, DecodeListener)
		law(t, seed, e, CanonicalEndpoints, EncodeEndpoints, DecodeEndpoints)
		if t.Failed() {
			return
		}
	}
}

func same[T any](v T) T { return v }

// law checks one value: it comes back canonical, and encodes to the same bytes
// whether it was canonical before or not.
func law[T any](t *testing.T, seed uint64, v T, canonical func(T) T, encode func(T) (Encoded, error), decode func(*anypb.Any) (T, error)) {
	t.Helper()
	encoded, err := encode(v)
	if err != nil {
		t.Errorf("seed %d: %+v: %v", seed, v, err)
		return
	}
	back, err := decode(encoded.Any())
	if err != nil {
		t.Errorf("seed %d: %+v: decode: %v", seed, v, err)
		return
	}
	if diff := cmp.Diff(canonical(v), back, equal()...); diff != "" {
		t.Errorf("seed %d: -want +got\n%s", seed, diff)
	}
	again, err := encode(back)
	if err != nil || !bytes.Equal(again.Body, encoded.Body) || again.Version != encoded.Version {
		t.Errorf("seed %d: encodes to %s, then to %s, %v", seed, encoded.Version, again.Version, err)
	}
}

func equal() []cmp.Option {
	return []cmp.Option{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
}

// Envoy refuses what the rules in its API (protoc-gen-validate) refuse, and these
// are compiled into the Go types too.
func TestEnvoysOwnRulesAcceptWhatIsEncoded(t *testing.T) {
	for seed := range uint64(seeds / 4) {
		s := newSource(seed)
		for _, one := range []struct {
			encoded Encoded
			into    interface {
				proto.Message
				ValidateAll() error
			}
		}{
			{must(EncodeCluster(s.cluster())), &clusterv3.Cluster{}},
			{must(EncodeRoute(s.route("routes"))), &routev3.RouteConfiguration{}},
			{must(EncodeListener(s.listener())), &listenerv3.Listener{}},
			{must(EncodeEndpoints(s.endpoints("c"))), &endpointv3.ClusterLoadAssignment{}},
		} {
			if err := proto.Unmarshal(one.encoded.Body, one.into); err != nil {
				t.Fatal(err)
			}
			if err := one.into.ValidateAll(); err != nil {
				t.Errorf("seed %d: %s: %v\n%v", seed, one.encoded.Type, err, one.into)
			}
		}
	}
}

func must(e Encoded, err error) Encoded {
	if err != nil {
		panic(err)
	}
	return e
}

func versions() string {
	var b strings.Builder
	for seed := range uint64(40) {
		s := newSource(seed)
		for _, e := range []Encoded{
			must(EncodeCluster(s.cluster())), must(EncodeRoute(s.route("routes"))),
			must(EncodeListener(s.listener())), must(EncodeEndpoints(s.endpoints("c"))),
		} {
			fmt.Fprintf(&b, "%d %s %s\n", seed, e.Type, e.Version)
		}
	}
	return b.String()
}

const childVariable = "FAIRLEAD_CODEC_CHILD"

func TestVersionsAreTheSameInEveryProcess(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		fmt.Print("<<", versions(), ">>")
		return
	}
	want := versions()
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), childVariable+"=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(out), "<<"+want+">>") {
			t.Errorf("another process has other versions:\n%s\nwant\n%s", out, want)
		}
	}
}

func TestVersionDependsOnContentOnly(t *testing.T) {
	a := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.2:80"), endpoint("10.0.0.1:80")}}
	b := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")}}
	if must(EncodeEndpoints(a)).Version != must(EncodeEndpoints(b)).Version {
		t.Error("the order of endpoints changes the version")
	}
	b.Endpoints[0].Weight = 2
	if must(EncodeEndpoints(a)).Version == must(EncodeEndpoints(b)).Version {
		t.Error("a weight does not change the version")
	}
	if v := must(EncodeEndpoints(a)).Version; len(v) != 16 {
		t.Errorf("version %q", v)
	}
}

func endpoint(addr string) mesh.Endpoint {
	return mesh.Endpoint{Address: netip.MustParseAddrPort(addr), Weight: 1}
}

func TestEncodingDoesNotChangeItsArgument(t *testing.T) {
	a := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.2:80"), endpoint("10.0.0.1:80")}}
	c := mesh.Cluster{Name: "c", ConnectTimeout: time.Second, Static: &a}
	must(EncodeCluster(c))
	if a.Endpoints[0].Address.Addr().String() != "10.0.0.2" {
		t.Error("the endpoints were sorted in place")
	}
}

func TestKnownEmptyIsAnAssignment(t *testing.T) {
	e := must(EncodeEndpoints(mesh.LoadAssignment{Cluster: "orders.default:http"}))
	a, err := DecodeEndpoints(e.Any())
	if err != nil || a.Cluster != "orders.default:http" || len(a.Endpoints) != 0 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestOfOneAddressTheUsableThenTheFirstInstanceStays(t *testing.T) {
	at := func(instance string, h mesh.Health) mesh.Endpoint {
		e := endpoint("10.0.0.1:80")
		e.Instance, e.Health = instance, h
		return e
	}
	other := endpoint("10.0.0.2:80")
	for name, c := range map[string]struct {
		in   []mesh.Endpoint
		want string
	}{
		"first id":  {[]mesh.Endpoint{at("b", 0), other, at("a", 0)}, "a"},
		"usable":    {[]mesh.Endpoint{at("a", mesh.HealthDraining), other, at("b", 0)}, "b"},
		"both gone": {[]mesh.Endpoint{at("b", mesh.HealthDraining), at("a", mesh.HealthUnhealthy), other}, "a"},
	} {
		kept, dropped := UniqueAddresses(c.in)
		if len(kept) != 2 || len(dropped) != 1 {
			t.Fatalf("%s: kept %v, dropped %v", name, kept, dropped)
		}
		if kept[0] != other && kept[0].Instance != c.want || kept[0] == other && kept[1].Instance != c.want {
			t.Errorf("%s: kept %v", name, kept)
		}
	}
	if kept, _ := UniqueAddresses([]mesh.Endpoint{endpoint("10.0.0.1:80"), endpoint("[::ffff:10.0.0.1]:80")}); len(kept) != 1 {
		t.Errorf("kept two spellings of one address: %v", kept)
	}
	if _, err := EncodeEndpoints(mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{at("a", 0), at("b", 0)}}); err == nil {
		t.Error("an address is encoded twice")
	}
}

func TestTypesAndTheirURLs(t *testing.T) {
	for _, typ := range Types() {
		if got, ok := ParseType(typ.URL()); !ok || got != typ {
			t.Errorf("%s: %v %v", typ, got, ok)
		}
	}
	if _, ok := ParseType(""); ok {
		t.Error("the empty URL has a type")
	}
}

func TestInvalidValuesAreNotEncoded(t *testing.T) {
	cluster := func(change func(*mesh.Cluster)) func() error {
		return func() error {
			c := mesh.Cluster{Name: "c", ConnectTimeout: time.Second}
			change(&c)
			_, err := EncodeCluster(c)
			return err
		}
	}
	route := func(change func(*mesh.Route)) func() error {
		return func() error {
			r := mesh.Route{Match: mesh.RouteMatch{Prefix: "/"}, Action: mesh.RouteAction{Cluster: "c"}}
			change(&r)
			_, err := EncodeRoute(mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{
				{Name: "v", Domains: []string{"*"}, Routes: []mesh.Route{r}}}})
			return err
		}
	}
	listener := func(l mesh.Listener) func() error {
		return func() error { _, err := EncodeListener(l); return err }
	}
	endpoints := func(change func(*mesh.Endpoint)) func() error {
		return func() error {
			e := endpoint("10.0.0.1:80")
			change(&e)
			_, err := EncodeEndpoints(mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{e}})
			return err
		}
	}
	inline := &mesh.RouteConfiguration{Name: "r"}
	for want, encode := range map[string]func() error{
		`name: must not be empty`:                                              cluster(func(c *mesh.Cluster) { c.Name = "" }),
		`connect_timeout: is 0s, not 1ms to 1h`:                                cluster(func(c *mesh.Cluster) { c.ConnectTimeout = 0 }),
		`connect_timeout: is -1s, not 1ms to 1h`:                               cluster(func(c *mesh.Cluster) { c.ConnectTimeout = -time.Second }),
		`typed_extension_protocol_options: protocol 4 is not supported`:        cluster(func(c *mesh.Cluster) { c.Protocol = mesh.ProtocolTCP }),
		`lb_policy: policy 9 is not supported`:                                 cluster(func(c *mesh.Cluster) { c.LB = 9 }),
		`outlier_detection.failure_percentage_threshold: is 101, not 1 to 100`: cluster(func(c *mesh.Cluster) { c.Breaker.FailurePercent = 101 }),
		`outlier_detection.interval: is 1ms, not 100ms to 1h`:                  cluster(func(c *mesh.Cluster) { c.Breaker.Window = time.Millisecond }),
		`.breaker.half_open_requests: is 5000, not 1 to 1000`:                  cluster(func(c *mesh.Cluster) { c.Breaker.HalfOpenRequests = 5000 }),
		`trusted_ca`: cluster(func(c *mesh.Cluster) { c.TLS = &mesh.UpstreamTLS{TLS: mesh.TLS{SANs: []mesh.SANMatch{{Value: "a"}}}} }),
		`transport_socket: TLS version 9 is not supported`: cluster(func(c *mesh.Cluster) { c.TLS = &mesh.UpstreamTLS{TLS: mesh.TLS{MinVersion: 9}} }),
		`transport_socket: type 9 of a name is not supported`: cluster(func(c *mesh.Cluster) {
			c.TLS = &mesh.UpstreamTLS{TLS: mesh.TLS{CA: "/a", SANs: []mesh.SANMatch{{Type: 9, Value: "a"}}}}
		}),
		`transport_socket: comparison 9 of names is not supported`: cluster(func(c *mesh.Cluster) {
			c.TLS = &mesh.UpstreamTLS{TLS: mesh.TLS{CA: "/a", SANs: []mesh.SANMatch{{Kind: 9, Value: "a"}}}}
		}),
		`api_listener: has TLS, and no connections to have it on`:                                               listener(mesh.Listener{Name: "l", RouteName: "r", TLS: &mesh.DownstreamTLS{}}),
		`filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates: must not be empty`: listener(mesh.Listener{Name: "l", RouteName: "r", Address: netip.MustParseAddrPort("10.0.0.1:1"), TLS: &mesh.DownstreamTLS{}}),
		`load_assignment.cluster_name: is "d", not the cluster's name`:                                          cluster(func(c *mesh.Cluster) { c.Static = &mesh.LoadAssignment{Cluster: "d"} }),
		`routes[0].match: has both a prefix and a path`:                                                         route(func(r *mesh.Route) { r.Match.Path = "/x" }),
		`routes[0].match.prefix: "api" does not begin with /`:                                                   route(func(r *mesh.Route) { r.Match.Prefix = "api" }),
		`routes[0].route.cluster: must not be empty`:                                                            route(func(r *mesh.Route) { r.Action.Cluster = "" }),
		`routes[0].route.timeout: is -1s, not 0s to 24h`:                                                        route(func(r *mesh.Route) { r.Action.Timeout = -time.Second }),
		`routes[0]: has both a direct response and a forward`:                                                   route(func(r *mesh.Route) { r.Action.Direct = &mesh.DirectResponse{Status: 200} }),
		`routes[0].direct_response.status: is 99, not 200 to 599`:                                               route(func(r *mesh.Route) { r.Action = mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 99}} }),
		`routes[0].name: must be UTF-8`:                                                                         route(func(r *mesh.Route) { r.Name = "\xff" }),
		`api_listener.api_listener: has both routes and the name of routes`:                                     listener(mesh.Listener{Name: "l", Route: inline, RouteName: "r"}),
		`api_listener.api_listener.rds.route_config_name: must not be empty`:                                    listener(mesh.Listener{Name: "l"}),
		`endpoints[0].lb_endpoints[0].load_balancing_weight: is 0, not 1 to 1000`:                               endpoints(func(e *mesh.Endpoint) { e.Weight = 0 }),
		`endpoint.address.socket_address.address: is "0.0.0.0", not the IP`:                                     endpoints(func(e *mesh.Endpoint) { e.Address = netip.MustParseAddrPort("0.0.0.0:80") }),
		`endpoint.address.socket_address.port_value: is 0, not 1 to 65535`:                                      endpoints(func(e *mesh.Endpoint) { e.Address = netip.MustParseAddrPort("10.0.0.1:0") }),
		`endpoint.address.socket_address.address: is "invalid IP"`:                                              endpoints(func(e *mesh.Endpoint) { e.Address = netip.AddrPort{} }),
		`health_status: 77 is not supported`:                                                                    endpoints(func(e *mesh.Endpoint) { e.Health = 77 }),
	} {
		if err := encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}
