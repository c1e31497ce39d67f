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
