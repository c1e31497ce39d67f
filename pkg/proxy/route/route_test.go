package route

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func configuration() mesh.RouteConfiguration {
	prefix := func(p string) mesh.Route { return mesh.Route{Match: mesh.RouteMatch{Prefix: p}} }
	exact := func(p string) mesh.Route { return mesh.Route{Match: mesh.RouteMatch{Path: p}} }
	return mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{
		{Domains: []string{"Orders.example", "orders.example:80"}, Routes: []mesh.Route{exact("/v1"), prefix("/v1/"), prefix("/")}}, // 0 1 2
		{Domains: []string{"*.example"}, Routes: []mesh.Route{prefix("/")}},                                                         // 3
		{Domains: []string{"*-a.example"}, Routes: []mesh.Route{prefix("/")}},                                                       // 4
		{Domains: []string{"shop.*"}, Routes: []mesh.Route{prefix("/only")}},                                                        // 5
		{Domains: []string{"*"}, Routes: []mesh.Route{prefix("/any")}},                                                              // 6
	}}
}

func TestFirstRouteOfTheMostSpecificHostWins(t *testing.T) {
	m, err := New(configuration())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		authority, path string
		want            int
	}{
		{"orders.example", "/v1", 0},
		{"ORDERS.example", "/v1?x=/", 0},
		{"orders.example:80", "/v1/a", 1},
		{"orders.example", "/v1a", 2},
		{"orders.example", "*", 2},
		{"orders.example", "", 2},
		{"shop.test", "*", NoMatch},
		{"orders.example:81", "/", NoMatch},
		{"x.example", "/", 3},
		{".example", "/any", 6},
		{"x-a.example", "/", 4},
		{"shop.test", "/only/that", 5},
		{"shop.test", "/other", NoMatch},
		{"shop.", "/any", 6},
		{"elsewhere", "/any", 6},
		{"", "/any", 6},
	} {
		if got := m.Match([]byte(c.authority), []byte(c.path)); got != c.want {
			t.Errorf("%s%s: route %d, want %d", c.authority, c.path, got, c.want)
		}
	}
}

func TestDomainClaimedTwiceIsRefused(t *testing.T) {
	for _, d := range []string{"a.example", "*.example", "a.*", "*"} {
		c := mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{{Domains: []string{d}}, {Domains: []string{d}}}}
		if _, err := New(c); err == nil {
			t.Errorf("%s claimed twice is taken", d)
		}
	}
}

func TestMatchingDoesNotAllocate(t *testing.T) {
	m, err := New(configuration())
	if err != nil {
		t.Fatal(err)
	}
	authority, path := []byte("Orders.Example:80"), []byte("/v1/orders?id=1")
	if n := testing.AllocsPerRun(100, func() { m.Match(authority, path) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
