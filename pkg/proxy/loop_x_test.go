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

func TestARequestThatGoesRoundIsEnded(t *testing.T) {
	got := make(chan string, 1)
	app := backend(t, func(_ http.ResponseWriter, q *http.Request) { got <- q.Header.Get("Fairlead-Hops") })
	r := start(t, []string{app})
	hops := func(n string) func(*http.Request) {
		return func(q *http.Request) {
			if n != "" {
				q.Header.Set("Fairlead-Hops", n)
			}
		}
	}
	r.do("GET", "/", nil, hops("3"))
	if n := <-got; n != "3" {
		t.Errorf("a proxy of no mesh makes %q of 3", n)
	}
	r = start(t, []string{app})
	r.set.Own(netip.MustParseAddrPort("127.0.0.1:1"))
	for came, want := range map[string]string{"": "1", "1": "2", "15": "16", "x": "1", "-4": "1"} {
		r.do("GET", "/", nil, hops(came))
		if n := <-got; n != want {
			t.Errorf("it makes %q of %q, not %q", n, came, want)
		}
	}
	for _, came := range []string{"16", "17", "99999999999999999999999999"} {
		if resp, _ := r.do("GET", "/", nil, hops(came)); resp.StatusCode != 508 || resp.Header.Get("fairlead-reason") != "loop" {
			t.Errorf("of %s: %d, %q", came, resp.StatusCode, resp.Header.Get("fairlead-reason"))
		}
	}
	if len(got) > 0 {
		t.Error("one that went round was passed on")
	}
}
