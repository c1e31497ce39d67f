package upstream

import (
	"math/rand/v2"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
)

// Refusal is why a cluster gives no host.
type Refusal uint8

// The refusals of [Cluster.Begin].
const (
	Granted      Refusal = iota // no refusal
	NoEndpoints                 // the cluster is known and empty
	NoHealthy                   // no host is healthy, or all breakers are open
	LimitReached                // too many requests are in flight in the cluster
	AllTried                    // every host that may be used was tried
)

// String returns a plain sentence.
func (r Refusal) String() string {
	return [...]string{
		"granted",
		"the service has no instances",
		"the service has no instance that can be used now: all are unhealthy, draining or have an open circuit breaker",
		"the limit of requests in flight to the service is reached",
		"every usable instance was tried",
	}[r]
}

// Attempt is the right to use one host once: a lease of its load counter and a
// permit of its breaker. It is a value; its owner calls Done once.
type Attempt struct {
	// Four words: a fifth would make the compiler pass it through memory, which doubles
	// what Begin and Done cost.

	Host   *Host // nil where none was granted
	lease  lb.Lease
	permit breaker.Permit
	gate   *breaker.Breaker
}

// Probe reports whether the attempt finds out if an open breaker can close.
func (a *Attempt) Probe() bool { return a.permit.Probe() }

// BreakerState returns the state at now of the host's breaker, closed if it has none. It
// may be asked after Done.
func (a *Attempt) BreakerState(now int64) breaker.State {
	if a.gate == nil {
		return breaker.Closed
	}
	return a.gate.State(now)
}

// Begin picks a host other than those in tried and takes what is needed to use
// it: cluster limit → pick → permit of the host, and if that is refused those of
// others. It adds the host to tried; hosts that refused, of which it returns the
// number, may be asked again by a retry. It does not block or allocate.
func (c *Cluster) Begin(now int64, tried *lb.Tried) (attempt Attempt, refused int, refusal Refusal) {
	limits := c.limits.Load()
	if n := c.active.Add(1); limits.requests > 0 && n > limits.requests {
		c.active.Add(-1)
		c.refused.Store(now)
		return Attempt{}, 0, LimitReached
	}
	attempt, refused, refusal = c.pick(now, tried)
	if refusal != Granted {
		c.active.Add(-1)
	}
	return attempt, refused, refusal
}

func (c *Cluster) pick(now int64, tried *lb.Tried) (_ Attempt, refused int, _ Refusal) {
	set := c.hosts.Load()
	if len(set.usable) == 0 {
		if set.total == 0 {
			return Attempt{}, 0, NoEndpoints
		}
		return Attempt{}, 0, NoHealthy
	}
	passed := *tried // and those that this pick is through with
	var slow *Host
	for range maxPicks {
		var i int
		if passed.Len() == 0 {
			i = set.picker.Pick()
		} else {
			i = set.picker.PickExcept(passed)
		}
		if i < 0 {
			break
		}
		h := set.usable[i]
		passed.Add(&h.load)
		if !h.admits(now) {
			slow = h
			continue
		}
		if attempt, ok := h.grant(now, set.panic); ok {
			tried.Add(&h.load)
			return attempt, refused, Granted
		}
		refused++
	}
	// Half-open hosts with all their probes out look idle to a picker that counts
	// requests, so that it may name them again and again beside hosts that are well.
	start := rand.IntN(len(set.usable))
	for i := range set.usable {
		h := set.usable[(start+i)%len(set.usable)]
		if passed.Has(&h.load) {
			continue
		}
		if !h.admits(now) {
			slow = h
			continue
		}
		if attempt, ok := h.grant(now, set.panic); ok {
			tried.Add(&h.load)
			return attempt, refused, Granted
		}
		refused++
	}
	if slow != nil { // better than none
		if attempt, ok := slow.grant(now, set.panic); ok {
			tried.Add(&slow.load)
			return attempt, refused, Granted
		}
		refused++
	}
	if tried.Len() > 0 {
		return Attempt{}, refused, AllTried
	}
	return Attempt{}, refused, NoHealthy
}

// grant takes the permit of the host's breaker, if it has one. In panic it does without,
// and the breaker hears nothing of the attempt.
func (h *Host) grant(now int64, panicking bool) (Attempt, bool) {
	gate := h.breaker.Load()
	if gate == nil {
		return Attempt{Host: h, lease: h.load.Lease()}, true
	}
	permit, ok := gate.Acquire(now)
	if !ok && !panicking {
		return Attempt{}, false
	}
	return Attempt{Host: h, lease: h.load.Lease(), permit: permit, gate: gate}, true
}

// Settle tells the breaker how the attempt goes while it goes on, as a connection does that
// is relayed for hours. Of what Done says later, the breaker hears nothing. It may be called
// once, and not after Done.
func (a *Attempt) Settle(outcome breaker.Outcome, now int64) {
	if a.gate != nil {
		a.gate.Done(a.permit, outcome, now)
		a.gate = nil
	}
}

// Yield lets another attempt find out whether the host works, beside one that does so and whose
// outcome is not due yet though the host lives. It may be called while the attempt goes on, and
// after its end does nothing.
func (a *Attempt) Yield() {
	if a.gate != nil {
		a.gate.Yield(a.permit)
	}
}

// Done gives the attempt back and tells the breaker how it went.
func (a *Attempt) Done(outcome breaker.Outcome, now int64) {
	if a.Host == nil {
		return
	}
	a.lease.Done()
	if a.gate != nil {
		a.gate.Done(a.permit, outcome, now)
	}
	h := a.Host
	h.cluster.active.Add(-1)
	if outcome == breaker.Failure {
		h.failures.Add(1)
	}
	a.Host = nil
}
