package mesh

import (
	"strings"
	"testing"
)

func TestAuthorityMeansADestination(t *testing.T) {
	for authority, want := range map[string]string{
		"orders":                             "orders.default",
		"orders.shop":                        "orders.shop",
		"ORDERS.Shop":                        "orders.shop",
		"orders.shop.":                       "orders.shop",
		"orders.shop.svc":                    "orders.shop",
		"orders.shop.svc.cluster.local":      "orders.shop",
		"orders.shop.svc.cluster.local.":     "orders.shop",
		"orders:8080":                        "orders.default:8080",
		"orders.shop:http":                   "orders.shop:http",
		"orders.shop.svc.cluster.local:9000": "orders.shop:9000",
		"svc":                                "svc.default",
		strings.Repeat("a", 63):              strings.Repeat("a", 63) + ".default",
		"a-b.c-d:e-f":                        "a-b.c-d:e-f",
	} {
		d, err := ParseDestination(authority)
		if err != nil {
			t.Errorf("%q: %v", authority, err)
		} else if got := d.String(); got != want {
			t.Errorf("%q means %q, want %q", authority, got, want)
		}
	}
}

func TestAuthorityThatNamesNoServiceIsRefused(t *testing.T) {
	for _, authority := range []string{
		"", ".", ":80", "orders:", "a..b", "a.b.c", "10.0.0.1", "10.0.0.1:80", "[::1]:80",
		"-a", "a-", "a_b", "a b", "a/b", "a@b", "orders:http:1", "orders:HTTP", "ä",
		strings.Repeat("a", 64), "svc.svc.cluster.local.x", ".svc.cluster.local",
	} {
		if d, err := ParseDestination(authority); err == nil {
			t.Errorf("%q is taken for %q", authority, d)
		}
	}
}

func TestCanonicalNameCostsNoAllocation(t *testing.T) {
	authority := []byte("Orders.shop.svc.cluster.local:8080")
	buf := make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := AppendDestination(buf, authority, "default"); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCanonicalNameIsItsOwnCanonicalName(f *testing.F) {
	f.Add("orders")
	f.Add("Orders.shop.svc.cluster.local.:8080")
	f.Fuzz(func(t *testing.T, authority string) {
		d, err := ParseDestination(authority)
		if err != nil {
			return
		}
		again, err := ParseDestination(d.String())
		if err != nil || again != d {
			t.Fatalf("%q → %q → %q, %v", authority, d, again, err)
		}
	})
}

func TestIdentityHasItsThreeParts(t *testing.T) {
	id, err := ParseIdentity("spiffe://mesh.example/ns/shop/sa/orders")
	if want := (Identity{TrustDomain: "mesh.example", Namespace: "shop", Account: "orders"}); err != nil || id != want {
		t.Fatalf("%+v, %v", id, err)
	}
	for _, bad := range []string{"", "spiffe://", "https://a/ns/b/sa/c", "spiffe://A/ns/b/sa/c", "spiffe://a/ns/b/sa/", "spiffe://a/ns/b/sa/c/d"} {
		if _, err := ParseIdentity(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestOnlyLoopbackIsLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "[::]:1": false, "example.com:1": false, "127.0.0.1": false,
	} {
		if got := IsLoopback(addr); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}
