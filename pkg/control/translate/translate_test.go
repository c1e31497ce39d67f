package translate

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

func orders() Service {
	ports := []Port{{"metrics", 9100, mesh.ProtocolTCP}, {"http", 9000, mesh.ProtocolHTTP}, {"grpc", 9001, mesh.ProtocolGRPC}}
	return Service{
		Name:  mesh.ServiceName{Name: "orders", Namespace: "shop"},
		Ports: ports,
		Instances: []Instance{
			{ID: "a", Address: netip.MustParseAddr("10.0.0.1"), Ports: ports, Weight: 1, Zone: "z1"},
			{ID: "b", Address: netip.MustParseAddr("10.0.0.2"), Ports: ports, Inbound: 15006, Weight: 3, Health: mesh.HealthDraining},
		},
		Policy: Policy{LB: mesh.LBRoundRobin, RequestTimeout: 2 * time.Second},
	}
}

func translated(t *testing.T, s Service) map[string]codec.Encoded {
	t.Helper()
	all, err := For(s)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]codec.Encoded{}
	for _, e := range all {
		m[e.Type.String()+" "+e.Name] = e
	}
	if len(m) != len(all) {
		t.Errorf("a resource is there twice")
	}
	return m
}

func TestServiceHasAChainPerHTTPPortAndItsNames(t *testing.T) {
	var got []string
	for name := range translated(t, orders()) {
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{
		"cluster orders.shop:grpc", "cluster orders.shop:http",
		"endpoints orders.shop:grpc", "endpoints orders.shop:http",
		"listener orders.shop", "listener orders.shop:9000", "listener orders.shop:9001", "listener orders.shop:grpc", "listener orders.shop:http",
		"route orders.shop:grpc", "route orders.shop:http",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBareNameLeadsToTheFirstHTTPPort(t *testing.T) {
	m := translated(t, orders())
	l, err := codec.DecodeListener(m["listener orders.shop"].Any())
	if err != nil {
		t.Fatal(err)
	}
	if l.RouteName != "orders.shop:http" {
		t.Errorf("routes %q", l.RouteName)
	}
	r, err := codec.DecodeRoute(m["route orders.shop:http"].Any())
	if err != nil {
		t.Fatal(err)
	}
	if a := r.VirtualHosts[0].Routes[0].Action; a.Cluster != "orders.shop:http" || a.Timeout != 2*time.Second {
		t.Errorf("action %+v", a)
	}
}

func TestInstanceIsReachedAtItsSidecarWhereItHasOne(t *testing.T) {
	e, err := codec.DecodeEndpoints(translated(t, orders())["endpoints orders.shop:http"].Any())
	if err != nil {
		t.Fatal(err)
	}
	want := []mesh.Endpoint{
		{Instance: "a", Address: netip.MustParseAddrPort("10.0.0.1:9000"), Weight: 1, Zone: "z1"},
		{Instance: "b", Address: netip.MustParseAddrPort("10.0.0.2:15006"), Weight: 3, Health: mesh.HealthDraining, Sidecar: true},
	}
	sorted := cmpopts.SortSlices(func(a, b mesh.Endpoint) bool { return a.Instance < b.Instance })
	if diff := cmp.Diff(want, e.Endpoints, sorted, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestServiceWithoutInstancesIsKnownAndEmpty(t *testing.T) {
	s := orders()
	s.Instances = nil
	e, err := codec.DecodeEndpoints(translated(t, s)["endpoints orders.shop:http"].Any())
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Endpoints) != 0 {
		t.Errorf("endpoints %v", e.Endpoints)
	}
}

func TestOnlyWhatChangedGetsAnotherVersion(t *testing.T) {
	before := translated(t, orders())
	s := orders()
	s.Instances[0].Weight = 2
	for name, e := range translated(t, s) {
		changed := e.Version != before[name].Version
		if wants := e.Type == codec.TypeEndpoints; changed != wants {
			t.Errorf("%s changed: %v", name, changed)
		}
	}
}

func TestNoTimeoutIsNotTheDefaultTimeout(t *testing.T) {
	for policy, want := range map[time.Duration]time.Duration{-1: 0, 0: mesh.DefaultRequestTimeout, time.Minute: time.Minute} {
		if got := (Policy{RequestTimeout: policy}).timeout(); got != want {
			t.Errorf("%v gives %v, want %v", policy, got, want)
		}
	}
}

func TestServiceWithoutAnHTTPPortIsKnownAndSaysSo(t *testing.T) {
	s := orders()
	s.Ports = s.Ports[:1]
	m := translated(t, s)
	l, err := codec.DecodeListener(m["listener orders.shop"].Any())
	if err != nil || len(m) != 1 {
		t.Fatal(err, len(m))
	}
	d := l.Route.VirtualHosts[0].Routes[0].Action.Direct
	if d == nil || d.Status != 503 || d.Body != "service orders.shop has no HTTP port\n" {
		t.Errorf("answers %+v", d)
	}
}
