package http2

import "time"

const (
	// settingsTimeout is how long a peer may take to acknowledge SETTINGS.
	settingsTimeout = 10 * time.Second
	// pingAfter is how long a peer may be silent, with streams under way, before it is
	// asked whether it is still there; pingTimeout is how long it may take to answer.
	pingAfter   = 15 * time.Second
	pingTimeout = 15 * time.Second
	// drainTimeout is how long a client may take to answer the PING of a drain.
	drainTimeout = time.Second
)

// Check looks after what no frame tells: a peer that is not there any more, or does not
// take what it asked for. It is to be called every few seconds, and does not block.
func (c *Conn) Check(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if c.heard.Swap(false) {
		c.heardAt, c.pingAt = now, 0
	}
	switch {
	case c.settingsAt != 0 && now-c.settingsAt > int64(settingsTimeout):
		c.failLocked(errSettingsLate)
	case c.pingAt != 0 && now-c.pingAt > int64(pingTimeout):
		c.failLocked(errPing)
	case c.pingAt == 0 && c.active > 0 && now-c.heardAt > int64(pingAfter):
		c.pingAt = now
		c.appendPing(0, []byte("there?\r\n"))
	}
	c.endHalf(now)
	if c.drainAt != 0 && now-c.drainAt > int64(drainTimeout) {
		c.finalGoAway()
	}
	c.endStalled(now)
	if c.active == 0 {
		c.free = nil // an idle connection keeps nothing
	}
	if len(c.out) > 0 {
		go c.flush()
	}
}

// endHalf ends a connection whose peer does not go on with what it has begun to send. It
// needs mu.
func (c *Conn) endHalf(now int64) {
	half := c.half.Load()
	if half != c.halfIs {
		c.halfIs, c.halfAt = half, now
	}
	limit := c.config.HeadTimeout
	if half%2 == 1 {
		limit = c.config.StallTimeout
	}
	if half != 0 && now-c.halfAt > int64(limit) {
		c.failLocked(errHalf)
	}
}

// endStalled resets the streams that were given back before all was sent, and that their
// peer takes nothing of. It needs mu.
func (c *Conn) endStalled(now int64) {
	for i := 0; i < len(c.blocked); {
		s := c.blocked[i]
		switch {
		case s.held:
		case s.stalledAt == 0:
			s.stalledAt = now
		case now-s.stalledAt > int64(c.config.StallTimeout):
			s.resetLocked(Cancel, ErrReleased)
			continue // another is at its place
		}
		i++
	}
}
