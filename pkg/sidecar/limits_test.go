package sidecar

import "testing"

func TestConnectionsLeaveDescriptorsForTheirInstances(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		want        int
	}{
		{0, 4}, {256, 4}, {1024, 192}, {20_000, 4936}, {40_256, 0}, {1 << 63, 0},
	} {
		got := maxConnections(c.descriptors)
		if got != c.want {
			t.Errorf("%d descriptors: %d, want %d", c.descriptors, got, c.want)
		}
	}
	if descriptors() < 256 {
		t.Errorf("this process may open %d files", descriptors())
	}
}
