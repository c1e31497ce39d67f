package controlplane_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

func TestFlagsOfASidecarReachTheRegistry(t *testing.T) {
	addresses := runControlPlane(t)
	asked := make(chan string, 100)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		select {
		case asked <- q.URL.Path:
		default:
		}
	}))
	defer app.Close()
	t.Setenv("FAIRLEAD_ZONE", "z1") // as a flag, if there is none
	t.Setenv("FAIRLEAD_WEIGHT", "9")
	ctx, cancel := context.WithCancel(context.Background())
	var told bytes.Buffer
	command := sidecar.Command()
	command.SetContext(ctx)
	command.SetErr(&told)
	command.SetArgs([]string{
		"--control-plane", addresses.GRPC.String(), "--service", "orders", "--namespace", "shop", "--instance-id", "o1",
		"--app-addr", app.Listener.Addr().String(), "--advertise-addr", "10.1.2.3:4321", "--weight", "7",
		"--label", "version=v1,tier=front", "--label", "empty=", "--health-path", "/healthy",
		"--inbound-addr", "127.0.0.1:0", "--outbound-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
		"--access-log", "off", "--log-level", "error",
	})
	ended := make(chan int, 1)
	go func() { ended <- flags.Execute(command) }()
	defer func() {
		cancel()
		if code := <-ended; code != flags.ExitOK {
			t.Errorf("exit code %d: %s", code, told.String())
		}
	}()
	var got struct {
		Address, Zone, Status string
		InboundPort, Weight   int
		Labels                map[string]string
		Ports                 []struct {
			Name, Protocol string
			Number         int
		}
	}
	at := "http://" + addresses.HTTP.String() + "/v1/namespaces/shop/services/orders/instances/o1"
	eventually(t, "it is registered, and healthy", func() bool {
		return json.Unmarshal([]byte(ask(at)), &got) == nil && got.Status == "HEALTHY"
	})
	if got.Address != "10.1.2.3" || got.InboundPort != 4321 || got.Zone != "z1" || got.Weight != 7 ||
		!maps.Equal(got.Labels, map[string]string{"version": "v1", "tier": "front", "empty": ""}) {
		t.Errorf("registered: %+v", got)
	}
	if len(got.Ports) != 1 || got.Ports[0].Number != portOf(app.Listener.Addr()) || got.Ports[0].Protocol != "HTTP" {
		t.Errorf("ports: %+v", got.Ports)
	}
	if path := <-asked; path != "/healthy" {
		t.Errorf("its health was asked for at %s", path)
	}
}
