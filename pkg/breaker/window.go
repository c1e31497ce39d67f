package breaker

import (
	"runtime"
	"sync/atomic"
)

const (
	buckets    = 10
	maxStripes = 8
)

// window counts successes and failures over the last ten buckets of time.
//
// Nothing clears a bucket when time moves on: every count carries the number of
// the bucket it was made in, a reader skips numbers out of the window, and a
// writer that finds an older number starts again at one. So an idle gap, however
// long, forgets everything, and costs nothing.
//
// Successes are counted without a lock, on one of several stripes, because they
// are the traffic. Failures are counted under the breaker's mutex, which their
// caller holds anyway to decide.
type window struct {
	width   int64 // of a bucket, in nanoseconds
	stripes []stripe

	failures [buckets]failureBucket // guarded by Breaker.mu
}

// stripe holds a share of the successes. Its cells are
// number of the bucket modulo 2^32 (32 bits) | successes (32 bits). The number
// repeats after 1.3 years of the narrowest buckets.
type stripe struct {
	cells [buckets]atomic.Uint64
	_     [128 - buckets*8]byte // two cache lines: neighbours are fetched in pairs
}

type failureBucket struct {
	number int64
	count  uint64
}

// newWindow returns a window over span nanoseconds.
func newWindow(span int64) *window {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxStripes {
		n *= 2
	}
	return &window{width: span / buckets, stripes: make([]stripe, n)}
}

// success counts one success. It is concurrency safe.
func (w *window) success(now int64) {
	// The low bits of now differ between processors like dice: Fibonacci hashing
	// makes a stripe of them without the price of a random number.
	spread := uint64(now) * 0x9E3779B97F4A7C15 >> 32
	number := now / w.width
	cell := &w.stripes[int(spread)&(len(w.stripes)-1)].cells[number%buckets]
	for {
		old := cell.Load()
		switch age := int32(uint32(number) - uint32(old>>32)); {
		case age == 0 && old != 0:
			// Should the bucket be restarted just now, this lands in the new one.
			cell.Add(1)
			return
		case old != 0 && late(int64(age)):
			return
		default:
			if cell.CompareAndSwap(old, uint64(uint32(number))<<32|1) {
				return
			}
		}
	}
}

// failure counts one failure. The caller holds Breaker.mu.
func (w *window) failure(now int64) {
	number := now / w.width
	b := &w.failures[number%buckets]
	switch age := number - b.number; {
	case age == 0:
		b.count++
	case !late(age):
		*b = failureBucket{number, 1}
	}
}

// late says whether a count with this age belongs to a bucket that is out of the
// window already for others. Beyond two windows ahead it is the clock that stepped
// back, and what it left behind must not block the bucket.
func late(age int64) bool { return age < 0 && age > -2*buckets }

// counts sums the window that ends now. The caller holds Breaker.mu.
func (w *window) counts(now int64) (requests, failures uint64) {
	newest := now / w.width
	for number := max(0, newest-buckets+1); number <= newest; number++ {
		slot := number % buckets
		if w.failures[slot].number == number {
			failures += w.failures[slot].count
		}
		for i := range w.stripes {
			if cell := w.stripes[i].cells[slot].Load(); uint32(cell>>32) == uint32(number) {
				requests += cell & (1<<32 - 1)
			}
		}
	}
	return requests + failures, failures
}

// clear forgets everything. The caller holds Breaker.mu.
func (w *window) clear() {
	w.failures = [buckets]failureBucket{}
	for i := range w.stripes {
		for j := range w.stripes[i].cells {
			w.stripes[i].cells[j].Store(0)
		}
	}
}
