package http2

// handle takes one frame. It and the functions that it calls return a *ConnError, which ends the
// connection. They belong to the reader, and take mu themselves but for those that say otherwise.
func (c *Conn) handle(f *frame) error {
	if c.continuing.stream != 0 && f.kind != frameContinuation {
		return errInBlock
	}
	// RFC 9113 §3.4: the SETTINGS frame of a preface "MUST be the first frame".
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
	switch {
	case c.noise.spend(c.now):
	case c.forgiven.Load() > 0:
		c.forgiven.Add(-1)
	default:
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

// priority takes PRIORITY (RFC 9113 §6.3), which is heeded by nobody (§5.3.2), but may not be
// malformed.
func (c *Conn) priority(f *frame) error {
	switch {
	case f.stream == 0:
		return errStreamZero
	case len(f.payload) != 5:
		// "A PRIORITY frame with a length other than 5 octets MUST be treated as a stream error of
		// type FRAME_SIZE_ERROR."
		return c.streamError(f.stream, FrameSizeError)
	case be32(f.payload)&maxStreamID == f.stream:
		// RFC 7540 §5.3.1: "A stream cannot depend on itself. An endpoint MUST treat this as a
		// stream error of type PROTOCOL_ERROR."
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

// reset takes RST_STREAM (RFC 9113 §6.4): of 4 octets, for a stream that is not idle.
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

// settings takes SETTINGS (RFC 9113 §6.5), and acknowledges them.
func (c *Conn) settings(f *frame) error {
	switch {
	case f.stream != 0:
		return errNotZero
	// "Receipt of a SETTINGS frame with the ACK flag set and a length field value other than 0
	// MUST be treated as a connection error of type FRAME_SIZE_ERROR", and so must "a length other
	// than a multiple of 6 octets".
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

// setting takes one of the peer's settings (RFC 9113 §6.5.2): "An endpoint that receives a SETTINGS
// frame with any unknown or unsupported identifier MUST ignore that setting." It needs mu.
func (c *Conn) setting(id uint16, value uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.encoder.SetMaxTable(value)
	case settingEnablePush:
		// RFC 9113 §6.5.2: "Any value other than 0 or 1 MUST be treated as a connection error of
		// type PROTOCOL_ERROR"; "A client MUST treat receipt of a SETTINGS frame with
		// SETTINGS_ENABLE_PUSH set to 1 as a connection error of type PROTOCOL_ERROR."
		if value > 1 || value == 1 && c.role == Client {
			return errSetting
		}
	case settingMaxStreams:
		if c.role == Client {
			c.peer.maxStreams = int64(value)
		}
	case settingInitialWindowSize:
		// RFC 9113 §6.5.2: "Values above the maximum flow-control window size" of 2^31-1 "MUST be
		// treated as a connection error of type FLOW_CONTROL_ERROR."
		if value > maxStreamID {
			return errWindowSize
		}
		// §6.9.2: "a receiver MUST adjust the size of all stream flow-control windows that it
		// maintains by the difference between the new value and the old value", and a change "that
		// causes any flow-control window to exceed the maximum size" is an error as well.
		change := int64(value) - c.peer.window
		c.peer.window = int64(value)
		for _, s := range c.streams {
			if s.sendWindow += change; s.sendWindow > maxStreamID {
				return errWindowSize
			}
		}
	case settingMaxFrameSize:
		// RFC 9113 §6.5.2: from 2^14 to 2^24-1 octets. "Values outside this range MUST be treated as a
		// connection error of type PROTOCOL_ERROR." No longer frames are sent than every peer takes.
		if value < 1<<14 || value > 1<<24-1 {
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

// ping takes PING (RFC 9113 §6.7): of 8 octets, and with the ACK flag an answer to one of ours, which
// is not answered in turn.
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
		c.finalGoAway()
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

// goAway takes GOAWAY (RFC 9113 §6.8): this side opens no further streams.
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
	end := ErrRefused
	if last > 0 && Code(be32(f.payload[4:])) == NoError {
		end = ErrLeftOut
	}
	c.mu.Lock()
	c.peerGone = true
	var refused []*Stream
	var who []woken
	if c.role == Client {
		// RFC 9113 §6.8: "Any protocol activity that uses higher-numbered streams can be safely retried
		// using a new connection."
		for id, s := range c.streams {
			if id > last {
				refused = append(refused, s)
			}
		}
		for _, s := range refused {
			s.failLocked(end)
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

// priorityUpdate takes PRIORITY_UPDATE (RFC 9218 §7.1), which is heeded by nobody, but may not be
// malformed.
func (c *Conn) priorityUpdate(f *frame) error {
	switch {
	case f.stream != 0 || c.role == Client:
		return errPriority
	case len(f.payload) < 4:
		return errFrameSize
	case be32(f.payload)&maxStreamID == 0:
		return errPriority
	case f.payload[3]&1 == 0:
		// "Servers that receive a PRIORITY_UPDATE for a push stream in the "idle" state MUST respond
		// with a connection error of type PROTOCOL_ERROR": this one pushes nothing, so all are.
		return errPriority
	}
	return c.spendNoise()
}
