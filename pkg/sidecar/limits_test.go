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
	for few, want := range map[uint64]int{0: 8, 1024: 384, 20_000: 9872, 1 << 63: 20_000} {
		if got := maxUpstream(few); got != want {
			t.Errorf("%d descriptors: %d connections to instances, want %d", few, got, want)
		}
	}
	if descriptors() < 256 {
		t.Errorf("this process may open %d files", descriptors())
	}
}
