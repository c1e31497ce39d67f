package table_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clusters makes live clusters by name.
func clusters(tb testing.TB, names ...string) map[string]*upstream.Cluster {
	tb.Helper()
	set := upstream.NewSet(func() int64 { return 0 }, slog.New(slog.DiscardHandler))
	tb.Cleanup(set.Close)
	all := map[string]*upstream.Cluster{}
	for _, name := range names {
		c, err := set.Apply(mesh.Cluster{Name: name})
		if err != nil {
			tb.Fatal(err)
		}
		all[name] = c
	}
	return all
}

func deps(all map[string]*upstream.Cluster) table.Deps {
	return table.Deps{
		Cluster: func(name string) *upstream.Cluster { return all[name] },
		Metrics: metrics.NewProxy(metrics.New(metrics.Config{}), reason.Codes()),
		Source:  "caller.default",
	}
}

// config has a virtual host for each domain, which leads to the cluster v1 if the
// path begins with /v1, answers /direct itself, and leads to cluster def by name.
func config(domains ...string) mesh.RouteConfiguration {
	rc := mesh.RouteConfiguration{Name: "rc"}
	for i, d := range domains {
		rc.VirtualHosts = append(rc.VirtualHosts, mesh.VirtualHost{Name: fmt.Sprintf("host%d", i), Domains: []string{d}, Routes: []mesh.Route{
			{Name: "first " + d, Match: mesh.RouteMatch{Prefix: "/v1"}, Action: mesh.RouteAction{Cluster: "v1", Timeout: time.Second}},
			{Name: "direct " + d, Match: mesh.RouteMatch{Path: "/direct"}, Action: mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 204}}},
			{Name: "rest " + d, Match: mesh.RouteMatch{Prefix: "/rest"}, Action: mesh.RouteAction{Cluster: "def"}},
		}})
	}
	return rc
}

func compile(tb testing.TB, rc mesh.RouteConfiguration, d table.Deps) *table.Routes {
	tb.Helper()
	r, err := table.Compile(rc, d)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestARouteBecomesAnEntryThatNeedsNoFurtherLookup(t *testing.T) {
	all := clusters(t, "v1", "def")
	d := deps(all)
	routes := compile(t, config("a.example", "*.b.example"), d)
	tests := []struct {
		authority, path string
		route           string // "": none matches
		cluster         string // "": answered directly
		timeout         time.Duration
	}{
		{"a.example", "/v1/x", "first a.example", "v1", time.Second},
		{"A.Example", "/v1?q", "first a.example", "v1", time.Second},
		{"a.example", "/direct", "direct a.example", "", 0},
		{"a.example", "/rest", "rest a.example", "def", 0},
		{"x.b.example", "/rest", "rest *.b.example", "def", 0},
		{"a.example", "/other", "", "", 0},
		{"c.example", "/rest", "", "", 0},
	}
	for _, test := range tests {
		e, why, wait := routes.Route([]byte(test.authority), []byte(test.path), 0)
		if wait {
			t.Errorf("%s%s has to be waited for", test.authority, test.path)
		}
		awaited, awaitedWhy := routes.Await(t.Context(), []byte(test.authority), []byte(test.path))
		if awaited != e || awaitedWhy != why {
			t.Errorf("%s%s: Await and Route differ", test.authority, test.path)
		}
		if test.route == "" {
			if e != nil || why != reason.NoRoute {
				t.Errorf("%s%s leads to %v, %s", test.authority, test.path, e, why.Code())
			}
			continue
		}
		if e == nil || why != reason.None || e.Route != test.route || e.Timeout != test.timeout || e.Cluster != all[test.cluster] || e.Inbound {
			t.Errorf("%s%s leads to %+v, %s", test.authority, test.path, e, why.Code())
			continue
		}
		destination := test.cluster
		if destination == "" {
			destination = "direct_response"
		}
		if (e.Direct != nil) != (test.cluster == "") || e.Destination != destination || e.Source != "caller.default" {
			t.Errorf("%s%s: direct %v, from %s to %s", test.authority, test.path, e.Direct, e.Source, e.Destination)
		}
		if e.Requests == nil || e.Requests != d.Metrics.Destination(e.Source, e.Destination) {
			t.Errorf("%s%s is not counted as %s", test.authority, test.path, e.Destination)
		}
	}
}

func TestWhereConnectionsGoElsewhereEachEntryLeadsThere(t *testing.T) {
	all := clusters(t, "v1", "def", "tcp")
	d := deps(all)
	d.TCP = &mesh.TCPChain{Name: "chain", TCP: mesh.TCPProxy{Cluster: "tcp", ConnectAttempts: 2}}
	routes := compile(t, config("*"), d)
	for _, path := range []string{"/v1", "/direct", "/rest"} {
		e := routes.Match([]byte("a"), []byte(path)).Relay
		if e == nil || e.Cluster != all["tcp"] || e.TCP != &d.TCP.TCP || e.Route != "chain" || e.Destination != "tcp" || e.Source != "caller.default" || e.Direct != nil {
			t.Errorf("%s: connections lead to %+v", path, e)
		}
	}
	d.TCP.TCP.Cluster = "none"
	if _, err := table.Compile(config("*"), d); err == nil || !strings.Contains(err.Error(), `filter chain chain: cluster "none" does not exist`) {
		t.Errorf("a chain that leads nowhere: %v", err)
	}
}

func TestFaultsNameWhatAndWhere(t *testing.T) {
	tests := map[string]struct {
		config   mesh.RouteConfiguration
		clusters []string
		says     []string
	}{
		"a cluster that does not exist":  {config("a", "b"), []string{"v1"}, []string{"route configuration rc", "virtual host host0", `"def"`}},
		"a domain that is claimed twice": {config("a", "A"), []string{"v1", "def"}, []string{"route configuration rc", `"A"`, "twice"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			routes, err := table.Compile(test.config, deps(clusters(t, test.clusters...)))
			if err == nil || routes != nil {
				t.Fatal("it was compiled")
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %s", err, part)
				}
			}
		})
	}
}

func TestATableIsWholeAndItsSuccessorLeavesItAlone(t *testing.T) {
	all := clusters(t, "v1", "def")
	d := deps(all)
	rc := config("a")
	before := compile(t, rc, d)
	held := before.Match([]byte("a"), []byte("/v1"))
	rc.VirtualHosts[0].Routes[0].Action.Cluster = "def"
	after := compile(t, rc, d)
	if held.Cluster != all["v1"] || before.Match([]byte("a"), []byte("/v1")) != held {
		t.Error("the table that is in use has changed")
	}
	if got := after.Match([]byte("a"), []byte("/v1")); got.Cluster != all["def"] {
		t.Errorf("the new one leads to %s", got.Destination)
	}
	if before.Name != "rc" || after.Name != "rc" {
		t.Error("a table has lost its name")
	}
}

func TestInboundLeadsEverythingToTheApplication(t *testing.T) {
	all := clusters(t, "app")
	m := deps(all).Metrics
	inbound := table.NewInbound(all["app"], "orders.default", m)
	for _, authority := range []string{"orders", "anything.example", ""} {
		e, why, wait := inbound.Route([]byte(authority), []byte("/"), 0)
		awaited, awaitedWhy := inbound.Await(t.Context(), []byte(authority), []byte("/"))
		if wait || why != reason.None || awaited != e || awaitedWhy != why {
			t.Fatalf("%q: %s, wait %v", authority, why.Code(), wait)
		}
		if e.Cluster != all["app"] || !e.Inbound || e.Timeout != mesh.DefaultInboundTimeout || e.Source != "unknown" || e.Destination != "orders.default" {
			t.Errorf("%q leads to %+v", authority, e)
		}
		if e.Requests != m.Destination("unknown", "orders.default") {
			t.Errorf("%q is counted elsewhere", authority)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	routes := compile(t, config("a.example", "*.b.example", "c.*", "*"), deps(clusters(t, "v1", "def")))
	for _, authority := range []string{"a.example", "X.B.example", "c.org", "other"} {
		host, path := []byte(authority), []byte("/rest?query")
		if n := testing.AllocsPerRun(100, func() {
			if e, _, _ := routes.Route(host, path, 0); e == nil {
				t.Fatal("nothing matches")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", authority, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	routes := compile(b, config("a.example", "*.b.example"), deps(clusters(b, "v1", "def")))
	host, path := []byte("a.example"), []byte("/rest?query")
	b.ReportAllocs()
	for b.Loop() {
		if routes.Match(host, path) == nil {
			b.Fatal("nothing matches")
		}
	}
}
