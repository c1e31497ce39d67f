package http2

import (
	"math/rand/v2"
	"time"
)

const (
	// settingsTimeout is how long a peer may take to acknowledge SETTINGS.
	settingsTimeout = 10 * time.Second
	// pingAfter is how long a peer may be silent, with streams under way, before it is
	// asked whether it is still there; pingTimeout is how long it may take to answer where nothing
	// else is said.
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
	c.hear(now)
	switch {
	case c.settingsAt != 0 && now-c.settingsAt > int64(settingsTimeout):
		c.failLocked(errSettingsLate)
	case c.pings != nil: // they tell
	case c.pingAt != 0 && now-c.pingAt > int64(c.config.PingTimeout):
		c.failLocked(errPing)
	case c.pingAt == 0 && c.active > 0 && now-c.heardAt > int64(pingAfter):
		c.pingAt = now
		c.ask(therePing)
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

// therePing is the payload of a PING that asks whether the peer is still there.
const therePing = "there?\r\n"

// hear notes that something has come since it was called last. It needs mu.
func (c *Conn) hear(now int64) {
	if c.heard.Swap(false) {
		c.heardAt, c.pingAt = now, 0
	}
}

// ask sends a PING. It needs mu.
func (c *Conn) ask(payload string) {
	c.unanswered++
	c.appendPing(0, []byte(payload))
}

// Lives reports whether anything has come from the peer since it was asked last, for whichever
// stream, whether it is there. With ask, it asks by PING, and returns false. Any goroutine may call it.
func (s *Stream) Lives(ask bool) bool {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.config.Clock()
	c.hear(now)
	if !ask || c.err != nil {
		return c.err == nil && c.askedAt != 0 && c.heardAt > c.askedAt
	}
	c.askedAt = now
	if c.pingAt == 0 {
		c.pingAt = now
	}
	c.ask(therePing)
	go c.flush()
	return false
}

// startPings begins to ask the peer again and again, if that is wanted.
func (c *Conn) startPings() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config.PingEvery > 0 {
		c.pingNext = c.config.Clock() + c.pingPause()
		c.pings = time.AfterFunc(time.Duration(c.pingNext-c.config.Clock()), c.keepAsking)
	}
}

// pingPause is how long the next PING is away.
func (c *Conn) pingPause() int64 {
	every := float64(c.config.PingEvery)
	return int64(every + every*float64(c.config.PingJitter)/100*rand.Float64())
}

// keepAsking sends the PING that is due, and ends the connection if nothing has come since the
// last one for too long. Anything that comes will do, for what was sent before the answer may be
// much.
func (c *Conn) keepAsking() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	now := c.config.Clock()
	c.hear(now)
	timeout := int64(c.config.PingTimeout)
	switch {
	case c.pingAt != 0 && now-c.pingAt >= timeout:
		c.failLocked(errPing)
		return
	case c.pingAt == 0 && now >= c.pingNext:
		c.pingAt, c.pingNext = now, now+c.pingPause()
		c.ask(therePing)
		go c.flush()
	}
	next := c.pingNext
	if c.pingAt != 0 && (c.pingAt+timeout < next || next <= now) {
		next = c.pingAt + timeout
	}
	c.pings.Reset(time.Duration(max(next-now, 0)))
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
