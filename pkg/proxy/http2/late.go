package http2

import (
	"slices"
	"time"
)

const (
	// lateBurst streams may be reset by a client at once, then lateRate in a second, and one for
	// each that ends well; others lateTime later. That is half of what this package takes as a server,
	// and so do others that are guarded against rapid reset.
	lateBurst = resetBurst / 2
	lateRate  = resetRate / 2
	lateTime  = 2 * resetAge
	// manyInterim is how many interim responses more may come for a request that has had too many at
	// once: what a proxy in between lets through. maxForgiven bounds those of all, and what else may
	// come for streams that were reset, besides the frames that may say nothing.
	manyInterim = 1000
	maxForgiven = 16 * manyInterim
)

// lateReset is a stream that is to be reset.
type lateReset struct {
	id   uint32
	code Code
	at   int64
}

// putOff reports whether the reset of a stream is left for later. Servers end the connection of a
// client that resets too many streams that are young. Here it carries the requests of many clients, and
// those of them that go away as soon as they have asked, each within its own bound, must not end it for
// the others. Until it is reset, the stream counts in what the server allows. It needs mu.
func (c *Conn) putOff(s *Stream, code Code) bool {
	switch {
	case c.role != Client || !s.open || c.err != nil:
		return false
	case s.isLate:
		return true
	}
	c.forgive(2) // the server may have answered before it learns of this: a head, and trailers
	now := c.config.Clock()
	if c.resets.spend(now) {
		return false
	}
	s.isLate = true
	c.late = append(c.late, lateReset{s.id, code, now + int64(lateTime)})
	switch {
	case c.lateTimer == nil:
		c.lateTimer = time.AfterFunc(lateTime, c.resetLate)
	case len(c.late) == 1:
		c.lateTimer.Reset(lateTime)
	}
	return true
}

// forgive lets so many frames more come that say nothing, for they belong to streams that this side has
// reset. Any goroutine may call it.
func (c *Conn) forgive(n int32) {
	if c.forgiven.Load() < maxForgiven {
		c.forgiven.Add(n)
	}
}

// resetLate resets the streams for which it is time.
func (c *Conn) resetLate() {
	c.mu.Lock()
	now, n := c.config.Clock(), 0
	for ; n < len(c.late) && c.late[n].at <= now; n++ {
		l := c.late[n]
		if s := c.streams[l.id]; s != nil && c.err == nil {
			c.appendReset(l.id, l.code)
			s.leave(true)
		}
	}
	c.late = slices.Delete(c.late, 0, n)
	if len(c.late) > 0 && c.err == nil {
		c.lateTimer.Reset(time.Duration(c.late[0].at - now))
	}
	c.tell(nil)
	changed := c.changed && !c.handling
	if changed {
		c.changed = false
	}
	c.mu.Unlock()
	if changed {
		c.handler.Changed()
	}
}
