package discovery

import (
	"testing"
	"time"
)

func TestAPulseTellsWhenItsProcessWentOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		beats []time.Duration
		asked time.Duration
		want  time.Duration // 0: it never froze
	}{
		{"it has not begun", nil, time.Hour, 0},
		{"it began late", []time.Duration{time.Hour}, time.Hour, 0},
		{"it is busy", []time.Duration{1 * time.Second, 4 * time.Second, 6 * time.Second}, 9 * time.Second, 0},
		{"it was frozen", []time.Duration{1 * time.Second, 20 * time.Second, 21 * time.Second}, 22 * time.Second, 20 * time.Second},
		{"it was frozen twice", []time.Duration{1 * time.Second, 20 * time.Second, 40 * time.Second}, 41 * time.Second, 40 * time.Second},
		{"the beat is not there yet", []time.Duration{1 * time.Second}, 20 * time.Second, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p pulse
			began := time.Now()
			for _, b := range c.beats {
				p.beat(began.Add(b))
			}
			var want time.Time
			if c.want > 0 {
				want = began.Add(c.want)
			}
			if got := p.wentOn(began.Add(c.asked)); !got.Equal(want) {
				t.Errorf("went on at %v, want %v", got.Sub(began), c.want)
			}
		})
	}
}
