package http2

import (
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// resetFor ends a stream for what the peer did on it. It needs mu.
func (c *Conn) resetFor(s *Stream, code Code) error {
	err := c.spendReset(s)
	s.resetLocked(code, &ResetError{code, true})
	return err
}

// endFor is resetFor, and lets whoever waits for the stream go on. It needs mu, and lets go
// of it.
func (c *Conn) endFor(s *Stream, code Code) error {
	err := c.resetFor(s, code)
	w := c.arrived(s, true)
	c.mu.Unlock()
	c.goOn(s, w)
	return err
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
		if ended {
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
