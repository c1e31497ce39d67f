package upstream

import "net"

// NewStreamForTest is what Dial makes of a connection.
func NewStreamForTest(h *Host, nc net.Conn) Stream {
	h.cluster.open.Add(1)
	h.cluster.set.open.Add(1)
	return newH1Stream(h, nc, nil)
}

// Alive reports whether the kernel knows of nothing against a stream's connection.
func Alive(s Stream) bool { return s.(*h1Stream).Alive() }

// Sweep is one round of Set's goroutine over a host.
func (h *Host) Sweep(now int64) { h.sweep(now) }

// Look is one round of the goroutine.
func (s *Set) Look(now int64, all bool) { s.look(now, all) }

// Parting is how many hosts that are retired are looked after.
func (s *Set) Parting() int {
	s.partingMu.Lock()
	defer s.partingMu.Unlock()
	return len(s.parting)
}

// Look takes an idle connection out as the sweep does; restore puts it back.
func (h *Host) Look(at int, now int64) (s Stream, restore func() bool) {
	c, _ := h.remove(at, now)
	if c == nil {
		return nil, nil
	}
	return c, func() bool {
		if h.restore(at, c) {
			return true
		}
		c.close()
		return false
	}
}

// The bounds on connections.
const (
	MaxIdle   = maxIdle
	MaxDials  = maxDials
	MaxQueued = maxQueued
)

// DialError is what Dial makes of an error of the network.
func DialError(err error) error { return dialError(err) }

// Dialling makes a host look as if so many connections to it were being opened, until
// done is called.
func (h *Host) Dialling(n int) (done func()) {
	for range n {
		h.dials <- struct{}{}
	}
	return func() {
		for range n {
			<-h.dials
		}
	}
}

// Queueing makes a host look as if n more requests were waiting to dial.
func (h *Host) Queueing(n int) { h.queued.Add(int32(n)) }

// Queued is how many are.
func (h *Host) Queued() int { return int(h.queued.Load()) }

// DialsUnderWay is how many connections are being opened.
func (h *Host) DialsUnderWay() int { return len(h.dials) }
