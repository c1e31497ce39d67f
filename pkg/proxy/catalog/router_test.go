package catalog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

func TestLookupAllocatesNothing(t *testing.T) {
	r := start(t, catalog.Config{})
	r.learn(orders)
	router := catalog.Router{Catalog: r.catalog, Namespace: "default"}
	authority, path := []byte("orders"), []byte("/0")
	now := r.clock()
	if n := testing.AllocsPerRun(100, func() {
		now += int64(2 * time.Second) // so that the use is noted each time
		if e, why, wait := router.Route(authority, path, now); e == nil || why != reason.None || wait {
			t.Fatalf("it got %s", why.Code())
		}
	}); n != 0 {
		t.Errorf("a lookup allocates %v times", n)
	}
}

func TestRouter(t *testing.T) {
	r := start(t, catalog.Config{WaitTime: 10 * time.Millisecond})
	r.learn(orders)
	router := catalog.Router{Catalog: r.catalog, Namespace: "default"}
	long := fmt.Sprintf("%0300d", 0)
	tests := []struct {
		authority, path string
		why             reason.Reason
		wait            bool
	}{
		{"orders", "/0", reason.None, false},
		{"orders.default", "/0", reason.None, false},
		{"orders.default.", "/0?q=1", reason.None, false},
		{"ORDERS", "/0", reason.None, false},
		{"orders", "/1", reason.NoRoute, false},
		{"", "/0", reason.NotAMeshName, false},
		{"192.0.2.1", "/0", reason.NotAMeshName, false},
		{"or_ders", "/0", reason.NotAMeshName, false},
		{long, "/0", reason.NotAMeshName, false},
		{"billing", "/0", reason.NotLearnedInTime, true},
	}
	for _, test := range tests {
		_, why, wait := router.Route([]byte(test.authority), []byte(test.path), r.clock())
		if wait != test.wait || !wait && why != test.why {
			t.Errorf("Route(%.40q, %q) = %s, %v", test.authority, test.path, why.Code(), wait)
		}
		e, why := router.Await(t.Context(), []byte(test.authority), []byte(test.path))
		if why != test.why || (e != nil) != (why == reason.None) {
			t.Errorf("Await(%.40q, %q) = %s", test.authority, test.path, why.Code())
		}
	}
}
