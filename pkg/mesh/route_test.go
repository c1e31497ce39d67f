package mesh

import (
	"math"
	"testing"
	"time"
)

func TestAConnectionGetsAsOldAsItMayAndAsChanceSays(t *testing.T) {
	const now = 1_000
	for _, c := range []struct {
		most   time.Duration
		jitter int32
		random float64
		want   int64
	}{
		{0, 0, 0.5, math.MaxInt64},
		{0, DefaultConnectionJitter, 0.5, math.MaxInt64},
		{100, 0, 0.5, now + 100},
		{100, 20, 0, now + 100},
		{100, 20, 0.5, now + 110},
		{100, 100, 0.99, now + 199},
		{100, DefaultConnectionJitter, 0, now + 100},
		{100, DefaultConnectionJitter, 0.5, now + 95},
	} {
		if got := OldAt(now, c.most, c.jitter, c.random); got != c.want {
			t.Errorf("at most %d and %d %%, by %v: %d, not %d", c.most, c.jitter, c.random, got, c.want)
		}
	}
}
