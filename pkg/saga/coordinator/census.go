package coordinator

import (
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// Census is how many sagas are in each state, and of how many shards.
type Census struct {
	Shards                                                int
	Running, Compensating, Parked, Completed, Compensated int64
}

// Census counts the sagas of the shards that are owned here, those that have ended and are kept among them. It does not block on what is under way.
func (c *Coordinator) Census() Census {
	var sum Census
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.owners {
		if o == nil {
			continue
		}
		sum.Shards++
		sum.Running += o.census.running.Load()
		sum.Compensating += o.census.compensating.Load()
		sum.Parked += o.census.parked.Load()
		sum.Completed += o.census.completed.Load()
		sum.Compensated += o.census.compensated.Load()
	}
	return sum
}

// census counts the sagas of a shard by state. Its loop writes it, and anybody reads it.
type census struct{ running, compensating, parked, completed, compensated, none atomic.Int64 }

// of returns the count of a state; of none, for a saga that is not there yet, or not any more.
func (c *census) of(s saga.State) *atomic.Int64 {
	switch s {
	case saga.Running:
		return &c.running
	case saga.Compensating:
		return &c.compensating
	case saga.Parked:
		return &c.parked
	case saga.Completed:
		return &c.completed
	case saga.Compensated:
		return &c.compensated
	default:
		return &c.none
	}
}

// become notes the state of an entry.
func (o *owner) become(e *entry, s saga.State) {
	if e.state == s {
		return
	}
	o.census.of(e.state).Add(-1)
	o.census.of(s).Add(1)
	e.state = s
}
