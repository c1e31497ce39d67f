package upstream

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
)

const (
	// maxIdle bounds the idle connections to one host; the oldest is closed.
	maxIdle = 512
	// keepAlive finds peers that vanished without a word.
	keepAlive = 30 * time.Second
)

// Conn is a connection to a host. It belongs to whoever took it until it is put
// back or closed.
type Conn struct {
	*http1.Conn
	Net  net.Conn
	host *Host
	// Deadline is the read and write deadline set on Net, by the clock of the Set;
	// 0: none. Requests move it lazily.
	Deadline int64
	// Reused says that an earlier request went over it: then its peer may close it
	// at any time.
	Reused bool
	idleAt int64
}

// Take returns an idle connection that still looks good, nil if there is none:
// one whose peer has closed it is found out before a request is written to it.
func (h *Host) Take(now int64) *Conn {
	for {
		h.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()
			return nil
		}
		c := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		keep := h.patience.time(now)
		h.mu.Unlock()
		idle := now - c.idleAt
		alive := c.Alive()
		if alive && idle < keep {
			return c
		}
		if !alive {
			h.mu.Lock()
			h.patience.learn(now, idle)
			h.mu.Unlock()
		}
		c.Close()
	}
}

// Dial opens a connection within the cluster's connect timeout. It blocks. If the
// cluster has as many connections as it may, an idle one, of whatever host, makes
// room; if there is none, the one too many is not kept when it is put back.
func (h *Host) Dial(ctx context.Context) (*Conn, error) {
	limits := h.cluster.limits.Load()
	if limits.connections > 0 && h.cluster.open.Load() >= limits.connections {
		h.cluster.closeOneIdle()
	}
	d := net.Dialer{Timeout: limits.connectTimeout, KeepAlive: keepAlive}
	nc, err := d.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	h.cluster.open.Add(1)
	return &Conn{Conn: http1.NewConn(nc, http1.Client, nil), Net: nc, host: h}, nil
}

// closeOneIdle closes the oldest idle connection of the first host that has one.
func (c *Cluster) closeOneIdle() {
	for _, h := range c.Hosts() {
		h.mu.Lock()
		var oldest *Conn
		if len(h.idle) > 0 {
			oldest = h.idle[0]
			h.idle = slices.Delete(h.idle, 0, 1)
		}
		h.mu.Unlock()
		if oldest != nil {
			oldest.Close()
			return
		}
	}
}

// Put gives a connection back for other requests. It must be between exchanges.
func (c *Conn) Put(now int64) {
	h := c.host
	c.Reused = true
	c.idleAt = now
	limit := h.cluster.limits.Load().connections
	over := limit > 0 && h.cluster.open.Load() > limit
	var oldest *Conn
	h.mu.Lock()
	if h.retired || over {
		h.mu.Unlock()
		c.Close()
		return
	}
	if len(h.idle) >= maxIdle {
		oldest = h.idle[0]
		h.idle = slices.Delete(h.idle, 0, 1)
	}
	h.idle = append(h.idle, c)
	h.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
}

// Close closes the connection and gives its buffers back. It must be called once.
func (c *Conn) Close() {
	c.host.cluster.open.Add(-1)
	_ = c.Net.Close() // nothing is left to be lost on it
	c.Release()
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// sweep closes the idle connections whose peer has closed them, and those that
// have been idle for too long.
func (h *Host) sweep(now int64) {
	var old []*Conn
	h.mu.Lock()
	keep := h.patience.time(now)
	h.idle = slices.DeleteFunc(h.idle, func(c *Conn) bool {
		idle := now - c.idleAt
		alive := c.Alive()
		if !alive {
			h.patience.learn(now, idle)
		}
		if alive && idle < keep {
			return false
		}
		old = append(old, c)
		return true
	})
	h.mu.Unlock()
	closeAll(old)
}
