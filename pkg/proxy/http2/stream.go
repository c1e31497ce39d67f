package http2

import (
	"context"
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

	openedAt int64 // of a server

	// The reading half.
	heads      []wire.Head // the first nHeads are to be read
	nHeads     int
	trailers   wire.Head
	gotHead    bool // the head of a request, or of a final response, has come
	gotFinal   bool // of a client: the final response's head has come
	headTaken  bool // and was read
	connects   bool // of a client: the request is a CONNECT
	isTunnel   bool // what comes behind the head is a tunnel's
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
	stopped    bool // Next is not to wait
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
	isLate     bool  // of a client: it is in conn.late, and ends with that
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
	if c.err == nil && len(c.free) < maxFree {
		c.free = append(c.free, s)
	} else {
		s.disarm()
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
// The error is ErrRefused if there can be no more streams on the connection for now,
// ErrNoMore if for good, or ErrClosed.
func (c *Conn) Open() (*Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return nil, ErrClosed
	case c.closing || c.goingAway || c.peerGone || c.nextID > maxStreamID:
		return nil, ErrNoMore
	case int64(len(c.streams)+c.reserved) >= min(c.peer.maxStreams, int64(c.config.MaxStreams)):
		return nil, ErrRefused
	}
	c.reserved++
	s := c.newStream()
	s.started = true
	return s, nil
}

// Settled reports whether the peer's first settings are here, or will never be. Until then it
// is not known how many streams it takes.
func (c *Conn) Settled() bool {
	select {
	case <-c.told:
		return true
	default:
		return false
	}
}

// TakesProtocol reports whether the server has announced that it takes CONNECT with a
// protocol (RFC 8441 §3). It waits for its first settings, which may say so. The error is
// that of ctx, or ErrRefused if the connection ended before: nothing was sent on the stream.
func (s *Stream) TakesProtocol(ctx context.Context) (bool, error) {
	c := s.conn
	select {
	case <-c.told:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false, ErrRefused
	}
	return c.peer.connect, nil
}

// ID returns the stream's number (RFC 9113 §5.1.1). It is for the holder of a request that came in.
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

// closeIfDone takes a stream out once both halves have ended. It needs mu.
func (s *Stream) closeIfDone() {
	if s.open && s.recvEnded && s.sendEnded && !s.refused {
		s.conn.resets.earn()
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

// resetLocked ends the stream by RST_STREAM, for those who hold it at once. It needs mu.
func (s *Stream) resetLocked(code Code, err error) {
	late := s.conn.putOff(s, code)
	if !late && s.open && s.conn.err == nil {
		s.conn.appendReset(s.id, code)
	}
	s.failLocked(err)
	if !late {
		s.leave(true)
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

// Reset ends the stream by RST_STREAM with a code. It is for the holder, and does not block.
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
