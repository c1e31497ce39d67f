// Package breaker keeps requests away from an endpoint that fails them.
//
// A [Breaker] guards one endpoint and is in one of three states:
//
//	        too many failures                 open time over, first request
//	closed ------------------> open ---------------------------------> half-open
//	  ^                         ^                                        |   |
//	  |                         +---------- a probe failed --------------+   |
//	  +-------------------- enough probes succeeded -------------------------+
//
// Who wants to send a request asks [Breaker.Acquire] for a [Permit] and gives it
// back with [Breaker.Done] and an [Outcome]. Users who want no more than a guarded
// function call use [Breaker.Execute].
//
// # What holds whatever callers do
//
//   - A permit is a value that carries the generation of the state that granted
//     it. The generation changes with the state, so a result that comes late is
//     recognised and not counted.
//   - A probe is a lease. Whoever got it and never reports (it hangs, panics,
//     exits its goroutine, forgets) holds its place for [Config.ProbeLease] and no
//     longer: then the next request takes the place over. Half-open cannot wedge.
//     An expired lease is no evidence, neither for nor against the endpoint:
//     it may be a long request as well as a lost permit. Its report counts
//     whenever it comes, as long as the breaker is still half-open.
//   - [Ignored] outcomes give the permit back and count for nothing. A caller that
//     went away, a 4xx answer, a local refusal are Ignored; so are answers that
//     signal overload (429, 503 with Retry-After), which are no hard failure and no
//     proof of health either. A body that breaks after a 200 is a [Failure].
//   - Never more than the agreed part of a cluster is ejected: see [Share].
//   - Listeners run outside every lock, in order, and may call the breaker.
//   - [Breaker.SetConfig] keeps the state.
//
// # Time
//
// The package has no clock. Callers pass now, nanoseconds ≥ 0 of a monotonic clock
// of their choice, the same for all calls on one Breaker. It may differ between
// goroutines by as much as a request lasts. Should it step back all the same, an
// open breaker waits at most one [Config.MaxOpenTime] from the new now on.
// Breaker.Execute reads the runtime's monotonic clock; do not mix it with Acquire
// and Done under another clock on one Breaker.
//
// # Cost
//
// While closed, Acquire is one atomic load. A success adds one load and, if the
// failure ratio is watched, one atomic add on one of several cache lines. A refusal
// is three loads. None of them locks or allocates. Failures, probes and changes of
// state take a mutex.
//
// # What it is not
//
// It does not ramp traffic up after closing, which is for who distributes it, probe by
// itself, retry, or limit concurrency. It starts no goroutine.
package breaker
