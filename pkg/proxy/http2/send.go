package http2

import (
	"runtime"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Room is how many bytes WriteBody takes without waiting or keeping more than a frame.
func (s *Stream) Room() int {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if len(s.pending) > 0 || s.sendErr != nil && s.batch == nil {
		return 0
	}
	return maxFrame
}

// WriteBody sends bytes of the body. Where the peer takes none it keeps a frame's worth, so that
// the source of what is small need not wait, and blocks for more, unless Hold said that it must not.
func (s *Stream) WriteBody(p []byte) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if s.sendErr != nil {
			return s.sendErr
		}
		if len(s.pending) == 0 {
			if p = p[c.push(s, p):]; len(p) == 0 {
				break
			}
		}
		c.block(s)
		if s.batch != nil || len(s.pending) == 0 && len(p) <= maxFrame {
			s.pending = append(sockio.Reserve(s.pending, len(p)), p...)
			return nil
		}
		// What goes on sends what it can of rest. Only at its end the writer is woken, and
		// not all who wait for every byte of a window.
		s.rest = p
		if len(c.out) > 0 && !c.handling {
			c.flushLocked() // it may make room
		}
		if s.isBlocked {
			s.wait(s.writable)
		}
		p, s.rest = s.rest, nil
	}
	return nil
}

// push appends as much of p as the windows and the buffer allow, in frames. It needs mu.
func (c *Conn) push(s *Stream, p []byte) (n int) {
	for n < len(p) {
		size := min(int64(len(p)-n), maxFrame, s.sendWindow, c.sendWindow, int64(maxOut-len(c.out)))
		if size <= 0 {
			break
		}
		c.room(headerLen + int(size))
		s.tailAt, s.tailGen = len(c.out), c.gen
		c.out = appendHeader(c.out, int(size), frameData, 0, s.id)
		c.out = append(c.out, p[n:n+int(size)]...)
		n += int(size)
		s.sendWindow -= size
		c.sendWindow -= size
	}
	return n
}

// block notes that a stream has more to send. It needs mu.
func (c *Conn) block(s *Stream) {
	if !s.isBlocked {
		s.isBlocked = true
		c.blocked = append(c.blocked, s)
	}
}

func (c *Conn) unblock(s *Stream) {
	if !s.isBlocked {
		return
	}
	s.isBlocked = false
	for i, other := range c.blocked {
		if other == s {
			c.blocked = append(c.blocked[:i], c.blocked[i+1:]...)
			break
		}
	}
}

// resume goes on with the streams that have more to send, in their order. It needs mu.
func (c *Conn) resume() {
	for i := 0; i < len(c.blocked) && c.sendWindow > 0 && len(c.out) < maxOut; {
		s := c.blocked[i]
		c.resumeOne(s)
		if s.isBlocked {
			i++ // its turn comes when its window does
		}
	}
}

// resumeOne sends what a stream has kept, and lets its writer go on. It needs mu.
func (c *Conn) resumeOne(s *Stream) {
	if !s.isBlocked || s.sendWindow <= 0 {
		return
	}
	s.stalledAt = 0
	if len(s.pending) > 0 {
		n := c.push(s, s.pending)
		s.pending = s.pending[:copy(s.pending, s.pending[n:])]
		if len(s.pending) > 0 {
			return
		}
		sockio.Put(s.pending)
		s.pending = nil
	}
	if s.rest = s.rest[c.push(s, s.rest):]; len(s.rest) > 0 {
		return
	}
	c.unblock(s)
	signal(s.writable)
	if s.endPending {
		s.endPending = false
		s.endLocked(s.ending.Fields)
	}
}

// EndBody ends the body, with trailers. It does not block.
func (s *Stream) EndBody(trailers []wire.Field) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sendErr != nil {
		return s.sendErr
	}
	if s.sendEnded { // with its head
		s.closeIfDone()
		return nil
	}
	if len(s.pending) > 0 {
		s.endPending = true
		for i := range trailers {
			s.ending.AddDecoded(trailers[i].Name, trailers[i].Value, trailers[i].ID, trailers[i].Sensitive)
		}
		return nil
	}
	s.endLocked(trailers)
	return nil
}

// endLocked ends the writing half: by a flag on the stream's last frame, if that has not
// been sent yet. It needs mu.
func (s *Stream) endLocked(trailers []wire.Field) {
	c := s.conn
	switch {
	case hasSendable(trailers):
		c.writeTrailers(s, trailers)
	case s.tailAt >= 0 && s.tailGen == c.gen:
		c.out[s.tailAt+4] |= flagEndStream
	default:
		c.room(headerLen)
		c.out = appendHeader(c.out, 0, frameData, flagEndStream, s.id)
	}
	s.sendEnded = true
	if s.held || !s.open {
		s.closeIfDone()
		return
	}
	// Nobody waits for the rest of what comes in.
	if !s.recvEnded || s.refused {
		s.resetLocked(s.refusal, ErrReleased)
		return
	}
	s.closeIfDone()
}

// Ask is Flush: who reads next waits then.
func (s *Stream) Ask() error { return s.Flush() }

// Flush lets what was written go out. It does not block.
func (s *Stream) Flush() error {
	if s.batch != nil {
		s.batch.add(s.conn)
		return nil
	}
	// Who else has been woken by what came in gets to write first: one system call for
	// all of them.
	runtime.Gosched()
	s.conn.flush()
	return s.Err()
}

// Err returns why the stream cannot be written any more, nil if it can.
func (s *Stream) Err() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.sendErr
}

// Written reports whether something of the stream may have been sent.
func (s *Stream) Written() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.wroteHead && s.conn.gen > s.headGen
}
