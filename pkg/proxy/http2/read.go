package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Serve reads the connection until it ends, and closes it. It returns why: io.EOF if the
// peer closed it, ErrClosed if this side did, a *ConnError if the peer broke the protocol.
func (c *Conn) Serve() error {
	c.flush() // the greeting
	err := c.read()
	c.mu.Lock()
	c.handling = false
	c.failLocked(err)
	err = c.err
	c.mu.Unlock()
	c.close(err)
	return err
}

// read handles what comes, until an error.
func (c *Conn) read() error {
	for {
		err := c.handleAll()
		// What was written by all that came in goes out at once.
		c.mu.Lock()
		c.handling = false
		if err != nil {
			c.failLocked(err)
		}
		if len(c.out) > 0 && c.err == nil {
			c.flushLocked()
		}
		err = c.err
		changed := c.changed
		c.changed = false
		c.mu.Unlock()
		c.batch.Flush()
		if err != nil {
			return err
		}
		if changed && c.role == Client {
			c.handler.Changed()
		}
		if err := c.fill(); err != nil {
			c.mu.Lock()
			if c.err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				err = c.err
			}
			c.mu.Unlock()
			return err
		}
	}
}

// handleAll handles all that has been read.
func (c *Conn) handleAll() error {
	c.heard.Store(true)
	c.mu.Lock()
	c.handling = true
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if !c.began {
		if ok, err := c.preface(); !ok || err != nil {
			return err
		}
	}
	for c.w-c.r >= headerLen {
		f, length := parseHeader(c.in[c.r:])
		if length > maxFrame {
			return errFrameLong
		}
		if c.w-c.r < headerLen+length {
			break
		}
		f.payload = c.in[c.r+headerLen : c.r+headerLen+length]
		c.r += headerLen + length
		c.frames++
		if err := c.handle(&f); err != nil {
			return err
		}
	}
	// A body that is small came with its head; of others the beginning has.
	for i, s := range c.starting {
		c.starting[i] = nil
		c.start(s, nil)
	}
	c.starting = c.starting[:0]
	return nil
}

// preface takes the client's preface.
func (c *Conn) preface() (whole bool, err error) {
	n := min(c.w-c.r, len(Preface))
	if string(c.in[c.r:c.r+n]) != Preface[:n] {
		return false, errPreface
	}
	if n < len(Preface) {
		return false, nil
	}
	c.r += n
	c.began = true
	return true, nil
}

// fill reads more. A connection of which nothing is half read holds no buffer meanwhile.
func (c *Conn) fill() error {
	c.noteHalf()
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.above != nil {
		if err := c.above.Poll(c.tryFn); err != nil {
			return err // closed, or past the deadline
		}
		c.w += c.n
		if c.n > 0 {
			return nil
		}
		return c.fail
	}
	if c.raw == nil {
		if c.in == nil {
			c.in = sockio.Get(sockio.Large)
		}
		n, err := c.nc.Read(c.in[c.w:])
		c.w += n
		if n > 0 {
			return nil
		}
		return err
	}
	c.n, c.readErr = 0, 0
	if err := c.raw.Read(c.readFD); err != nil {
		return err // closed, or past the deadline
	}
	switch {
	case c.readErr != 0:
		return &net.OpError{Op: "read", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.readErr}
	case c.n <= 0:
		return io.EOF
	}
	c.w += c.n
	return nil
}

// noteHalf tells Check what has come in part.
func (c *Conn) noteHalf() {
	half := uint64(0)
	switch {
	case c.continuing.stream != 0:
		half = 2 * c.blockAt
	case c.w-c.r > 3 && frameType(c.in[c.r+3]) == frameData:
		half = 2*c.frames + 3
	case c.w > c.r:
		half = 2*c.frames + 2
	}
	if half != c.half.Load() {
		c.half.Store(half)
	}
}

func (c *Conn) readOnce(fd uintptr) bool {
	if c.in == nil {
		c.in = sockio.Get(sockio.Large)
	}
	for {
		if c.n, c.readErr = sockio.Recv(fd, c.in[c.w:]); c.readErr != syscall.EINTR {
			break
		}
	}
	if c.readErr != syscall.EAGAIN {
		return true
	}
	c.rest()
	return false
}

// tryOnce is readOnce above a socket.
func (c *Conn) tryOnce() bool {
	if c.in == nil {
		c.in = sockio.Get(sockio.Large)
	}
	var wait bool
	c.n, wait, c.fail = c.above.TryRead(c.in[c.w:])
	if wait {
		c.rest()
	}
	return !wait
}

// rest gives the buffer back if nothing is half read.
func (c *Conn) rest() {
	if c.w == 0 {
		sockio.Put(c.in)
		c.in = nil
	}
}

// lingerTime is how long a connection that ends with an error waits for what the peer is
// still sending, so that the kernel does not throw GOAWAY away with a reset; lingerBytes
// is how much of it is read.
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// close ends the connection for good: whoever waits on a stream learns of it.
func (c *Conn) close(err error) {
	var fault *ConnError
	told := errors.As(err, &fault) || errors.Is(err, ErrClosed)
	if told {
		_ = c.nc.SetWriteDeadline(time.Now().Add(lingerTime))
		c.writers.Wait()
	}
	c.mu.Lock()
	for c.flushing && told { // by somebody who does not wait for the socket
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	rest := c.out
	whole := !c.cut
	c.mu.Unlock()
	if told && whole && len(rest) > 0 {
		if _, err := c.nc.Write(rest); err == nil {
			if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
				_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
			}
		}
	}
	_ = c.nc.Close() // nothing is left to be lost on it
	c.writers.Wait()
	c.mu.Lock()
	var parked []Waker
	users := map[uint32]any{}
	for id, s := range c.streams {
		if s.held && s.User != nil {
			users[id] = s.User
		}
		if s.waker != nil {
			parked = append(parked, s.waker)
			s.waker = nil
		}
	}
	sockio.Put(c.out[:0])
	c.out = nil
	c.mu.Unlock()
	for _, w := range parked {
		w.Wake(&c.batch)
	}
	for id, user := range users {
		c.handler.Cancelled(user, id)
	}
	c.batch.Flush()
	c.handler.Changed()
	sockio.Put(c.in)
	c.in = nil
	sockio.Put(c.continued[:0])
	c.continued = nil
}

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
	if !c.noise.spend(c.config.Clock()) {
		return errNoise
	}
	return nil
}

// spendReset counts a stream that ended before its time. It needs mu.
func (c *Conn) spendReset() error {
	if c.role == Server && !c.resets.spend(c.config.Clock()) {
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
		// RFC 9113 §5.1, half-closed (remote): "MUST respond with a stream error of type
		// STREAM_CLOSED".
		c.giveCredit(size)
		return s, c.resetFor(s, StreamClosed)
	}
	s.recvWindow -= size
	code := NoError
	switch {
	case s.recvWindow < 0:
		code = FlowControlError
	case !s.gotHead:
		s.failHead(errNoHead)
		code = ProtocolError
	case s.declared >= 0:
		if s.declared -= n; s.declared < 0 || end && s.declared != 0 {
			s.failHead(errBodyLength)
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
	return c.spendReset()
}

// resetFor ends a stream for what the peer did on it. It needs mu.
func (c *Conn) resetFor(s *Stream, code Code) error {
	s.resetLocked(code, &ResetError{code})
	return c.spendReset()
}

// giveCredit gives n bytes of the connection's window back. It needs mu.
func (c *Conn) giveCredit(n int64) {
	if c.credit += n; c.credit >= connWindow/4 {
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

// woken is who goes on when the reader has let go of mu.
type woken struct {
	waker Waker
	user  any // not nil: it learns that its stream has ended
	id    uint32
	start bool // the handler gets the stream
	drop  bool // nobody does
}

// arrived finds who goes on after something has come for a stream, or has ended it. A
// request whose body was awaited starts when all of it is here. It needs mu.
func (c *Conn) arrived(s *Stream, end bool) (w woken) {
	if !s.held {
		return w // it was given back before all was sent, and may be forgotten by now
	}
	ended := s.sendErr != nil
	if s.started {
		w.waker, s.waker = s.waker, nil
		if ended && s.held {
			w.user, w.id = s.User, s.id
		}
		if w.waker == nil {
			signal(s.readable)
		}
		return w
	}
	if w.start, w.drop = end && !ended, ended; w.start || w.drop {
		s.started = true
		for i, other := range c.starting {
			if other == s {
				c.starting = append(c.starting[:i], c.starting[i+1:]...)
				break
			}
		}
	}
	return w
}

// goOn lets them.
func (c *Conn) goOn(s *Stream, w woken) {
	switch {
	case w.start:
		c.handler.Request(s, nil, &c.batch)
	case w.drop:
		s.Release()
	}
	if w.user != nil {
		c.handler.Cancelled(w.user, w.id)
	}
	if w.waker == nil {
		return
	}
	w.waker.Wake(&c.batch)
	c.mu.Lock()
	s.stow() // what it did not take
	c.mu.Unlock()
}

// start hands a request over.
func (c *Conn) start(s *Stream, bad *wire.Error) {
	c.mu.Lock()
	s.started = true
	c.mu.Unlock()
	c.handler.Request(s, bad, &c.batch)
}

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
		// RFC 9113 §5.3.2 deprecates it, and RFC 7540 §5.3.1 forbade a stream to depend on
		// itself: a client that says so is confused about its streams.
		if be32(f.payload)&maxStreamID == f.stream {
			return errStreamID
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
	c.text = block{kind: kind, head: &c.decoded, most: c.config.Fields}
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
		return c.response(s, bad, end)
	case trailerBlock:
		return c.trailers(s, bad, end)
	case endedBlock:
		return c.streamError(f.stream, StreamClosed) // RFC 9113 §5.1, half-closed (remote)
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
		return nil, discarded, c.spendReset() // RFC 9113 §6.8: it was told
	case c.active >= c.config.MaxStreams:
		// §5.1.2: "An endpoint that receives a HEADERS frame that causes its advertised
		// concurrent stream limit to be exceeded MUST treat this as a stream error".
		c.over.add(id, true)
		c.appendReset(id, RefusedStream)
		return nil, discarded, c.spendReset()
	}
	s := c.newStream()
	s.id = id
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
		err = c.spendReset()
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
func (c *Conn) response(s *Stream, bad *wire.Error, end bool) error {
	c.mu.Lock()
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
	case bad == nil && end && !s.bodyless(h.Status) && h.ContentLength > 0:
		bad = errBodyLength
	}
	var err error
	if bad != nil {
		s.failHead(bad)
		err = c.resetFor(s, ProtocolError)
	} else {
		bodyless := s.bodyless(h.Status)
		if !interim {
			s.gotFinal = true
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
func (c *Conn) trailers(s *Stream, bad *wire.Error, end bool) error {
	c.mu.Lock()
	var err error
	switch {
	case bad != nil:
		bad = errTrailers
	case !end:
		bad = errManyTrailers
	case s.declared > 0:
		bad = errBodyLength
	}
	if bad != nil {
		s.failHead(bad)
		err = c.resetFor(s, ProtocolError)
	} else {
		s.trailers, c.decoded = c.decoded, s.trailers
		s.endRecv()
	}
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
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
		err := c.spendReset()
		c.mu.Unlock()
		return err
	}
	err := c.resetFor(s, code)
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
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
	var err error
	if c.role == Server {
		err = c.spendReset()
	}
	end := error(&ResetError{code})
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
		// RFC 8441 §3: once 1, it is not taken back.
		if value > 1 || value == 0 && c.peer.connect {
			return errSetting
		}
		c.peer.connect = value == 1
	}
	return nil
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
	c.mu.Unlock()
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
	err := c.resetFor(s, code)
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
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
