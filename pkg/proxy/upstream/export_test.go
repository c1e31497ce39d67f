package upstream

import "net"

// NewStreamForTest is what Dial makes of a connection.
func NewStreamForTest(h *Host, nc net.Conn) Stream { return newH1Stream(h, nc) }

// Alive reports whether the kernel knows of nothing against a stream's connection.
func Alive(s Stream) bool { return s.(*h1Stream).Alive() }

// Sweep is one round of Set's goroutine over a host.
func (h *Host) Sweep(now int64) { h.sweep(now) }

// The bounds on opening connections.
const (
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
