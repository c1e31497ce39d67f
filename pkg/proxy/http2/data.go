package http2

import "github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"

// data takes DATA (RFC 9113 §6.1). Its whole payload counts against the windows, padding too.
func (c *Conn) data(f *frame) error {
	if f.stream == 0 {
		return errStreamZero
	}
	size := int64(len(f.payload))
	if err := f.unpad(); err != nil {
		return err
	}
	end := f.flags&flagEndStream != 0
	switch {
	case len(f.payload) > 0:
		c.noise.earn()
	case !end:
		if err := c.spendNoise(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	s, err := c.dataLocked(f, size, end)
	if s == nil {
		c.mu.Unlock()
		if err == nil && len(f.payload) == 0 && end {
			err = c.spendNoise() // there was nothing to end
		}
		return err
	}
	w := c.arrived(s, end)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
}

// dataLocked gives bytes to their stream, and returns it unless they belong to none. It
// needs mu.
func (c *Conn) dataLocked(f *frame, size int64, end bool) (*Stream, error) {
	if c.recvWindow -= size; c.recvWindow < 0 {
		return nil, errOverrun
	}
	s := c.streams[f.stream]
	n := int64(len(f.payload))
	switch {
	case s == nil:
		c.giveCredit(size)
		return nil, c.unwanted(f.stream)
	case s.isUnread():
		c.giveCredit(size)
		return nil, nil
	case s.recvEnded:
		// RFC 9113 §6.1: "If a DATA frame is received whose stream is not in the "open" or
		// "half-closed (local)" state, the recipient MUST respond with a stream error of type
		// STREAM_CLOSED."
		c.giveCredit(size)
		return s, c.resetFor(s, StreamClosed)
	}
	s.recvWindow -= size
	code := NoError
	switch {
	case s.recvWindow < 0:
		code = FlowControlError
	case !s.gotHead:
		s.failRecv(errNoHead)
		code = ProtocolError
	case s.declared >= 0:
		if s.declared -= n; s.declared < 0 || end && s.declared != 0 {
			s.failRecv(errBodyLength)
			code = ProtocolError
		}
	}
	if code != NoError {
		c.giveCredit(size)
		return s, c.resetFor(s, code)
	}
	// Padding is passed on to nobody: its window goes back with that of the next bytes.
	c.giveCredit(size - n)
	s.owed += size - n
	if n > 0 {
		if c.queued += n; c.queued > maxQueued {
			c.withheld += n
		} else {
			c.giveCredit(n)
		}
		if s.waker != nil && len(s.in) == 0 {
			s.direct = f.payload // who waits is here in a moment
		} else {
			s.in = append(sockio.Reserve(s.in, int(n)), f.payload...)
		}
	}
	if end {
		s.endRecv()
	}
	return s, nil
}

// unwanted is DATA for a stream that is not open. It needs mu.
func (c *Conn) unwanted(id uint32) error {
	if c.isIdle(id) {
		return errIdle
	}
	if known, ours := c.over.find(id); known && ours {
		return nil // it was under way when this side ended the stream
	}
	c.appendReset(id, StreamClosed)
	return c.spendReset(nil)
}

// giveCredit gives n bytes of the connection's window back. It needs mu.
func (c *Conn) giveCredit(n int64) {
	if c.credit += n; c.credit >= int64(c.config.ConnWindow)/4 {
		c.recvWindow += c.credit
		c.appendWindow(0, c.credit)
		c.credit = 0
	}
}

// consumed gives back what was withheld for bytes that are not here any more. It needs mu.
func (c *Conn) consumed(n int64) {
	c.queued -= n
	give := min(c.withheld, n)
	c.withheld -= give
	c.giveCredit(give)
}

// windowUpdate takes WINDOW_UPDATE (RFC 9113 §6.9), of 4 octets, and lets go on what it lets.
func (c *Conn) windowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return errFrameSize
	}
	n := int64(be32(f.payload) & maxStreamID)
	c.mu.Lock()
	if f.stream == 0 {
		defer c.mu.Unlock()
		if n == 0 {
			return errWindowZero
		}
		if c.sendWindow += n; c.sendWindow > maxStreamID {
			return errWindow
		}
		c.resume()
		return nil
	}
	s := c.streams[f.stream]
	if s == nil {
		idle := c.isIdle(f.stream)
		c.mu.Unlock()
		if idle {
			return errIdle
		}
		return c.spendNoise()
	}
	code := NoError
	if n == 0 {
		code = ProtocolError // §6.9: a stream error
	} else if s.sendWindow += n; s.sendWindow > maxStreamID {
		code = FlowControlError // §6.9.1
	}
	if code == NoError {
		c.resumeOne(s)
		c.mu.Unlock()
		return nil
	}
	return c.endFor(s, code)
}
