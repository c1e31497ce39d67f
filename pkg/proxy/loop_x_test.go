package proxy_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// lead makes instances of the rig's service at addresses.
func (r *rig) lead(addresses ...string) {
	r.t.Helper()
	a := mesh.LoadAssignment{Cluster: "c"}
	for _, address := range addresses {
		a.Endpoints = append(a.Endpoints, mesh.Endpoint{Instance: address, Address: netip.MustParseAddrPort(address), Weight: 1})
	}
	if err := r.set.Assign(a); err != nil {
		r.t.Fatal(err)
	}
}

func TestAnInstanceAtTheProxysOwnPortIsNotCalled(t *testing.T) {
	app := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := start(t, nil)
	r.set.Own(netip.MustParseAddrPort(r.addr))
	r.lead(r.addr)
	resp, _ := r.do("GET", "/", nil)
	if resp.StatusCode != 508 || resp.Header.Get("fairlead-reason") != "loop" {
		t.Errorf("%d, %q", resp.StatusCode, resp.Header.Get("fairlead-reason"))
	}
	if n := r.server.Connections(); n > 1 {
		t.Errorf("%d connections to the proxy, of which the client has one", n)
	}
	r.lead(r.addr, app)
	for range 10 { // not even a POST, which is not repeated, is lost by it
		if resp, _ := r.do("POST", "/", nil); resp.StatusCode != 200 {
			t.Errorf("beside one that is well: %d, %q", resp.StatusCode, resp.Header.Get("fairlead-reason"))
		}
	}
}
