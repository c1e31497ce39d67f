package accesslog

import "sync/atomic"

// cacheLine keeps counters that different cores write apart. 64 bytes on amd64
// and arm64, twice that because amd64 fetches lines in pairs.
const cacheLine = 128

// sealed is the bit of ring.tail that refuses further entries.
const sealed = 1 << 63

// ring is a bounded queue for many producers and one consumer, after Dmitry
// Vyukov's bounded MPMC queue: each slot has a sequence number that says whose
// turn it is. Slot i is free for the producer of position p = i + n·len when
// its number is p, and full for the consumer when it is p+1.
type ring struct {
	slots []slot // length is a power of two
	mask  uint64

	_    [cacheLine]byte
	tail atomic.Uint64 // next position to be filled, with the sealed bit; producers
	_    [cacheLine]byte
	head uint64 // next position to be read; the consumer alone
}

type slot struct {
	sequence atomic.Uint64
	record   record
}

// newRing returns a ring of at least the given number of slots.
func newRing(slots int) *ring {
	size := 2
	for size < slots {
		size *= 2
	}
	r := &ring{slots: make([]slot, size), mask: uint64(size - 1)}
	for i := range r.slots {
		r.slots[i].sequence.Store(uint64(i))
	}
	return r
}

// put copies e into a slot and returns its position. It fails when the ring is
// full or sealed. It never waits.
func (r *ring) put(e *Entry) (position uint64, ok bool) {
	position = r.tail.Load()
	for {
		if position&sealed != 0 {
			return 0, false
		}
		s := &r.slots[position&r.mask]
		switch sequence := s.sequence.Load(); {
		case sequence == position:
			if r.tail.CompareAndSwap(position, position+1) {
				s.record.set(e)
				s.sequence.Store(position + 1)
				return position, true
			}
			position = r.tail.Load()
		case sequence < position:
			return 0, false // the consumer has not read it yet: full
		default:
			position = r.tail.Load() // another producer was faster
		}
	}
}

// next returns the oldest record, or nil if there is none. The record is the
// consumer's until release.
func (r *ring) next() *record {
	s := &r.slots[r.head&r.mask]
	if s.sequence.Load() != r.head+1 {
		return nil
	}
	return &s.record
}

// release gives the record of next back to the producers.
func (r *ring) release() {
	r.slots[r.head&r.mask].sequence.Store(r.head + uint64(len(r.slots)))
	r.head++
}

// seal refuses further entries.
func (r *ring) seal() { r.tail.Or(sealed) }

// drained reports whether a sealed ring holds nothing and no producer is still
// copying into it.
func (r *ring) drained() bool { return r.tail.Load() == r.head|sealed }
