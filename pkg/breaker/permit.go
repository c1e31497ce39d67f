package breaker

// Permit is the right to send one request, granted by [Breaker.Acquire] and given
// back by [Breaker.Done]. It is a plain value: it may be copied, stored and dropped.
// The zero Permit, which a refused Acquire returns, is good for nothing and giving
// it back does nothing.
type Permit struct {
	generation uint32 // of the state that granted it; 0 in the zero Permit only
	probe      uint32 // serial of the lease it holds; 0: granted while closed
}

// Probe reports whether the request tests an endpoint that was ejected.
func (p Permit) Probe() bool { return p.probe != 0 }

// Outcome is what became of a request.
type Outcome uint8

const (
	// Ignored says nothing about the endpoint: the caller went away, a local rule
	// refused, the answer was a 4xx or asked to come back later.
	Ignored Outcome = iota
	// Success proves the endpoint works.
	Success
	// Failure is held against the endpoint.
	Failure
)

// String returns ignored, success or failure.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	default:
		return "ignored"
	}
}

// State is one of the three states of a breaker.
type State uint8

const (
	// Closed lets all requests through and counts their failures.
	Closed State = iota
	// Open refuses all requests until its time is over.
	Open
	// HalfOpen lets a few requests through as probes.
	HalfOpen
)

// String returns closed, open or half-open.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	default:
		return "half-open"
	}
}

// Refusal is the error of an [Breaker.Execute] that did not call its function.
type Refusal uint8 //nolint:errname // it is first of all a refusal, and reads as one: breaker.Refusal

const (
	// ErrOpen refuses because the endpoint failed too often.
	ErrOpen Refusal = iota + 1
	// ErrTooManyProbes refuses because as many requests as may are testing the
	// endpoint already.
	ErrTooManyProbes
)

// Error implements error.
func (r Refusal) Error() string {
	if r == ErrTooManyProbes {
		return "breaker is half-open and all its probes are out"
	}
	return "breaker is open"
}

// Code returns a short stable name for logs and metrics.
func (r Refusal) Code() string {
	if r == ErrTooManyProbes {
		return "breaker_probing"
	}
	return "breaker_open"
}

// word packs what a request must know about a breaker into one atomic load:
//
//	generation (32 bits) | state (2) | failures in a row while closed (30)
//
// so that no reader can see a count of one state under another.
type word uint64

const (
	countBits = 30
	countMask = 1<<countBits - 1
)

func makeWord(generation uint32, s State, count uint32) word {
	return word(generation)<<32 | word(s)<<countBits | word(count)
}

func (w word) generation() uint32      { return uint32(w >> 32) }
func (w word) state() State            { return State(w >> countBits & 3) }
func (w word) count() uint32           { return uint32(w & countMask) }
func (w word) withCount(n uint32) word { return w&^countMask | word(min(n, countMask)) }
func (w word) next(s State) word       { return makeWord(max(1, w.generation()+1), s, 0) }
func (w word) grantedBy(p Permit) bool { return w.generation() == p.generation }
