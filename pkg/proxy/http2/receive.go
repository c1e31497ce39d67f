package http2

import (
	"io"
	"os"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// stow keeps what was not read of bytes in the connection's read buffer. It needs mu.
func (s *Stream) stow() {
	if len(s.direct) > 0 {
		s.in = append(sockio.Reserve(s.in, len(s.direct)), s.direct...)
	}
	s.direct = nil
}

// takeHead queues a head that was decoded. It needs mu.
func (s *Stream) takeHead(h *wire.Head, end bool) {
	final := s.conn.role == Server || h.Status >= 200
	s.gotHead = s.gotHead || final
	if s.conn.role == Server {
		s.isTunnel = string(h.Method) == "CONNECT"
	} else {
		s.isTunnel = s.connects && h.Status >= 200 && h.Status < 300
	}
	if s.isTunnel {
		// RFC 9110 §9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header
		// fields received in a successful response to CONNECT", nor has the request content.
		h.ContentLength = wire.NoLength
	}
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

// failRecv ends the reading half with a fault of the message. The first one counts. It needs mu.
func (s *Stream) failRecv(bad *wire.Error) {
	if s.recvErr == nil {
		s.recvErr = bad
	}
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
	return s.recvEnded || s.stopped || len(s.in) > 0 || len(s.direct) > 0 || s.at < len(s.taken)
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
	h.Ends = c.role == Client && s.headTaken && s.recvEnded && s.recvErr == nil && len(s.in) == 0 && len(s.direct) == 0 && len(s.trailers.Fields) == 0
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
		case s.stopped:
			return nil, os.ErrDeadlineExceeded
		}
		s.wait(s.readable)
	}
}

// Trailers are there once Next has returned io.EOF, or Whole the body, until Release.
func (s *Stream) Trailers() []wire.Field { return s.trailers.Fields }

// StopReading makes the Next that waits, and further ones until GoOnReading, fail with
// os.ErrDeadlineExceeded, unless all of the body has come. Nothing is lost of what comes
// meanwhile.
func (s *Stream) StopReading() {
	c := s.conn
	c.mu.Lock()
	s.stopped = !s.recvEnded
	c.mu.Unlock()
	signal(s.readable)
}

// GoOnReading lets Next read on where it was.
func (s *Stream) GoOnReading() {
	c := s.conn
	c.mu.Lock()
	s.stopped = false
	c.mu.Unlock()
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

// disarm stops the timer of a stream that is not used again: it would keep the stream, and
// the connection with it, until it fires. It needs mu.
func (s *Stream) disarm() {
	if s.timer != nil {
		s.timer.Stop()
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
