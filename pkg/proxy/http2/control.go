package http2

// handle takes one frame.
func (c *Conn) handle(f *frame) error {
	if c.continuing.stream != 0 && f.kind != frameContinuation {
		return errInBlock
	}
	// RFC 9113 §3.4: the preface is followed by a SETTINGS frame.
	if !c.settled && (f.kind != frameSettings || f.flags&flagAck != 0) {
		return errNoSettings
	}
	switch f.kind {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case framePriority:
		return c.priority(f)
	case frameRSTStream:
		return c.reset(f)
	case frameSettings:
		return c.settings(f)
	case framePushPromise:
		return errPush
	case framePing:
		return c.ping(f)
	case frameGoAway:
		return c.goAway(f)
	case frameWindowUpdate:
		return c.windowUpdate(f)
	case frameContinuation:
		return c.continuation(f)
	case framePriorityUpdate:
		return c.priorityUpdate(f)
	}
	// §4.1: "Implementations MUST ignore and discard frames of unknown types."
	return c.spendNoise()
}

// spendNoise counts a frame that says nothing.
func (c *Conn) spendNoise() error {
	if !c.noise.spend(c.now) {
		return errNoise
	}
	return nil
}

// spendReset counts a stream that ended before its time; nil: one that never began. One
// that took its time is not counted: as many could have come to their end. It needs mu.
func (c *Conn) spendReset(s *Stream) error {
	if c.role != Server || s != nil && c.now-s.openedAt > int64(resetAge) {
		return nil
	}
	if !c.resets.spend(c.now) {
		return errResets
	}
	return nil
}

// isIdle reports whether a stream was never opened (RFC 9113 §5.1). It needs mu.
func (c *Conn) isIdle(id uint32) bool {
	if isOwn := (id%2 == 1) == (c.role == Client); isOwn {
		return id >= c.nextID || c.role == Server
	}
	return id > c.lastPeerID
}

func (c *Conn) priority(f *frame) error {
	switch {
	case f.stream == 0:
		return errStreamZero
	case len(f.payload) != 5:
		// RFC 9113 §6.3: a stream error of type FRAME_SIZE_ERROR.
		return c.streamError(f.stream, FrameSizeError)
	case be32(f.payload)&maxStreamID == f.stream:
		return c.streamError(f.stream, ProtocolError)
	}
	return c.spendNoise()
}

// streamError ends a stream, whether or not it is open, for a frame on it.
func (c *Conn) streamError(id uint32, code Code) error {
	c.mu.Lock()
	s := c.streams[id]
	if s == nil {
		if c.isIdle(id) {
			c.mu.Unlock()
			// §6.4: "RST_STREAM frames MUST NOT be sent for a stream in the 'idle' state."
			return &ConnError{code, "a malformed frame names a stream that was not opened"}
		}
		c.appendReset(id, code)
		err := c.spendReset(nil)
		c.mu.Unlock()
		return err
	}
	return c.endFor(s, code)
}

func (c *Conn) reset(f *frame) error {
	if f.stream == 0 {
		return errStreamZero
	}
	if len(f.payload) != 4 {
		return errFrameSize
	}
	code := Code(be32(f.payload))
	c.mu.Lock()
	s := c.streams[f.stream]
	if s == nil {
		idle := c.isIdle(f.stream)
		c.mu.Unlock()
		if idle {
			return errIdle
		}
		return c.spendNoise()
	}
	err := c.spendReset(s)
	end := error(&ResetError{Code: code})
	if code == RefusedStream {
		end = ErrRefused
	}
	s.failLocked(end)
	s.leave(false)
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
}

func (c *Conn) settings(f *frame) error {
	switch {
	case f.stream != 0:
		return errNotZero
	case f.flags&flagAck != 0 && len(f.payload) != 0, len(f.payload)%6 != 0:
		return errFrameSize
	case len(f.payload) > 6*maxSettings:
		return errSettings
	case f.flags&flagAck != 0:
		c.mu.Lock()
		awaited := c.settingsAt != 0
		c.settingsAt = 0
		c.mu.Unlock()
		if !awaited {
			return c.spendNoise()
		}
		return nil
	}
	if c.settled {
		if err := c.spendNoise(); err != nil {
			return err
		}
	}
	c.settled = true
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := f.payload; len(p) > 0; p = p[6:] {
		if err := c.setting(uint16(p[0])<<8|uint16(p[1]), be32(p[2:])); err != nil {
			return err
		}
	}
	c.tellSettings()
	c.answer(headerLen)
	c.out = appendHeader(c.out, 0, frameSettings, flagAck, 0)
	c.resume()
	c.changed = true
	return nil
}

// setting takes one of the peer's settings (RFC 9113 §6.5.2). It needs mu.
func (c *Conn) setting(id uint16, value uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.encoder.SetMaxTable(value)
	case settingEnablePush:
		// "A client MUST treat receipt of a SETTINGS frame with SETTINGS_ENABLE_PUSH set
		// to 1 as a connection error of type PROTOCOL_ERROR."
		if value > 1 || value == 1 && c.role == Client {
			return errSetting
		}
	case settingMaxStreams:
		if c.role == Client {
			c.peer.maxStreams = int64(value)
		}
	case settingInitialWindowSize:
		if value > maxStreamID {
			return errWindowSize
		}
		// §6.9.2: it changes the windows of all streams that are there.
		change := int64(value) - c.peer.window
		c.peer.window = int64(value)
		for _, s := range c.streams {
			if s.sendWindow += change; s.sendWindow > maxStreamID {
				return errWindowSize
			}
		}
	case settingMaxFrameSize:
		if value < maxFrame || value > 1<<24-1 {
			return errSetting
		}
	case settingConnectProtocol:
		// RFC 8441 §3: "The value of the parameter MUST be 0 or 1", and "a sender MUST NOT send
		// a SETTINGS_ENABLE_CONNECT_PROTOCOL parameter with the value of 0 after previously
		// sending a value of 1". What clients say of it, "has no effect".
		if value > 1 || value == 0 && c.peer.connect {
			return errSetting
		}
		c.peer.connect = value == 1
	}
	return nil
}

// tellSettings lets go on who waits for the peer's first settings. It needs mu.
func (c *Conn) tellSettings() {
	if !c.isTold {
		c.isTold = true
		close(c.told)
	}
}

func (c *Conn) ping(f *frame) error {
	switch {
	case f.stream != 0:
		return errNotZero
	case len(f.payload) != 8:
		return errFrameSize
	case f.flags&flagAck == 0:
		if err := c.spendNoise(); err != nil {
			return err
		}
		c.mu.Lock()
		c.appendPing(flagAck, f.payload)
		c.mu.Unlock()
		return nil
	}
	c.mu.Lock()
	if string(f.payload) == drainPing {
		c.settle()
	}
	asked := c.unanswered > 0
	if asked {
		c.unanswered--
	}
	c.mu.Unlock()
	if asked {
		return nil
	}
	return c.spendNoise()
}

func (c *Conn) goAway(f *frame) error {
	if f.stream != 0 {
		return errNotZero
	}
	if len(f.payload) < 8 {
		return errFrameSize
	}
	if err := c.spendNoise(); err != nil {
		return err
	}
	last := be32(f.payload) & maxStreamID
	c.mu.Lock()
	c.peerGone = true
	var refused []*Stream
	var who []woken
	if c.role == Client {
		// RFC 9113 §6.8: what is higher was not acted upon.
		for id, s := range c.streams {
			if id > last {
				refused = append(refused, s)
			}
		}
		for _, s := range refused {
			s.failLocked(ErrRefused)
			s.leave(false)
			who = append(who, c.arrived(s, true))
		}
	}
	c.endIfDone()
	c.mu.Unlock()
	for i, s := range refused {
		c.goOn(s, who[i])
	}
	c.handler.Changed()
	return nil
}

// priorityUpdate takes RFC 9218's frame: it is heeded by nobody, but may not be malformed.
func (c *Conn) priorityUpdate(f *frame) error {
	switch {
	case f.stream != 0 || c.role == Client:
		return errPriority
	case len(f.payload) < 4:
		return errFrameSize
	case be32(f.payload)&maxStreamID == 0:
		return errPriority
	}
	return c.spendNoise()
}
