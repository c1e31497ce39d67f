package controlplane_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// ready asks the admin port of a sidecar, which answers "ready" or what it waits for.
func (b beside) ready() string {
	a, err := http.Get("http://" + b.addresses.Admin.String() + "/ready")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func TestSidecarWhoseInstanceIsDeregisteredRegistersAgain(t *testing.T) {
	addresses := runControlPlane(t)
	o := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, "o1").Listener.Addr().String()})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	for range 3 {
		call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances/o1", "")
		eventually(t, "it is back", func() bool { return registered(t, addresses, "orders") == "o1" })
	}
	eventually(t, "it is ready", func() bool { return o.ready() == "ready\n" })
}

func TestSecondSidecarOfOneIDIsNotReadyUntilTheFirstIsGone(t *testing.T) {
	addresses := runControlPlane(t)
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	run := func(name string) beside {
		return runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: app(t, name).Listener.Addr().String()})
	}
	first := run("first")
	eventually(t, "the first answers", func() bool { _, _, body := shop.through("orders", "/"); return body == "first" })
	second := run("second")
	eventually(t, "the second says what is wrong", func() bool { return strings.Contains(second.ready(), "each needs its own") })
	if _, _, body := shop.through("orders", "/"); body != "first" || first.ready() != "ready\n" {
		t.Errorf("%q answers, and the first is %q", body, first.ready())
	}
	first.stop()
	eventually(t, "the second is ready", func() bool { return second.ready() == "ready\n" })
	eventually(t, "the second answers", func() bool { _, _, body := shop.through("orders", "/"); return body == "second" })
}
