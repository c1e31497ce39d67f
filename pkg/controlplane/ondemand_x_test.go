package controlplane_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// slowly skips what takes longer than a test should, unless that is asked for.
func slowly(t *testing.T) {
	t.Helper()
	if os.Getenv("FAIRLEAD_SLOW") == "" {
		t.Skip("it waits out bounds of ten seconds and more: FAIRLEAD_SLOW=1 runs it")
	}
}

// register registers an instance over REST, with a minute to live.
func register(t *testing.T, addresses controlplane.Addresses, service, id string, port int) {
	t.Helper()
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/"+service+"/instances",
		fmt.Sprintf(`{"id":%q,"address":"127.0.0.1","ports":[{"number":%d}],"ttl":"60s"}`, id, port))
}

// subscribed counts the listeners that the only xDS client asks for.
func subscribed(t *testing.T, addresses controlplane.Addresses) (listeners int) {
	t.Helper()
	for _, s := range sidecars(t, addresses) {
		for _, typ := range s.Types {
			if typ.TypeURL == "type.googleapis.com/envoy.config.listener.v3.Listener" {
				listeners += typ.Subscribed
			}
		}
	}
	return listeners
}

func TestSidecarSubscribesToWhatItsWorkloadCallsAndNothingElse(t *testing.T) {
	addresses := runControlPlane(t)
	for n := range 20 {
		register(t, addresses, fmt.Sprintf("service-%d", n), "a1", 1+n)
	}
	register(t, addresses, "orders", "a1", portOf(app(t, "a1").Listener.Addr()))
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	eventually(t, "the sidecar is connected", func() bool { return len(sidecars(t, addresses)) == 1 })
	if n := subscribed(t, addresses); n != 0 {
		t.Errorf("before any call it subscribes to %d services", n)
	}
	for range 3 {
		if status, reason, body := shop.through("orders", "/"); status != 200 || body != "a1" {
			t.Errorf("%d %s %q", status, reason, body)
		}
	}
	if n := subscribed(t, addresses); n != 1 {
		t.Errorf("after calls to one service it subscribes to %d", n)
	}
	eventually(t, "it has applied that service's listener, route, cluster and endpoints, and nothing else", func() bool {
		return applied(t, addresses, "shop.default") == "orders.default orders.default:http orders.default:http orders.default:http"
	})
}

func TestKnownServiceGetsItsFirstInstanceAtOnce(t *testing.T) {
	addresses := runControlPlane(t)
	register(t, addresses, "orders", "a1", 1)
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances/a1", "")
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	if status, reason, _ := shop.through("orders", "/"); status != 503 || reason != "no_endpoints" {
		t.Errorf("known and empty: %d %s", status, reason)
	}
	register(t, addresses, "orders", "a2", portOf(app(t, "a2").Listener.Addr()))
	within(t, 5*time.Second, "it is called", func() bool {
		_, _, body := shop.through("orders", "/")
		return body == "a2"
	})
}

func TestServiceRegisteredAfterItWasUnknownIsFoundAtOnce(t *testing.T) {
	addresses := runControlPlane(t)
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	if status, reason, _ := shop.through("orders", "/"); status != 404 || reason != "unknown_service" {
		t.Errorf("before anybody registered: %d %s", status, reason)
	}
	register(t, addresses, "orders", "a1", portOf(app(t, "a1").Listener.Addr()))
	// Well within the time for which the sidecar watches a name that nobody knows.
	within(t, 3*time.Second, "it is called", func() bool {
		_, _, body := shop.through("orders", "/")
		return body == "a1"
	})
}

// within is eventually with a bound that is part of what is promised.
func within(t *testing.T, bound time.Duration, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > bound {
			t.Fatalf("not so within %v: %s", bound, what)
		}
	}
}
