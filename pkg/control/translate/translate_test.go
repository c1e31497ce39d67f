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

func TestServiceHasAChainPerPortAndItsNames(t *testing.T) {
	var got []string
	for name := range translated(t, orders()) {
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{
		"cluster orders.shop:grpc", "cluster orders.shop:http", "cluster orders.shop:metrics",
		"endpoints orders.shop:grpc", "endpoints orders.shop:http", "endpoints orders.shop:metrics",
		"listener orders.shop", "listener orders.shop:9000", "listener orders.shop:9001", "listener orders.shop:9100",
		"listener orders.shop:grpc", "listener orders.shop:http", "listener orders.shop:metrics",
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

func TestOnlyTCPPortsOfASidecarThatAnswersThemAreKnockedAt(t *testing.T) {
	for port, want := range map[string]string{"http": "", "grpc": "", "metrics": "b"} {
		s := orders()
		for i := range s.Instances {
			s.Instances[i].Knocks = true
		}
		e, err := codec.DecodeEndpoints(translated(t, s)["endpoints orders.shop:"+port].Any())
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, one := range e.Endpoints {
			if one.Knocks {
				got += one.Instance
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", port, got, want)
		}
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

func TestConnectionsToATCPPortAreRelayedAndItsNameIsBareWithoutAnHTTPPort(t *testing.T) {
	both, alone := orders(), orders()
	alone.Ports = alone.Ports[:1]
	for _, c := range []struct {
		of    Service
		names []string
	}{
		{both, []string{"orders.shop:metrics", "orders.shop:9100"}},
		{alone, []string{"orders.shop:metrics", "orders.shop:9100", "orders.shop"}},
	} {
		m := translated(t, c.of)
		for _, name := range c.names {
			e, ok := m["listener "+name]
			if !ok {
				t.Fatalf("there is no %s", name)
			}
			l, err := codec.DecodeListener(e.Any())
			if err != nil {
				t.Fatal(err)
			}
			if len(l.TCP) != 1 || l.TCP[0].TCP.Cluster != "orders.shop:metrics" || l.Address.IsValid() || len(l.TCP[0].ServerNames) > 0 {
				t.Errorf("%s leads to %+v at %v", name, l.TCP, l.Address)
			}
			if !e.ByName {
				t.Errorf("%s is sent to who did not ask for it", name)
			}
			want := "port metrics of service orders.shop is for TCP, no HTTP port: --tcp-upstream and CONNECT lead to it\n"
			if name == "orders.shop" {
				want = "service orders.shop has no HTTP port\n"
			}
			if d := l.Route.VirtualHosts[0].Routes[0].Action.Direct; d == nil || d.Status != 503 || d.Body != want {
				t.Errorf("requests to %s get %+v", name, d)
			}
		}
		cluster, err := codec.DecodeCluster(m["cluster orders.shop:metrics"].Any())
		if err != nil || cluster.LB != mesh.LBRoundRobin || cluster.Protocol != mesh.ProtocolUnspecified {
			t.Errorf("%+v, %v", cluster, err)
		}
		if _, is := m["route orders.shop:metrics"]; is {
			t.Error("a TCP port has routes for requests")
		}
	}
}

func TestATCPPortIsReachedAtTheSidecarToo(t *testing.T) {
	e, err := codec.DecodeEndpoints(translated(t, orders())["endpoints orders.shop:metrics"].Any())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range e.Endpoints {
		got = append(got, one.Address.String())
	}
	slices.Sort(got)
	if want := []string{"10.0.0.1:9100", "10.0.0.2:15006"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
