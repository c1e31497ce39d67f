package upstream

import (
	"maps"
	"math"
	"slices"
)

// maxIdle bounds the idle connections to one host; the oldest is closed. Those of all
// hosts together are bounded by Set.Limit.
const maxIdle = 512

// Take returns a stream on a connection that is there, nil if there is none. It does
// not block. A connection that its peer has closed is found out before a request is
// written to it.
func (h *Host) Take(now int64) Stream {
	if h.Shared() {
		return h.shared.take()
	}
	if s := h.takeSince(math.MinInt64, now); s != nil {
		return s
	}
	return nil
}

// takeSince is Take of an HTTP/1 connection that came back at since or later.
func (h *Host) takeSince(since, now int64) *h1Stream {
	for {
		s, keep := h.pop(since, now)
		if s == nil {
			return nil
		}
		if s.security != h.cluster.limits.Load().tls || now >= s.oldAt {
			s.close() // it was made by a configuration that is not in force any more, or is too old
			continue
		}
		idle := now - s.idleAt
		alive := s.Alive()
		if alive && idle < keep {
			s.take()
			return s
		}
		if !alive {
			h.learn(s, now)
		}
		s.close()
	}
}

// learn notes for how long a connection had been idle when its peer closed it, which may be
// some time before that is found.
func (h *Host) learn(s *h1Stream, now int64) {
	age := max(now-s.idleAt-int64(closedFor(s.net)), 0)
	h.mu.Lock()
	h.patience.learn(now, age, h.cluster.limits.Load().idle)
	h.mu.Unlock()
}

// pop takes out the connection that came back last, unless that was before since,
// and tells how long one may lie idle.
func (h *Host) pop(since, now int64) (s *h1Stream, keep int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.idle)
	if n == 0 || h.idle[n-1].idleAt < since {
		return nil, 0
	}
	s = h.idle[n-1]
	h.idle[n-1] = nil
	h.idle = h.idle[:n-1]
	return s, h.patience.time(now, h.cluster.limits.Load().idle)
}

// closeOneIdle closes the oldest idle connection of the first host that has one, and reports whether
// there was one.
func (c *Cluster) closeOneIdle() bool {
	return slices.ContainsFunc(c.Hosts(), (*Host).closeOldest)
}

// makeRoom closes idle connections, of whatever clusters, and reports whether there were
// any: of one host after the other the oldest, until it has closed one in 64 of those that
// there may be, so that it is not to be done again for each that is opened.
func (s *Set) makeRoom() bool {
	s.mu.Lock()
	clusters := slices.Collect(maps.Values(s.clusters)) // which begins anywhere
	s.mu.Unlock()
	closed := int64(0)
	for _, c := range clusters {
		for _, h := range c.Hosts() {
			if closed <= s.limit/64 && h.closeOldest() {
				closed++
			}
		}
	}
	return closed > 0
}

// closeOldest closes the connection that has been idle for longest, if there is one.
func (h *Host) closeOldest() bool {
	h.mu.Lock()
	var oldest *h1Stream
	if len(h.idle) > 0 {
		oldest = h.idle[0]
		h.idle = slices.Delete(h.idle, 0, 1)
	}
	h.mu.Unlock()
	if oldest != nil {
		oldest.close()
		return true
	}
	return h.shared.closeIdle()
}

// put keeps a connection for other requests, unless its host has gone or there are
// too many.
func (h *Host) put(s *h1Stream) {
	limits := h.cluster.limits.Load()
	over := limits.connections > 0 && h.cluster.open.Load() > limits.connections || h.cluster.set.isOver() || s.security != limits.tls
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
// have been idle for too long. While the kernel is asked about one, which nobody can take
// then, requests take and put others.
func (h *Host) sweep(now int64) {
	h.shared.sweep(now)
	for at := 0; ; {
		s, keep := h.remove(at, now)
		if s == nil {
			return
		}
		idle := now - s.idleAt
		alive := s.Alive()
		if alive && idle < keep && now < s.oldAt && h.restore(at, s) {
			at++
			continue
		}
		if !alive {
			h.learn(s, now)
		}
		s.close()
	}
}

// remove takes out the idle connection at an index, nil if there is none that came back
// before now, and tells how long one may lie idle.
func (h *Host) remove(at int, now int64) (s *h1Stream, keep int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at >= len(h.idle) || h.idle[at].idleAt > now {
		return nil, 0
	}
	s = h.idle[at]
	h.idle = slices.Delete(h.idle, at, at+1)
	return s, h.patience.time(now, h.cluster.limits.Load().idle)
}

// restore puts back what remove took out, unless its host has gone or there are too many.
func (h *Host) restore(at int, s *h1Stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.retired || len(h.idle) >= maxIdle {
		return false
	}
	h.idle = slices.Insert(h.idle, min(at, len(h.idle)), s)
	return true
}
