package xdsserver

import (
	"log/slog"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// The stream servers keep the node as long as the stream, and Envoy's lists all of its
// extensions.
func TestOfANodeOnlyWhatIsShownIsKept(t *testing.T) {
	c := NewCache(slog.New(slog.DiscardHandler))
	id := streamID{delta: true, id: 1}
	if err := c.open(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n := &core.Node{
		Id: "n1", Cluster: "svc.default", UserAgentName: strings.Repeat("u", 5000),
		Metadata:   &structpb.Struct{Fields: map[string]*structpb.Value{"big": structpb.NewStringValue(strings.Repeat("x", 1<<20))}},
		Extensions: []*core.Extension{{Name: "envoy.filters.http.router"}},
	}
	for range 2 { // the stream servers put it into every request that has none
		r := &discovery.DeltaDiscoveryRequest{Node: n, TypeUrl: codec.ClusterURL}
		if err := (&deltaCallbacks{c: c}).OnStreamDeltaRequest(1, r); err != nil {
			t.Fatal(err)
		}
		if n.GetMetadata() != nil || n.GetExtensions() != nil || len(n.GetUserAgentName()) > 2000 {
			t.Errorf("kept: %.200v", n)
		}
		if shown := c.Clients()[0]; shown.Node != "n1" || shown.Service != "svc.default" || len(shown.UserAgent) < 1000 {
			t.Errorf("shown: %+v", shown)
		}
	}
}
