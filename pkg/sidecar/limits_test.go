package sidecar

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

func TestConnectionsLeaveDescriptorsForTheirInstances(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		listeners   int
		want        int
	}{
		{0, 2, 5}, {256, 2, 5}, {1024, 2, 256}, {20_000, 1, 0}, {20_000, 2, 6581}, {30_256, 2, 0}, {1 << 63, 2, 0},
		{0, 4, 4}, {1024, 4, 128}, {30_256, 4, 5000}, {60_256, 4, 0},
	} {
		got := maxConnections(c.descriptors, c.listeners)
		if got != c.want {
			t.Errorf("%d descriptors, %d listeners: %d, want %d", c.descriptors, c.listeners, got, c.want)
		}
	}
	for few, want := range map[uint64]int{0: 8, 1024: 256, 20_000: 6582, 1 << 63: 20_000} {
		if got := maxUpstream(few, 2); got != want {
			t.Errorf("%d descriptors: %d connections to instances, want %d", few, got, want)
		}
	}
	for few, want := range map[uint64]int{0: 16, 1024: 16, 1 << 63: 0} {
		if got := maxPipes(few, 4); got != want {
			t.Errorf("%d descriptors: %d pipes for each of four listeners, want %d", few, got, want)
		}
	}
	if descriptors() < 256 {
		t.Errorf("this process may open %d files", descriptors())
	}
}

func TestPortsShareTheDescriptors(t *testing.T) {
	caller := Config{ControlPlane: "x", TCPUpstreams: make([]string, 2)}
	both := caller
	both.Workload.AppAddr = "127.0.0.1:1"
	for _, c := range []struct {
		config Config
		boot   codec.Bootstrap
		want   int
	}{
		{caller, codec.Bootstrap{}, 3},
		{both, codec.Bootstrap{}, 4},
		{Config{}, codec.Bootstrap{Listeners: make([]mesh.Listener, 3)}, 3},
		{Config{}, codec.Bootstrap{}, 1},
	} {
		if got := c.config.ports(c.boot); got != c.want {
			t.Errorf("%d ports, want %d", got, c.want)
		}
	}
}
