package upstream

import "net"

// NewStreamForTest is what Dial makes of a connection.
func NewStreamForTest(h *Host, nc net.Conn) Stream { return newH1Stream(h, nc) }

// Alive reports whether the kernel knows of nothing against a stream's connection.
func Alive(s Stream) bool { return s.(*h1Stream).Alive() }

// Sweep is one round of Set's goroutine over a host.
func (h *Host) Sweep(now int64) { h.sweep(now) }
