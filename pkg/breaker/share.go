package breaker

import (
	"fmt"
	"sync/atomic"
)

// Share bounds how many hosts of one cluster may be ejected at the same time, so
// that breakers never take a whole service away. All breakers of the cluster are
// made [WithShare] the same one. A host is ejected from the moment its breaker
// opens until it closes, half-open included. Hosts that get no requests for another
// reason are not counted, and their breakers are suspended: see [Breaker.Suspend].
//
// Of n hosts at percent p there may be ejected
//
//	n ≥ 2:  max(1, ⌊n·p/100⌋)
//	n = 1:  none, or one at 100 %: the only host of a service is worth trying
//	n = 0:  none
//
// The bound is exact however many hosts fail at once: places are taken by one
// compare-and-swap. It binds at the moment of opening: when n or p shrinks, hosts
// ejected before stay so and no other is ejected until the number fits again.
//
// A breaker that may not open stays closed with its evidence: each further failure
// asks again, so the worst host gets the next free place.
//
// This type is concurrency safe.
type Share struct {
	packed atomic.Uint64 // percent (8 bits) | hosts (28) | ejected (28)
}

const (
	hostBits = 28
	hostMask = 1<<hostBits - 1
)

// MaxHosts is the largest number of hosts of a [Share]; more count as so many.
const MaxHosts = hostMask

// NewShare returns a Share for a cluster of hosts hosts, 0 to [MaxHosts], of which
// percent, 1 to 100, may be ejected. It returns an error if percent is out of range.
func NewShare(percent, hosts int) (*Share, error) {
	if !within(percent, 1, 100) {
		return nil, fmt.Errorf("ejection share is %d %%, not 1 to 100 %%", percent)
	}
	s := new(Share)
	s.packed.Store(packShare(uint64(percent), uint64(clampHosts(hosts)), 0))
	return s, nil
}

// SetHosts sets the number of hosts in the cluster, 0 to [MaxHosts].
func (s *Share) SetHosts(n int) {
	for {
		old := s.packed.Load()
		if s.packed.CompareAndSwap(old, packShare(old>>(2*hostBits), uint64(clampHosts(n)), old&hostMask)) {
			return
		}
	}
}

// SetPercent sets the percentage that may be ejected, 1 to 100. It returns an error
// and changes nothing if percent is out of range.
func (s *Share) SetPercent(percent int) error {
	if !within(percent, 1, 100) {
		return fmt.Errorf("ejection share is %d %%, not 1 to 100 %%", percent)
	}
	for {
		old := s.packed.Load()
		if s.packed.CompareAndSwap(old, packShare(uint64(percent), old>>hostBits&hostMask, old&hostMask)) {
			return nil
		}
	}
}

// Ejected returns how many hosts are ejected now.
func (s *Share) Ejected() int { return int(s.packed.Load() & hostMask) }

// Limit returns how many hosts may be ejected at the same time.
func (s *Share) Limit() int { return int(shareLimit(s.packed.Load())) }

// take takes a place, if there is one. A nil Share has always one.
func (s *Share) take() bool {
	if s == nil {
		return true
	}
	for {
		old := s.packed.Load()
		if old&hostMask >= shareLimit(old) {
			return false
		}
		if s.packed.CompareAndSwap(old, old+1) {
			return true
		}
	}
}

// give gives back a place that was taken.
func (s *Share) give() {
	if s != nil {
		s.packed.Add(^uint64(0))
	}
}

func shareLimit(packed uint64) uint64 {
	percent, hosts := packed>>(2*hostBits), packed>>hostBits&hostMask
	limit := hosts * percent / 100
	if hosts >= 2 {
		limit = max(1, limit)
	}
	return limit
}

func packShare(percent, hosts, ejected uint64) uint64 {
	return percent<<(2*hostBits) | hosts<<hostBits | ejected
}

func clampHosts(n int) int { return min(max(n, 0), MaxHosts) }
