package upstream

import (
	"net"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
)

// NewConnForTest is what Dial makes of a connection.
func NewConnForTest(h *Host, nc net.Conn) *Conn {
	h.cluster.open.Add(1)
	return &Conn{Conn: http1.NewConn(nc, http1.Client, nil), Net: nc, host: h}
}

// Sweep is one round of Set's goroutine over a host.
func (h *Host) Sweep(now int64) { h.sweep(now) }
