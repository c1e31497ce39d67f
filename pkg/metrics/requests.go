package metrics

import (
	"sync/atomic"
	"time"
)

// bucketCount is the number of buckets of a duration, +Inf's included.
const bucketCount = 17

// bucketOf returns the index in [DurationBuckets] of the first bound that is
// not below d. Most requests are fast, so looking from the front takes three
// comparisons, and a switch of constants no memory.
func bucketOf(d time.Duration) int {
	switch {
	case d <= 500*time.Microsecond:
		return 0
	case d <= time.Millisecond:
		return 1
	case d <= 2500*time.Microsecond:
		return 2
	case d <= 5*time.Millisecond:
		return 3
	case d <= 10*time.Millisecond:
		return 4
	case d <= 25*time.Millisecond:
		return 5
	case d <= 50*time.Millisecond:
		return 6
	case d <= 100*time.Millisecond:
		return 7
	case d <= 250*time.Millisecond:
		return 8
	case d <= 500*time.Millisecond:
		return 9
	case d <= time.Second:
		return 10
	case d <= 2500*time.Millisecond:
		return 11
	case d <= 5*time.Second:
		return 12
	case d <= 10*time.Second:
		return 13
	case d <= 30*time.Second:
		return 14
	case d <= 60*time.Second:
		return 15
	default:
		return bucketCount - 1
	}
}

// series is what is counted of the requests of one source, destination, code
// and reason. The number of requests is the sum of the buckets. A scrape may
// see a request in one field and not yet in another.
type series struct {
	buckets       [bucketCount]atomic.Uint64
	nanoseconds   atomic.Uint64
	requestBytes  atomic.Uint64
	responseBytes atomic.Uint64
}

func (s *series) add(d time.Duration, requestBytes, responseBytes uint64) {
	d = max(d, 0)
	s.buckets[bucketOf(d)].Add(1)
	s.nanoseconds.Add(uint64(d))
	s.requestBytes.Add(requestBytes)
	s.responseBytes.Add(responseBytes)
}

// Status codes are three digits whose first is 1 to 5 (RFC 9110, section 15);
// class 0 holds the requests without a valid one.
const (
	classes    = 6
	classCodes = 100
)

// page holds the series of one reason and class, by the code's last two digits.
type page [classCodes]atomic.Pointer[series]

// Requests are the handles of one source and destination. It is safe for
// concurrent use; Begin, Done and Call take no lock and do not allocate, except the
// first Done of a code and reason and the first Call of a status.
type Requests struct {
	proxy       *Proxy
	source      string
	destination string

	inFlight atomic.Int64
	pages    []atomic.Pointer[page]          // by reason and class
	calls    []atomic.Pointer[atomic.Uint64] // by gRPC status
}

// Begin counts a request as in flight. Each Begin is followed by one Done.
func (r *Requests) Begin() { r.inFlight.Add(1) }

// HandOver makes a request that was begun here one that was begun at to, whose
// destination is known only now.
func (r *Requests) HandOver(to *Requests) {
	to.inFlight.Add(1)
	r.inFlight.Add(-1)
}

// Done counts a request that was begun: its status code (0 if no response was
// sent), the index of its reason in the table given to [NewProxy], how long it
// took and the bytes of its bodies. A code outside 100 to 599 counts as 0, a
// reason outside the table as "other".
func (r *Requests) Done(code, reason int, d time.Duration, requestBytes, responseBytes uint64) {
	r.inFlight.Add(-1)
	r.series(code, reason).add(d, requestBytes, responseBytes)
}

// Call counts a gRPC call that ended with a status: its index in the table given to
// [Proxy.GRPC]. One outside the table is not counted.
func (r *Requests) Call(status int) {
	if status < 0 || status >= len(r.calls) {
		return
	}
	n := r.calls[status].Load()
	if n == nil {
		n = r.proxy.resolveCall(r, status)
	}
	n.Add(1)
}

func (r *Requests) series(code, reason int) *series {
	if code < 100 || code > 599 {
		code = 0
	}
	if reason < 0 || reason >= len(r.proxy.reasons) {
		return r.proxy.overflow
	}
	if p := r.pages[reason*classes+code/classCodes].Load(); p != nil {
		if s := p[code%classCodes].Load(); s != nil {
			return s
		}
	}
	return r.proxy.resolve(r, code, reason)
}
