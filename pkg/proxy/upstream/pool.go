package upstream

import (
	"context"
	"net"
	"slices"
	"time"
)

const (
	// maxIdle bounds the idle connections to one host; the oldest is closed.
	maxIdle = 512
	// keepAlive finds peers that vanished without a word.
	keepAlive = 30 * time.Second
)

// Take returns a stream on a connection that is there, nil if there is none. It does
// not block. A connection that its peer has closed is found out before a request is
// written to it.
func (h *Host) Take(now int64) Stream {
	for {
		h.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()
			return nil
		}
		s := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		keep := h.patience.time(now)
		h.mu.Unlock()
		idle := now - s.idleAt
		alive := s.Alive()
		if alive && idle < keep {
			s.take()
			return s
		}
		if !alive {
			h.mu.Lock()
			h.patience.learn(now, idle)
			h.mu.Unlock()
		}
		s.close()
	}
}

// Dial returns a stream on a new connection, within the cluster's connect timeout. It
// blocks. If the cluster has as many connections as it may, an idle one, of whatever
// host, makes room; if there is none, the one too many is not kept when it is released.
func (h *Host) Dial(ctx context.Context) (Stream, error) {
	limits := h.cluster.limits.Load()
	if limits.connections > 0 && h.cluster.open.Load() >= limits.connections {
		h.cluster.closeOneIdle()
	}
	d := net.Dialer{Timeout: limits.connectTimeout, KeepAlive: keepAlive}
	nc, err := d.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	return newH1Stream(h, nc), nil
}

// closeOneIdle closes the oldest idle connection of the first host that has one.
func (c *Cluster) closeOneIdle() {
	for _, h := range c.Hosts() {
		h.mu.Lock()
		var oldest *h1Stream
		if len(h.idle) > 0 {
			oldest = h.idle[0]
			h.idle = slices.Delete(h.idle, 0, 1)
		}
		h.mu.Unlock()
		if oldest != nil {
			oldest.close()
			return
		}
	}
}

// put keeps a connection for other requests, unless its host has gone or there are
// too many.
func (h *Host) put(s *h1Stream) {
	limit := h.cluster.limits.Load().connections
	over := limit > 0 && h.cluster.open.Load() > limit
	var oldest *h1Stream
	h.mu.Lock()
	if h.retired || over {
		h.mu.Unlock()
		s.close()
		return
	}
	if len(h.idle) >= maxIdle {
		oldest = h.idle[0]
		h.idle = slices.Delete(h.idle, 0, 1)
	}
	h.idle = append(h.idle, s)
	h.mu.Unlock()
	if oldest != nil {
		oldest.close()
	}
}

// sweep closes the idle connections whose peer has closed them, and those that
// have been idle for too long.
func (h *Host) sweep(now int64) {
	var old []*h1Stream
	h.mu.Lock()
	keep := h.patience.time(now)
	h.idle = slices.DeleteFunc(h.idle, func(s *h1Stream) bool {
		idle := now - s.idleAt
		alive := s.Alive()
		if !alive {
			h.patience.learn(now, idle)
		}
		if alive && idle < keep {
			return false
		}
		old = append(old, s)
		return true
	})
	h.mu.Unlock()
	closeAll(old)
}
