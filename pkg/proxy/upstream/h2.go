package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// maxShared is how many HTTP/2 connections there may be to one host: another is opened
// when those that are there carry as many streams as the host allows.
const maxShared = 8

// shared are a host's HTTP/2 connections, each for many requests at once. It is safe for
// concurrent use.
type shared struct {
	host    *Host
	waiting atomic.Int32 // who wait for a stream

	mu      sync.Mutex
	conns   []*h2Conn     // guarded by mu
	leaving []*h2Conn     // guarded by mu; those that take no more streams, and carry some
	dialing *dialling     // guarded by mu; nil: no connection is being opened
	freed   chan struct{} // guarded by mu; closed when a stream may have become free; nil: nobody waits
	retired bool          // guarded by mu
}

// dialling is a connection that is being opened, for all who wait for it.
type dialling struct {
	done chan struct{}
	err  error // when done is closed
}

// h2Conn is one of the connections, as its handler.
type h2Conn struct {
	*http2.Conn
	shared *shared
	// security is what the connection was made with; nil: in the clear.
	security *mtls.Client
	requests int64        // guarded by shared.mu; streams that were opened
	oldAt    int64        // when it is too old for another
	idleAt   atomic.Int64 // since when the sweep has seen no stream on it; 0: it has
}

// Request is never called: hosts send no requests.
func (*h2Conn) Request(s *http2.Stream, _ *wire.Error, _ *http2.Batch) { s.Release() }

// Cancelled does nothing: who reads the stream learns of it.
func (*h2Conn) Cancelled(any, uint32) {}

// Changed wakes those who wait for a stream.
func (c *h2Conn) Changed() {
	if c.shared.waiting.Load() == 0 {
		return
	}
	c.shared.mu.Lock()
	if c.shared.freed != nil {
		close(c.shared.freed)
		c.shared.freed = nil
	}
	c.shared.mu.Unlock()
}

// take returns a stream on a connection that is there, nil if none has room.
func (s *shared) take() Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked()
}

func (s *shared) takeLocked() Stream {
	limits := s.host.cluster.limits.Load()
	now := int64(0)
	if limits.lifetime > 0 {
		now = s.host.cluster.clock()
	}
	for i := 0; i < len(s.conns); i++ {
		c := s.conns[i]
		if c.security != limits.tls || now >= c.oldAt { // of a configuration that is not in force any more, or too old
			s.finish(i)
			i--
			continue
		}
		// How many streams there may be is not known before the host has said it, and hosts
		// that allow few end the connection of who opens more (RFC 9113 §5.1.2).
		if !c.Settled() && c.Active() > 0 {
			continue
		}
		stream, err := c.Open()
		switch {
		case err == nil:
			if c.requests++; limits.perConnection > 0 && c.requests >= limits.perConnection {
				s.finish(i)
			}
			return newH2Stream(s.host, stream)
		case errors.Is(err, http2.ErrNoMore): // the host has said GOAWAY
			s.finish(i)
			i--
		case errors.Is(err, http2.ErrClosed):
			s.conns = slices.Delete(s.conns, i, i+1)
			i--
		}
	}
	return nil
}

// finish lets a connection end with its last stream, and others take its place. It needs mu.
func (s *shared) finish(i int) {
	c := s.conns[i]
	s.conns = slices.Delete(s.conns, i, i+1)
	s.leaving = append(s.leaving, c)
	c.Finish()
}

// await returns a stream as soon as there is one, and opens a connection if that takes
// one. It blocks until ctx ends, but does not go on for ever with a host whose connections
// take no request: then the error is ErrRefused. ErrNoSettings is that of a host that took a
// connection and has not said in time how many it takes.
func (s *shared) await(ctx context.Context) (Stream, error) {
	if s.waiting.Add(1) > maxQueued {
		s.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer s.waiting.Add(-1)
	for dialled := 0; ; {
		s.mu.Lock()
		if stream := s.takeLocked(); stream != nil {
			s.mu.Unlock()
			return stream, nil
		}
		d, freed := s.dialing, (chan struct{})(nil)
		switch {
		case d != nil:
		case len(s.conns) < maxShared && !s.unsettledLocked():
			d = &dialling{done: make(chan struct{})}
			s.dialing = d
			go s.dial(d)
		default:
			if s.freed == nil {
				s.freed = make(chan struct{})
			}
			freed = s.freed
		}
		s.mu.Unlock()
		var done chan struct{}
		if d != nil {
			done = d.done
		}
		select {
		case <-done:
			if d.err != nil {
				return nil, d.err
			}
			if dialled++; dialled > maxShared {
				return nil, ErrRefused
			}
		case <-freed:
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.unsettledLocked() {
				return nil, fmt.Errorf("%w: %w", ErrNoSettings, ctx.Err())
			}
			return nil, ctx.Err()
		}
	}
}

// unsettledLocked reports whether there is a connection of which it is not known yet how many
// streams it may carry: it will have room for more. It needs mu.
func (s *shared) unsettledLocked() bool {
	return slices.ContainsFunc(s.conns, func(c *h2Conn) bool { return !c.Settled() })
}

// dial opens a connection for all who wait.
func (s *shared) dial(d *dialling) {
	h := s.host
	ctx, cancel := context.WithTimeout(context.Background(), h.cluster.limits.Load().connectTimeout)
	defer cancel()
	nc, security, err := h.connectHTTP2(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing = nil
	d.err = err
	close(d.done)
	if err != nil {
		return
	}
	c := s.start(nc, security)
	if s.retired {
		c.Finish()
		return
	}
	s.conns = append(s.conns, c)
}

// adopt takes a connection that turned out to speak HTTP/2, unless there is one already.
func (s *shared) adopt(nc net.Conn, security *mtls.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || len(s.conns) > 0 {
		_ = nc.Close() // nothing was sent on it
		s.host.uncount()
		return
	}
	s.conns = append(s.conns, s.start(nc, security))
}

// start speaks HTTP/2 on a connection.
func (s *shared) start(nc net.Conn, security *mtls.Client) *h2Conn {
	cluster := s.host.cluster
	limits, o, heads := cluster.limits.Load(), cluster.limits.Load().http2, http1.ForPeers()
	c := &h2Conn{shared: s, security: security, oldAt: limits.oldAt(cluster.clock())}
	c.Conn = http2.NewConn(nc, http2.Client, nil, c, http2.Config{
		HeadBytes: heads.HeadBytes, Fields: heads.Fields, Clock: cluster.clock,
		MaxStreams: int(o.MaxConcurrentStreams), StreamWindow: int(o.InitialStreamWindow), ConnWindow: int(o.InitialConnectionWindow),
		PingEvery: o.Keepalive.Interval, PingJitter: int(o.Keepalive.Jitter), PingTimeout: o.Keepalive.Timeout,
	})
	go func() {
		err := c.Serve()
		s.host.uncount()
		s.remove(c)
		var fault *http2.ConnError
		if errors.As(err, &fault) {
			cluster.log.Warn("a host breaks HTTP/2", "cluster", cluster.name, "host", s.host.address, "error", err)
		}
	}()
	return c
}

func (s *shared) remove(c *h2Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := func(other *h2Conn) bool { return other == c }
	s.conns = slices.DeleteFunc(s.conns, is)
	s.leaving = slices.DeleteFunc(s.leaving, is)
}

// retire lets every connection end with its last stream.
func (s *shared) retire() {
	s.mu.Lock()
	s.retired = true
	conns := s.conns
	s.conns = nil
	s.leaving = append(s.leaving, conns...)
	parts := len(s.leaving) > 0
	s.mu.Unlock()
	if parts {
		s.host.cluster.set.part(s.host)
	}
	for _, c := range conns {
		c.Finish()
	}
}

// idle returns how many connections carry no stream.
func (s *shared) idle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.conns {
		if c.Active() == 0 {
			n++
		}
	}
	return n
}

// closeIdle closes a connection that carries no stream, if there is one.
func (s *shared) closeIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.conns {
		if c.Active() == 0 {
			s.finish(i)
			return true
		}
	}
	return false
}

// sweep closes connections that have carried no stream for the idle time and those that are too
// old, and looks after the others. It reports whether there are any.
func (s *shared) sweep(now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := s.host.cluster.limits.Load()
	for i := 0; i < len(s.conns); i++ {
		c := s.conns[i]
		since := c.idleAt.Load()
		switch {
		case now >= c.oldAt:
			s.finish(i)
			i--
			continue
		case c.Active() > 0:
			c.idleAt.Store(0)
		case since == 0:
			c.idleAt.Store(now)
		case now-since > limits.idle:
			s.finish(i)
			i--
			continue
		}
		c.Check(now)
	}
	for _, c := range s.leaving {
		c.Check(now)
	}
	return len(s.conns)+len(s.leaving) > 0
}

// h2Stream is a request on a connection that others use, too.
type h2Stream struct {
	*http2.Stream // but for the rest it is the stream's as it is
	host          *Host
}

func newH2Stream(h *Host, stream *http2.Stream) *h2Stream {
	s := h.cluster.set.streams.Get().(*h2Stream)
	s.Stream, s.host = stream, h
	return s
}

func (s *h2Stream) ReadResponse(h *wire.Head, _ bool) error {
	err := s.ReadHead(h)
	if err == nil {
		return nil
	}
	var reset *http2.ResetError
	if errors.As(err, &reset) && reset.Code == http2.HTTP11Required {
		return fmt.Errorf("%w: the host wants HTTP/1.1 for this request", err)
	}
	return err
}

// Stir does nothing: the reader of the connection misses nothing.
func (s *h2Stream) Stir() {}

func (s *h2Stream) Crowded(now int64) bool { return s.host.cluster.isCrowded(now) }

func (s *h2Stream) Written() int64 {
	if s.Stream.Written() {
		return 1
	}
	return 0
}

// Release gives the stream back, whatever became of it: the connection stays.
func (s *h2Stream) Release(bool, int64) {
	stream, pool := s.Stream, &s.host.cluster.set.streams
	s.Stream, s.host = nil, nil
	pool.Put(s)
	stream.Release()
}
