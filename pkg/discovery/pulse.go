package discovery

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// beatInterval is the time between two beats of a pulse.
	beatInterval = 500 * time.Millisecond
	// beatMissed is how long a pulse that beats is never silent, unless the process
	// stood still: it was stopped, or its machine was suspended.
	beatMissed = 3 * time.Second
)

// pulse notices that the process itself stood still. Streams that end then do so
// because this side was silent, and whoever held them needs time to come back: their
// tries have become rare.
type pulse struct {
	start  time.Time
	last   atomic.Int64 // beat, since start
	thawed atomic.Int64 // when the process went on, since start; 0: it never stood still
}

func newPulse() *pulse { return &pulse{start: time.Now()} }

// run beats until ctx ends.
func (p *pulse) run(ctx context.Context) {
	p.beat(time.Now())
	for sleep(ctx, beatInterval) {
		p.beat(time.Now())
	}
}

func (p *pulse) beat(now time.Time) {
	at := int64(now.Sub(p.start))
	if last := p.last.Swap(at); last != 0 && at-last > int64(beatMissed) {
		p.thawed.Store(at)
	}
}

// grace returns how long an instance is kept whose stream ended at now.
func (p *pulse) grace(now time.Time) time.Duration {
	at := int64(now.Sub(p.start))
	last, thawed := p.last.Load(), p.thawed.Load()
	still := last != 0 && at-last > int64(beatMissed) // no beat has noticed yet
	if still || thawed != 0 && at-thawed < int64(orphanGrace) {
		return orphanGrace
	}
	return lostGrace
}
