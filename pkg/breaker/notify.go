package breaker

import "slices"

// Reason says why a breaker changed its state.
type Reason uint8

// The reasons of a [Change]. Each belongs to one transition.
const (
	ConsecutiveFailuresReached Reason = iota + 1 // closed → open
	FailureRatioReached                          // closed → open
	OpenTimeOver                                 // open → half-open
	ProbeFailed                                  // half-open → open
	ProbesSucceeded                              // half-open → closed
	Retired                                      // open or half-open → closed
	Suspended                                    // open or half-open → closed
)

// String returns the reason as logs and metrics name it.
func (r Reason) String() string {
	switch r {
	case ConsecutiveFailuresReached:
		return "consecutive_failures"
	case FailureRatioReached:
		return "failure_ratio"
	case OpenTimeOver:
		return "open_time_over"
	case ProbeFailed:
		return "probe_failed"
	case ProbesSucceeded:
		return "probes_succeeded"
	case Retired:
		return "retired"
	case Suspended:
		return "suspended"
	default:
		return "unknown"
	}
}

// Change is one transition of a breaker.
type Change struct {
	From, To State
	Reason   Reason
	At       int64  // the now of the call that caused it; 0 for Retired
	Sequence uint32 // grows by one with each transition; a gap means changes were lost
}

// maxPending bounds the changes that wait for a slow listener. The oldest is
// dropped, since the latest state is what a listener must not miss.
const maxPending = 64

// enqueue remembers a change for delivery. The caller holds b.mu and calls deliver
// after it has released it.
func (b *Breaker) enqueue(c Change) {
	if b.onChange == nil {
		return
	}
	if len(b.pending) == maxPending {
		b.pending = slices.Delete(b.pending, 0, 1)
	}
	b.pending = append(b.pending, c)
}

// deliver calls the listener with all pending changes, oldest first, unless a call
// up the stack or on another goroutine is at it already: that one goes on with ours.
func (b *Breaker) deliver() {
	for {
		b.mu.Lock()
		if b.delivering || len(b.pending) == 0 {
			b.mu.Unlock()
			return
		}
		b.delivering = true
		c := b.pending[0]
		b.pending = slices.Delete(b.pending, 0, 1)
		b.mu.Unlock()
		b.call(c)
	}
}

// call runs the listener. A panic or Goexit in it goes on up to the caller of the
// breaker, after the listener has been offered the rest.
func (b *Breaker) call(c Change) {
	returned := false
	defer func() {
		b.mu.Lock()
		b.delivering = false
		b.mu.Unlock()
		if !returned {
			b.deliver()
		}
	}()
	b.onChange(c)
	returned = true
}
