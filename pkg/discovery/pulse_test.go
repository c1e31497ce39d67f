package discovery

import (
	"testing"
	"time"
)

func TestStreamsThatEndedBecauseThisProcessStoodStillHaveALongGrace(t *testing.T) {
	for _, c := range []struct {
		name  string
		beats []time.Duration // after the start
		end   time.Duration
		want  time.Duration
	}{
		{"beating", []time.Duration{1, 2 * time.Second, 4 * time.Second}, 5 * time.Second, lostGrace},
		{"before it beats", nil, time.Hour, lostGrace},
		{"a beat is a little late", []time.Duration{1, 2900 * time.Millisecond}, 3 * time.Second, lostGrace},
		{"stood still, and no beat has noticed", []time.Duration{1}, 20 * time.Second, orphanGrace},
		{"stood still, and a beat has noticed", []time.Duration{1, 20 * time.Second}, 20*time.Second + 1, orphanGrace},
		{"stood still, a while ago", []time.Duration{1, 20 * time.Second, 22 * time.Second, 24 * time.Second, 26 * time.Second, 28 * time.Second},
			29 * time.Second, orphanGrace},
		{"stood still, long ago", []time.Duration{1, 20 * time.Second, 22 * time.Second, 24 * time.Second, 26 * time.Second, 28 * time.Second, 30 * time.Second},
			30*time.Second + 1, lostGrace},
	} {
		p := newPulse()
		for _, at := range c.beats {
			p.beat(p.start.Add(at))
		}
		if got := p.grace(p.start.Add(c.end)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
