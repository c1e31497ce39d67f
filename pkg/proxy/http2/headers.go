package http2

import (
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// headers takes HEADERS (RFC 9113 §6.2). Of a block that goes on it keeps what there is.
func (c *Conn) headers(f *frame) error {
	if f.stream == 0 {
		return errStreamZero
	}
	if err := f.unpad(); err != nil {
		return err
	}
	if f.flags&flagPriority != 0 {
		if len(f.payload) < 5 {
			return errFrameSize
		}
		if be32(f.payload)&maxStreamID == f.stream {
			return errDependency
		}
		f.payload = f.payload[5:]
	}
	if f.flags&flagEndHeaders != 0 {
		return c.headerBlock(f, f.payload)
	}
	c.continuing, c.pieces, c.blockAt = *f, 1, c.frames
	c.continuing.payload = nil
	c.continued = append(sockio.Reserve(c.continued[:0], len(f.payload)), f.payload...)
	return nil
}

// continuation takes CONTINUATION (RFC 9113 §6.10).
func (c *Conn) continuation(f *frame) error {
	if c.continuing.stream == 0 || f.stream != c.continuing.stream {
		return errContinuation
	}
	c.pieces++
	if c.pieces > maxContinuations || len(c.continued)+len(f.payload) > c.config.HeadBytes {
		return errBlockLong
	}
	c.continued = append(sockio.Reserve(c.continued, len(f.payload)), f.payload...)
	if f.flags&flagEndHeaders == 0 {
		return nil
	}
	whole := c.continuing
	c.continuing = frame{}
	err := c.headerBlock(&whole, c.continued)
	sockio.Put(c.continued[:0])
	c.continued = nil
	return err
}

// headerBlock takes a whole header block.
func (c *Conn) headerBlock(f *frame, text []byte) error {
	end := f.flags&flagEndStream != 0
	s, kind, err := c.blockFor(f.stream)
	if err != nil {
		return err
	}
	c.decoded.Reset()
	c.text = block{kind: kind, head: &c.decoded, most: c.config.Fields, names: c.config.PortNames}
	c.decoder.Begin(text, c.config.HeadBytes)
	for {
		more, err := c.decoder.Next(&c.field)
		if err != nil {
			return &ConnError{CompressionError, err.Error()}
		}
		if !more {
			break
		}
		c.text.field(&c.field)
	}
	if c.decoder.TooLarge() && c.text.fault == nil {
		c.text.fault = errHeadTooLarge
	}
	bad := c.text.finish()
	switch kind {
	case requestBlock:
		return c.request(s, bad, end)
	case responseBlock:
		return c.response(s, f.stream, bad, end)
	case trailerBlock:
		return c.trailers(s, f.stream, bad, end)
	case endedBlock:
		// RFC 9113 §5.1: "If an endpoint receives additional frames, other than WINDOW_UPDATE,
		// PRIORITY, or RST_STREAM, for a stream that is in this state, it MUST respond with a
		// stream error of type STREAM_CLOSED."
		return c.streamError(f.stream, StreamClosed)
	}
	return c.spendNoise() // discarded
}

// blockFor says what a header block is, and opens the stream that it opens.
func (c *Conn) blockFor(id uint32) (*Stream, blockKind, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		switch {
		case s.refused:
			return nil, discarded, nil
		case s.recvEnded:
			return s, endedBlock, nil
		case c.role == Client && !s.gotFinal:
			return s, responseBlock, nil
		}
		return s, trailerBlock, nil
	}
	if c.role == Client {
		if c.isIdle(id) {
			return nil, discarded, errIdle
		}
		return nil, discarded, nil // of a stream that this side has ended
	}
	if id <= c.lastPeerID {
		known, ours := c.over.find(id)
		switch {
		case known && ours:
			return nil, discarded, nil
		case known:
			return nil, discarded, errClosedStream
		}
		return nil, discarded, errStreamID
	}
	if id%2 == 0 {
		return nil, discarded, errStreamID
	}
	c.lastPeerID = id
	switch {
	case id > c.lastID:
		// RFC 9113 §6.8: "After sending a GOAWAY frame, the sender can discard frames for streams
		// initiated by the receiver with identifiers higher than the identified last stream."
		return nil, discarded, c.spendReset(nil)
	case len(c.streams) >= c.config.MaxStreams || c.active >= 2*c.config.MaxStreams:
		// §5.1.2: "An endpoint that receives a HEADERS frame that causes its advertised
		// concurrent stream limit to be exceeded MUST treat this as a stream error". Streams that
		// have ended do not count, or a client that opens one as soon as another has ended would
		// be refused; but until their holders know, they take memory, and so are bounded as well.
		c.over.add(id, true)
		c.appendReset(id, RefusedStream)
		return nil, discarded, c.spendReset(nil)
	}
	s := c.newStream()
	s.id, s.openedAt = id, c.now
	c.streams[id] = s
	c.noise.earn()
	return s, requestBlock, nil
}

// request takes the head of a request.
func (c *Conn) request(s *Stream, bad *wire.Error, end bool) error {
	c.mu.Lock()
	s.takeHead(&c.decoded, end)
	if bad == nil && end && s.declared > 0 {
		bad = errBodyLength
	}
	var err error
	if bad != nil {
		s.refused, s.recvEnded = true, true // whatever comes of it is not wanted
		if bad.Status == 400 {
			s.refusal = ProtocolError
		}
		err = c.spendReset(s)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if end || bad != nil {
		c.start(s, bad)
	} else {
		c.starting = append(c.starting, s)
	}
	return nil
}

// response takes the head of a response, interim ones too.
func (c *Conn) response(s *Stream, id uint32, bad *wire.Error, end bool) error {
	c.mu.Lock()
	if c.streams[id] != s { // it was given back meanwhile, and may be another's by now
		c.mu.Unlock()
		return c.spendNoise()
	}
	h := &c.decoded
	interim := h.Status < 200
	if s.isUnread() { // its deadline has passed: no further head is waited for
		c.mu.Unlock()
		return c.spendNoise()
	}
	switch {
	case bad == nil && interim && end:
		bad = errStatus // RFC 9113 §8.1: an interim response does not end a stream
	case bad == nil && interim && s.nHeads >= maxInterim:
		bad = errManyInterim
		c.forgive(manyInterim) // more of them may be under way, and others' requests are not to pay for that
	case bad == nil && end && !s.bodyless(h.Status) && h.ContentLength > 0 && (!s.connects || h.Status > 299):
		bad = errBodyLength
	}
	var err error
	if bad != nil {
		s.failRecv(bad)
		err = c.resetFor(s, ProtocolError)
	} else {
		bodyless := s.bodyless(h.Status)
		if !interim {
			s.gotFinal = true
			c.noise.earn()
		}
		s.takeHead(h, end)
		switch {
		case interim:
			s.declared = wire.NoLength
		case bodyless:
			s.declared = 0 // whatever its Content-Length says of another response
		}
	}
	w := c.arrived(s, end)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
}

// trailers takes a header block behind a body.
func (c *Conn) trailers(s *Stream, id uint32, bad *wire.Error, end bool) error {
	c.mu.Lock()
	if c.streams[id] != s { // as in response
		c.mu.Unlock()
		return c.spendNoise()
	}
	var err error
	switch {
	case bad != nil:
		bad = errTrailers
	case s.isTunnel:
		bad = errInTunnel
	case !end:
		bad = errManyTrailers
	case s.declared > 0:
		bad = errBodyLength
	}
	if bad != nil {
		s.failRecv(bad)
		err = c.resetFor(s, ProtocolError)
	} else {
		s.trailers, c.decoded = c.decoded, s.trailers
		s.endRecv()
		c.noise.earn()
	}
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
}
