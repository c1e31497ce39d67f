package controlplane_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// fleet runs orders with five instances, four of them beside sidecars whose way to the
// control plane can break, and a sidecar that has all five as endpoints.
func fleet(t *testing.T, addresses controlplane.Addresses) (ways []*forwarder, shop beside) {
	t.Helper()
	for i := range 5 {
		controlPlane := addresses.GRPC.String()
		if i < 4 {
			ways = append(ways, forward(t, controlPlane))
			controlPlane = ways[i].address()
		}
		id := fmt.Sprintf("o%d", i)
		runSidecar(t, controlPlane, sidecar.Workload{Service: "orders", InstanceID: id, AppAddr: app(t, id).Listener.Addr().String(), HealthPath: "/health"})
	}
	shop = runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	eventually(t, "its peer has all five", func() bool {
		shop.through("orders", "/")
		return shop.hosts(t) == 5 && registered(t, addresses, "orders") == "o0 o1 o2 o3 o4"
	})
	return ways, shop
}

// heldInstances counts the instances of orders that are lost, but held.
func heldInstances(t *testing.T, addresses controlplane.Addresses) int {
	t.Helper()
	var list struct{ Held []any }
	body := ask("http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders/instances")
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	return len(list.Held)
}

// Processes that die close their connections: that is believed, however many they are.
func TestMostOfAServiceMayDieAtOnce(t *testing.T) {
	addresses := runControlPlane(t)
	ways, shop := fleet(t, addresses)
	for _, w := range ways {
		w.cut()
	}
	within(t, 2*time.Second, "they are out of their peer's endpoints", func() bool { return shop.hosts(t) == 1 })
	if n := heldInstances(t, addresses); n != 0 {
		t.Errorf("%d are held", n)
	}
}

// A network that fails between the control plane and most of a service takes nothing
// from those who call it.
func TestMostOfAServiceThatFallsSilentAtOnceIsHeldUntilItIsReleased(t *testing.T) {
	slowly(t)
	addresses := runControlPlane(t)
	ways, shop := fleet(t, addresses)
	for _, w := range ways {
		w.freeze()
		defer w.thaw()
	}
	within(t, 20*time.Second, "they are lost", func() bool { return registered(t, addresses, "orders") == "o4" })
	if held, hosts := heldInstances(t, addresses), shop.hosts(t); held != 4 || hosts != 5 {
		t.Errorf("%d are held, their peer has %d endpoints; want 4 and 5", held, hosts)
	}
	if n := metric(t, addresses, "fairlead_registry_held_instances"); n != 4 {
		t.Errorf("the metric counts %v", n)
	}
	answered := map[string]bool{}
	for range 100 {
		status, reason, body := shop.through("orders", "/")
		if status != 200 {
			t.Fatalf("%d %s", status, reason)
		}
		answered[body] = true
	}
	if len(answered) != 5 {
		t.Errorf("%d instances answer, want all 5: their sidecars are well", len(answered))
	}
	call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances:release", "")
	within(t, time.Second, "they are let go of", func() bool { return shop.hosts(t) == 1 })
}
