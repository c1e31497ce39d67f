package http2

import (
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Waker is left with a stream by somebody who does not want to wait for it.
type Waker interface {
	// Wake is called once, when there is something to read or the stream has ended, by
	// the goroutine that reads a connection or, with a nil b, by one of its own. What is
	// written is to be flushed through b.
	Wake(b *Batch)
}

// Stream is a request and its response. Its holder has it from Request or Open until
// Release. One goroutine may write and one may read at the same time; only Abort is for
// all.
type Stream struct {
	conn     *Conn
	readable chan struct{}
	writable chan struct{}
	timer    *time.Timer // guarded by conn.mu
	state
}

// state is what a stream forgets before it is another request's. But for User and batch,
// which are the holder's, it is guarded by the connection's mu.
type state struct {
	// User is who learns that the stream has ended. It is set by Handler.Request.
	User any

	id      uint32
	open    bool // it is among conn.streams
	held    bool
	started bool // the handler has it

	// The reading half.
	heads      []wire.Head // the first nHeads are to be read
	nHeads     int
	trailers   wire.Head
	gotHead    bool // the head of a request, or of a final response, has come
	gotFinal   bool // of a client: the final response's head has come
	headTaken  bool // and was read
	refused    bool // what comes is not wanted
	refusal    Code // for which the stream ends then
	in         []byte
	taken      []byte // what Next hands out, from at on
	at         int
	direct     []byte // bytes in the connection's read buffer, for whoever was woken for them
	declared   int64  // what is left of Content-Length; negative: it was not said
	window     int64  // how much may lie here
	recvWindow int64  // how much of it is free
	owed       int64  // how much could be, and is not yet
	recvEnded  bool
	recvErr    error
	waker      Waker
	deadline   int64
	armed      int64 // what timer is set to; 0: it is not

	// The writing half.
	batch      *Batch
	sendWindow int64
	sendErr    error
	toHead     bool // of a client: the request is a HEAD
	headGen    uint64
	wroteHead  bool
	sendEnded  bool
	pending    []byte // bytes that no window allows yet
	rest       []byte // behind them, those of a writer that waits
	endPending bool
	ending     wire.Head // trailers behind pending
	tailAt     int       // where in conn.out the stream's last frame begins
	tailGen    uint64    // if conn.gen is still this
	isBlocked  bool
	stalledAt  int64 // when Check saw that it is; 0: it has not since the last progress
}

// newStream returns a stream that is held. It needs mu.
func (c *Conn) newStream() *Stream {
	var s *Stream
	if n := len(c.free); n > 0 {
		s = c.free[n-1]
		c.free[n-1] = nil
		c.free = c.free[:n-1]
	} else {
		s = &Stream{conn: c, readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
		s.heads = make([]wire.Head, 1)
	}
	s.held = true
	s.open = c.role == Server
	s.declared = wire.NoLength
	s.window, s.recvWindow, s.sendWindow = defaultWindow, defaultWindow, c.peer.window
	s.tailAt = -1
	c.active++
	return s
}

// maxFree is how many streams a connection keeps to be used again.
const maxFree = 64

// recycle forgets a stream that nobody holds and that is not open. It needs mu.
func (c *Conn) recycle(s *Stream) {
	c.consumed(int64(len(s.in) + len(s.direct)))
	c.grown -= s.window - defaultWindow
	sockio.Put(s.in[:0])
	sockio.Put(s.taken[:0])
	sockio.Put(s.pending[:0])
	for i := range s.heads {
		s.heads[i].Reset()
	}
	s.trailers.Reset()
	s.ending.Reset()
	drain(s.readable)
	drain(s.writable)
	s.state = state{heads: s.heads[:1], trailers: s.trailers, ending: s.ending, armed: s.armed}
	c.active--
	if len(c.free) < maxFree {
		c.free = append(c.free, s)
	}
	c.endIfDone()
}

func drain(ch chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// Open returns a stream for a request, which has no number until its head is written.
// The error is ErrRefused if there can be no more streams on the connection, for now or
// for good, or ErrClosed.
func (c *Conn) Open() (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, ErrClosed
	case c.goingAway || c.peerGone || c.nextID > maxStreamID || int64(len(c.streams)+c.reserved) >= c.peer.maxStreams:
		return nil, ErrRefused
	}
	c.reserved++
	s := c.newStream()
	s.started = true
	return s, nil
}

// ID returns the stream's number. It is for the holder of a request that came in.
func (s *Stream) ID() uint32 { return s.id }

// Hold says who writes: with a batch, somebody who must not wait, so that what no window
// allows is kept, and Flush leaves writing to the batch; without one, a goroutine that
// waits in place. Bytes that lie in the connection's read buffer are then kept elsewhere.
func (s *Stream) Hold(b *Batch) {
	c := s.conn
	c.mu.Lock()
	s.batch = b
	if b == nil {
		s.stow()
	}
	c.mu.Unlock()
}

// stow keeps what was not read of bytes in the connection's read buffer. It needs mu.
func (s *Stream) stow() {
	if len(s.direct) > 0 {
		s.in = append(sockio.Reserve(s.in, len(s.direct)), s.direct...)
	}
	s.direct = nil
}

// signal wakes the goroutine that waits on ch.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wait waits for a signal. It needs mu, and lets go of it meanwhile.
func (s *Stream) wait(ch chan struct{}) {
	s.conn.mu.Unlock()
	<-ch
	s.conn.mu.Lock()
}

// takeHead queues a head that was decoded. It needs mu.
func (s *Stream) takeHead(h *wire.Head, end bool) {
	final := s.conn.role == Server || h.Status >= 200
	s.gotHead = s.gotHead || final
	s.declared = h.ContentLength
	if final {
		if !end && h.Get(wire.Trailer) != nil {
			// In HTTP/1.1 only a body of chunks can have trailers (RFC 9112 §7.1.2).
			h.ContentLength = wire.NoLength
		}
		h.Streamed = !end && h.ContentLength == wire.NoLength
		if end && h.ContentLength == wire.NoLength && s.conn.role == Client && !s.bodyless(h.Status) {
			h.ContentLength = 0
		}
	}
	if s.nHeads == len(s.heads) {
		s.heads = append(s.heads, wire.Head{})
	}
	s.heads[s.nHeads], *h = *h, s.heads[s.nHeads]
	s.nHeads++
	if end {
		s.endRecv()
	}
}

// isUnread reports whether this side does not read a body that still comes in.
func (s *Stream) isUnread() bool { return s.refused || !s.recvEnded && s.recvErr != nil }

// bodyless reports whether a response has no body, whatever its fields say (RFC 9110 §6.4.1).
func (s *Stream) bodyless(status int) bool {
	return s.toHead || status < 200 || status == 204 || status == 304
}

// endRecv notes that the peer's half has ended. It needs mu.
func (s *Stream) endRecv() {
	s.recvEnded = true
	s.closeIfDone()
}

// closeIfDone takes a stream out once both halves have ended. It needs mu.
func (s *Stream) closeIfDone() {
	if s.open && s.recvEnded && s.sendEnded && !s.refused {
		if s.conn.role == Server {
			s.conn.resets.earn()
		}
		s.leave(false)
	}
}

// leave takes a stream out. It needs mu.
func (s *Stream) leave(reset bool) {
	c := s.conn
	if !s.open {
		return
	}
	s.open = false
	c.changed = true
	delete(c.streams, s.id)
	c.over.add(s.id, reset)
	c.unblock(s)
	if !s.held {
		c.recycle(s)
	}
}

// failLocked ends both halves, as far as they have not. It needs mu.
func (s *Stream) failLocked(err error) {
	if !s.recvEnded && s.recvErr == nil {
		s.recvErr = err
	}
	if !s.sendEnded && s.sendErr == nil {
		s.sendErr = err
	}
	s.conn.unblock(s)
	signal(s.readable)
	signal(s.writable)
}

// failHead ends the reading half with a fault of the message. It needs mu.
func (s *Stream) failHead(bad *wire.Error) {
	if s.recvErr == nil {
		s.recvErr = bad
	}
}

// resetLocked ends the stream by RST_STREAM. It needs mu.
func (s *Stream) resetLocked(code Code, err error) {
	if s.open && s.conn.err == nil {
		s.conn.appendReset(s.id, code)
	}
	s.failLocked(err)
	s.leave(true)
}

// Park leaves a waker, unless what is read next is here already: then it returns false.
// After true, the stream is the waker's.
func (s *Stream) Park(w Waker) bool {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.isReady() {
		return false
	}
	s.waker = w
	return true
}

// Ready reports whether what is read next, head or body, is here already.
func (s *Stream) Ready() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.isReady()
}

func (s *Stream) isReady() bool {
	switch {
	case s.nHeads > 0 || s.recvErr != nil:
		return true
	case !s.headTaken:
		return false
	}
	return s.recvEnded || len(s.in) > 0 || len(s.direct) > 0 || s.at < len(s.taken)
}

// ReadHead reads the next head, of a request or of a response, interim ones too. It
// blocks. The error is a *wire.Error if the message is malformed, os.ErrDeadlineExceeded
// past the deadline, ErrRefused, a *ResetError, ErrReleased or ErrClosed.
func (s *Stream) ReadHead(h *wire.Head) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.nHeads == 0 {
		if s.recvErr != nil {
			return s.recvErr
		}
		s.wait(s.readable)
	}
	h.Reset()
	s.nHeads--
	// The first one goes out, and its place to the end.
	*h, s.heads[0] = s.heads[0], *h
	if s.nHeads > 0 {
		first := s.heads[0]
		copy(s.heads, s.heads[1:s.nHeads+1])
		s.heads[s.nHeads] = first
	}
	s.headTaken = c.role == Server || h.Status >= 200
	return nil
}

// Whole returns the whole body if all of it is here, without waiting. It is valid until
// Release.
func (s *Stream) Whole() ([]byte, bool) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.recvEnded || s.recvErr != nil || s.at < len(s.taken) {
		return nil, false
	}
	s.stow()
	s.swap()
	s.at = len(s.taken)
	return s.taken, true
}

// swap lets what lies here be handed out. It needs mu, and what was handed out before is
// not used any more.
func (s *Stream) swap() {
	n := int64(len(s.in))
	s.taken, s.in = s.in, s.taken[:0]
	s.at = 0
	s.pass(n)
}

// pass gives back the windows of bytes that are passed on. It needs mu.
func (s *Stream) pass(n int64) {
	c := s.conn
	c.consumed(n)
	if s.owed += n; s.owed >= s.window/2 && !s.recvEnded && s.open {
		more := max(0, min(int64(c.config.StreamWindow)-s.window, maxGrown-c.grown))
		s.window += more
		c.grown += more
		s.recvWindow += s.owed + more
		c.appendWindow(s.id, s.owed+more)
		s.owed = 0
	}
}

// Next returns the next bytes of the body, at least one and at most 16 kB, valid until
// the next call; io.EOF at its end. It blocks. Errors are as those of ReadHead.
func (s *Stream) Next() ([]byte, error) {
	c := s.conn
	c.mu.Lock()
	p, err := s.nextLocked()
	c.tell(nil) // windows that were given back
	c.mu.Unlock()
	return p, err
}

func (s *Stream) nextLocked() ([]byte, error) {
	for {
		if s.at < len(s.taken) {
			p := s.taken[s.at:min(len(s.taken), s.at+maxFrame)]
			s.at += len(p)
			return p, nil
		}
		switch {
		case len(s.in) > 0:
			s.swap()
			continue
		case len(s.direct) > 0:
			p := s.direct
			s.direct = nil
			s.pass(int64(len(p)))
			return p, nil
		case s.recvErr != nil:
			return nil, s.recvErr
		case s.recvEnded:
			return nil, io.EOF
		}
		s.wait(s.readable)
	}
}

// Trailers are there once Next has returned io.EOF, or Whole the body, until Release.
func (s *Stream) Trailers() []wire.Field { return s.trailers.Fields }

// StopReading makes the Next that waits, and further ones, fail with
// os.ErrDeadlineExceeded.
func (s *Stream) StopReading() {
	c := s.conn
	c.mu.Lock()
	if !s.recvEnded && s.recvErr == nil {
		s.recvErr = os.ErrDeadlineExceeded
	}
	c.mu.Unlock()
	signal(s.readable)
}

// SetDeadline ends reading when the clock is past at, in nanoseconds; 0: never. It holds
// until Release. A timer that is set already and fires earlier is left: most requests are
// answered before it, and so the many set none.
func (s *Stream) SetDeadline(at int64) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.deadline = at
	if at == 0 || s.armed != 0 && s.armed <= at {
		return
	}
	s.arm(at)
}

// arm sets the timer. It needs mu.
func (s *Stream) arm(at int64) {
	s.armed = at
	d := time.Duration(max(at-s.conn.config.Clock(), 0))
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.expire)
	} else {
		s.timer.Reset(d)
	}
}

// expire is what the timer does. The stream may be another request's by now.
func (s *Stream) expire() {
	c := s.conn
	c.mu.Lock()
	s.armed = 0
	var w Waker
	switch {
	case s.deadline == 0 || c.err != nil:
	case c.config.Clock() < s.deadline:
		s.arm(s.deadline)
	case !s.recvEnded && s.recvErr == nil:
		s.recvErr = os.ErrDeadlineExceeded
		w, s.waker = s.waker, nil
		signal(s.readable)
	}
	c.mu.Unlock()
	if w != nil {
		w.Wake(nil)
	}
}

// Abort ends the stream: who reads or writes gets an error. Any goroutine may call it; in
// the hands of the next holder, it would do as much to that.
func (s *Stream) Abort() {
	c := s.conn
	c.mu.Lock()
	code := Cancel
	if c.role == Server {
		code = InternalError
	}
	s.resetLocked(code, ErrReleased)
	w := s.waker
	s.waker = nil
	c.mu.Unlock()
	if w != nil {
		go w.Wake(nil) // the caller may hold locks
	}
	go c.flush()
}

// Release gives the stream back. What of it has not ended is reset: a response that is not
// whole with INTERNAL_ERROR, a request that is not wanted any more with CANCEL, or, where
// the response is whole, with NO_ERROR (RFC 9113 §8.1).
func (s *Stream) Release() {
	c := s.conn
	c.mu.Lock()
	batch := s.batch
	s.releaseLocked()
	c.tell(batch)
	changed := c.changed && c.role == Client && !c.handling
	if changed {
		c.changed = false
	}
	c.mu.Unlock()
	if changed {
		c.handler.Changed()
	}
}

func (s *Stream) releaseLocked() {
	c := s.conn
	s.held = false
	s.waker, s.batch, s.User, s.deadline = nil, nil, nil, 0
	if s.id == 0 {
		c.reserved--
		c.changed = true
	}
	if !s.open {
		c.recycle(s)
		return
	}
	code := NoError
	switch {
	case c.role == Client:
		code = Cancel
	case s.refused:
		code = s.refusal
	case !s.sendEnded && !s.endPending:
		code = InternalError
	}
	if s.endPending && s.sendErr == nil {
		return // the rest goes as the peer takes it
	}
	s.resetLocked(code, ErrReleased)
}

// Reset ends the stream with a code.
func (s *Stream) Reset(code Code) {
	c := s.conn
	c.mu.Lock()
	s.resetLocked(code, ErrReleased)
	c.tell(s.batch)
	c.mu.Unlock()
}

// tell lets a frame go out that nobody flushes. It needs mu.
func (c *Conn) tell(b *Batch) {
	switch {
	case len(c.out) == 0 || c.handling:
	case b != nil:
		b.add(c)
	default:
		c.flushLocked()
	}
}

// Room is how many bytes WriteBody takes without waiting or keeping more than a frame.
func (s *Stream) Room() int {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if len(s.pending) > 0 || s.sendErr != nil && s.batch == nil {
		return 0
	}
	return maxFrame
}

// WriteBody sends bytes of the body. It blocks while the peer takes none, unless Hold said
// that it must not.
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
		if s.batch != nil {
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

// IsRefused reports whether an error says that the peer surely did not act upon a request.
func IsRefused(err error) bool { return errors.Is(err, ErrRefused) }
