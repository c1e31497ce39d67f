package lb

import "sync/atomic"

// Host holds the live counters of one endpoint. The zero value is an idle host. It
// must not be copied after first use.
//
// This type is concurrency safe. It fills its own cache lines, so that hosts in use
// on different processors do not slow each other down.
type Host struct {
	_ [64]byte
	// work is requests ever (40 bits, wraps) | requests active (24 bits): one atomic
	// add counts both.
	work atomic.Uint64
	_    [56]byte
}

const (
	activeBits = 24
	activeMask = 1<<activeBits - 1
)

// Lease begins a use of the host, whatever its load.
func (h *Host) Lease() Lease {
	h.work.Add(1<<activeBits + 1)
	return Lease{h}
}

// Active returns the number of leases that are out, at most 16,777,215.
func (h *Host) Active() int { return int(h.work.Load() & activeMask) }

// Requests returns the number of leases ever given, modulo 2^40.
func (h *Host) Requests() uint64 { return h.work.Load() >> activeBits }

// Lease is the right to use a Host once. It is a value: pass it on, but do not copy
// it to end it twice. The zero Lease is of no host, and to end it does nothing.
type Lease struct{ host *Host }

// Host returns the host in use, nil after Done.
func (l *Lease) Host() *Host { return l.host }

// Done ends the use. A second Done on the same variable does nothing.
func (l *Lease) Done() {
	if l.host != nil {
		l.host.work.Add(^uint64(0))
		l.host = nil
	}
}
