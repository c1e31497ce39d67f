package xdsserver

import (
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"weak"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	server "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// A request may have 4 MiB, of which names alone count against a bound. The stream servers
// pass over a request with an old nonce, so that no watch comes of it.
func TestRequestsAreNotKeptWhetherAWatchComesOfThemOrNot(t *testing.T) {
	for _, watched := range []bool{true, false} {
		c := NewCache(slog.New(slog.DiscardHandler))
		delta, sotw := streamID{delta: true, id: 1}, streamID{id: 1}
		for _, id := range []streamID{delta, sotw} {
			if err := c.open(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		long := strings.Repeat("x", 1<<20)
		r := &discovery.DeltaDiscoveryRequest{TypeUrl: codec.ClusterURL, ResponseNonce: long, ErrorDetail: &statuspb.Status{Message: long}}
		q := &discovery.DiscoveryRequest{TypeUrl: codec.EndpointsURL, ResponseNonce: long, ErrorDetail: &statuspb.Status{Message: long}}
		if err := (&deltaCallbacks{c: c}).OnStreamDeltaRequest(1, r); err != nil {
			t.Fatal(err)
		}
		if err := (&sotwCallbacks{c: c}).OnStreamRequest(1, q); err != nil {
			t.Fatal(err)
		}
		if watched {
			if _, err := c.CreateDeltaWatch(r, server.NewDeltaSubscription(nil, nil, nil, false), make(chan cache.DeltaResponse, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateWatch(q, server.NewSotwSubscription(nil, false), make(chan cache.Response, 1)); err != nil {
				t.Fatal(err)
			}
		}
		first, second := weak.Make(r), weak.Make(q)
		runtime.GC()
		if first.Value() != nil || second.Value() != nil {
			t.Errorf("watched %v: delta kept %v, state of the world %v", watched, first.Value() != nil, second.Value() != nil)
		}
		c.closed(delta)
		c.closed(sotw)
		if n := len(c.links); n > 0 {
			t.Errorf("%d streams are left", n)
		}
	}
}

// A client that asks for the same again and again and never answers owes an answer about each
// resource once.
func TestOfEachResourceTheLastResponseIsOwedAnAnswer(t *testing.T) {
	c := NewCache(slog.New(slog.DiscardHandler))
	var all []codec.Encoded
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, codec.Encoded{Type: codec.TypeCluster, Name: name, Version: "v1"})
	}
	c.Update(all, nil, 1)
	c.SetSynced()
	id, d := streamID{delta: true, id: 1}, &deltaCallbacks{c: c}
	if err := c.open(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	sub := server.NewDeltaSubscription(nil, nil, nil, false)
	// ask sends a request, and the response that comes of it is nonce.
	ask := func(nonce string, r *discovery.DeltaDiscoveryRequest) {
		t.Helper()
		r.TypeUrl = codec.ClusterURL
		answers := make(chan cache.DeltaResponse, 1)
		if err := d.OnStreamDeltaRequest(1, r); err != nil {
			t.Fatal(err)
		}
		sub.UpdateResourceSubscriptions(r.GetResourceNamesSubscribe(), nil)
		if _, err := c.CreateDeltaWatch(r, sub, answers); err != nil {
			t.Fatal(err)
		}
		if nonce == "" {
			return
		}
		out, err := (<-answers).GetDeltaDiscoveryResponse()
		if err != nil {
			t.Fatal(err)
		}
		out.Nonce = nonce
		d.OnStreamDeltaResponse(1, r, out)
	}
	ask("1", &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "b", "c"}})
	for range 10 {
		ask("2", &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"b"}})
		ask("3", &discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"c"}})
	}
	owed := 0
	for _, o := range c.streams[id].subscriptions[codec.TypeCluster].outstanding {
		owed += len(o.resources)
	}
	if owed != 3 {
		t.Errorf("answers about %d resources are owed, want 3", owed)
	}
	applied := func() (names string) {
		for _, a := range c.Clients()[0].Types[0].Applied {
			names += a.Name
		}
		return names
	}
	for _, step := range []struct{ nonce, applied string }{{"1", "a"}, {"2", "ab"}, {"3", "abc"}} {
		ask("", &discovery.DeltaDiscoveryRequest{ResponseNonce: step.nonce})
		if got := applied(); got != step.applied {
			t.Errorf("after the answer to %s it has applied %q, want %q", step.nonce, got, step.applied)
		}
	}
}
