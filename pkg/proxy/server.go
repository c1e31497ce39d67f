package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// Router finds what a request is to be done with. Implementations are safe for
// concurrent use.
type Router interface {
	// Route returns the entry for a request, or why there is none. It does not
	// block; wait is true if Await may have a better answer.
	Route(authority, path []byte, now int64) (e *table.Entry, why reason.Reason, wait bool)
	// Await is Route for a destination that has to be learnt first. It blocks, for a
	// bounded time, or until ctx ends.
	Await(ctx context.Context, authority, path []byte) (*table.Entry, reason.Reason)
}

// Config is what a Server needs. Fields without a default are required.
type Config struct {
	// Name of the listener in logs.
	Name   string
	Router Router
	// Clock returns monotonic nanoseconds, as all of upstream and breaker use.
	Clock func() int64
	Log   *slog.Logger
	// Unrouted counts the requests that belong to no destination: malformed, or to
	// names that nobody knows. In flight it has those too whose destination is being learnt.
	Unrouted *metrics.Requests
	Access   *accesslog.Log  // nil: no access log
	Tracer   *tracing.Tracer // nil: traces are neither read nor written
	TLS      *mtls.Server    // nil: connections are in the clear
	// Limits of what clients may send. Zero fields mean http1's defaults.
	Limits http1.Limits
	// IdleTimeout closes a connection on which no request has come for so long.
	// Default 5 min.
	IdleTimeout time.Duration
	// RestAfter is how long a connection that speaks HTTP/1 in the clear is idle before it
	// keeps little more than its socket. The next request on it allocates what it needs
	// anew. Default 1 s.
	RestAfter time.Duration
	// HeadTimeout ends a connection whose request's head is not complete so long after
	// its first byte, or whose TLS handshake takes so long. Default 10 s.
	HeadTimeout time.Duration
	// StallTimeout closes a connection whose client neither sends nor takes a byte
	// in the middle of an exchange. One that stops in its body is answered with 408
	// first, unless it has an answer already. Default 60 s.
	StallTimeout time.Duration
	// ProxyProtocol wants a PROXY protocol header in front of each connection, which is
	// closed if there is none.
	ProxyProtocol bool
	// PrefaceTimeout bounds the wait for it. Default 15 s.
	PrefaceTimeout time.Duration
	// Accept makes of a connection what serves it, instead of HTTP; nil: HTTP.
	Accept func(net.Conn) Connection
	// Connect lets clients ask for tunnels, by CONNECT (RFC 9110 §9.3.6), to where requests
	// with the same authority are routed. Otherwise only entries with Connect take that.
	Connect bool
	// External leads those to the outside whose authority is no service's, so it needs
	// Connect; its Cluster is nil. nil: they are refused.
	External *table.Entry
	// Outside connects to the outside. Required with External.
	Outside *upstream.Outside
	// TunnelIdleTimeout ends a tunnel, which an upgraded connection is (RFC 9110 §7.8) and
	// what CONNECT asks for, in which no byte has moved for so long. Default 1 h.
	TunnelIdleTimeout time.Duration
	// Codec is which versions of HTTP are taken.
	Codec mesh.HTTPCodec
	// Forwarded says what hosts are told of who sends a request. Default nothing.
	Forwarded mesh.Forwarded
	// HTTP2 bounds connections that speak it. Zero fields mean the defaults of [http2.Config].
	HTTP2 mesh.HTTP2Options
	// MaxConnectionDuration ends a connection that is so old, but for what chance takes away or
	// adds by MaxConnectionJitter, as of [mesh.OldAt]: with the response under way, or, where it
	// speaks HTTP/2, by GOAWAY. 0, the default: none is too old.
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   int32
	// MaxRequestsPerConnection ends a connection with so many requests. 0, the default: any
	// number.
	MaxRequestsPerConnection int
	// MaxConnections open at once. One more takes the place of the one that has been
	// idle for longest; if none is idle, it is closed unread. Default 10,000.
	MaxConnections int
	// Behind are servers that get their connections from this one, once it is known what those
	// are. They count in its MaxConnections, and may make room.
	Behind []*Server
}

func (c Config) withDefaults() Config {
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.RestAfter == 0 {
		c.RestAfter = time.Second
	}
	if c.HeadTimeout == 0 {
		c.HeadTimeout = 10 * time.Second
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = time.Minute
	}
	if c.PrefaceTimeout == 0 {
		c.PrefaceTimeout = 15 * time.Second
	}
	if c.TunnelIdleTimeout == 0 {
		c.TunnelIdleTimeout = time.Hour
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 10_000
	}
	return c
}

// connection is what the server does with its connections, whatever they speak. All
// but serve are called from any goroutine, under locks too, and write nothing to a
// socket: they set deadlines, close, or leave writing to whoever serves.
type connection interface {
	// serve carries exchanges until the connection ends, and then calls Server.ended.
	serve()
	// check looks whether the client went away, or something takes too long.
	check(now int64)
	// idleSince returns since when the connection is between exchanges, false if it is
	// in one.
	idleSince() (int64, bool)
	// drain lets no further exchange begin; between two, the connection ends.
	drain()
	// makeRoom ends the connection, which is between exchanges, at once: another needs its place.
	makeRoom()
	// cut ends the connection in the middle of what it does.
	cut()
}

// Server serves the connections of a listener. It is safe for concurrent use.
type Server struct {
	config Config
	// wall is the wall-clock time at clock 0, so that one reading of the clock
	// serves both.
	wall time.Time
	// dated is what the last response got that came without a date.
	dated atomic.Pointer[dated]

	draining atomic.Bool
	lookedAt atomic.Int64 // when the watchdog last looked: the time of what happens often, without a clock
	spliced  atomic.Int32 // ways of tunnels that the kernel carries at the moment
	workers  workers
	// exchanges of HTTP/1, between two requests.
	exchanges sync.Pool
	rests     atomic.Uint32 // how often a connection has gone to rest
	told      atomic.Int64  // when it was last warned of a failed handshake; 0: never
	looking   sync.Mutex    // held by the watchdog that looks
	tired     []*conn       // guarded by looking; are to rest

	mu       sync.Mutex
	conns    map[connection]struct{} // guarded by mu
	overflow time.Time               // guarded by mu; when it was last said that there are too many
	empty    chan struct{}           // guarded by mu; closed when draining and conns is empty
	closed   bool                    // guarded by mu
}

// NewServer makes a server; Serve starts it.
func NewServer(config Config) *Server {
	config = config.withDefaults()
	return &Server{
		config:    config,
		wall:      time.Now().Add(-time.Duration(config.Clock())),
		conns:     map[connection]struct{}{},
		workers:   newWorkers(),
		empty:     make(chan struct{}),
		exchanges: sync.Pool{New: func() any { return new(exchange) }},
	}
}

// Serve accepts connections until ctx ends or l fails, and then closes l.
// Connections live on until Drain.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	watch := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(watch) })
	defer watching.Wait()
	defer close(watch)
	var warned time.Time
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			s.start(nc)
		case ctx.Err() != nil:
			return nil
		case isTemporary(err):
			if time.Since(warned) > acceptWarnEvery {
				warned = time.Now()
				s.config.Log.Warn("connections cannot be accepted", "listener", s.config.Name, "error", err)
			}
			pause(ctx)
		default:
			return fmt.Errorf("listener %s: %w", s.config.Name, err)
		}
	}
}

// acceptWarnEvery is how often it is said, at most, that accepting fails.
const acceptWarnEvery = 10 * time.Second

// isTemporary reports whether accepting may work again, as when descriptors ran out.
func isTemporary(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && !errors.Is(err, net.ErrClosed)
}

// pause waits for descriptors to come free.
func pause(ctx context.Context) {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Server) start(nc net.Conn) {
	c := s.connection(nc)
	s.mu.Lock()
	if s.closed || s.open() >= s.config.MaxConnections && !s.makeRoom() {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	go c.serve()
}

// open is how many connections count in the bound. It needs s.mu.
func (s *Server) open() int {
	n := len(s.conns)
	for _, behind := range s.config.Behind {
		n += behind.Connections()
	}
	return n
}

// makeRoom ends the connection that has been idle for longest, so that those who keep
// connections and say nothing do not shut others out: one of its own, for what it is not even
// known, before those that were handed on. It needs s.mu.
func (s *Server) makeRoom() bool {
	if time.Since(s.overflow) > acceptWarnEvery {
		s.overflow = time.Now()
		s.config.Log.Warn("as many connections as there may be; idle ones are closed, and new ones if none is idle",
			"listener", s.config.Name, "connections", s.open())
	}
	if s.endIdle() {
		return true
	}
	for _, behind := range s.config.Behind {
		behind.mu.Lock()
		ended := behind.endIdle()
		behind.mu.Unlock()
		if ended {
			return true
		}
	}
	return false
}

// endIdle ends the connection that has been idle for longest, if any is. It needs s.mu.
func (s *Server) endIdle() bool {
	var longest connection
	var since int64
	for c := range s.conns {
		if at, idle := c.idleSince(); idle && (longest == nil || at < since) {
			longest, since = c, at
		}
	}
	if longest == nil {
		return false
	}
	longest.makeRoom() // it is there for a moment longer, and not idle any more
	return true
}

// oldAt returns when a connection that begins now is too old.
func (s *Server) oldAt(now int64) int64 {
	return mesh.OldAt(now, s.config.MaxConnectionDuration, s.config.MaxConnectionJitter, rand.Float64())
}

// isLast reports whether the n-th request of a connection, which is too old at oldAt, is to be its last.
func (s *Server) isLast(n int, oldAt, now int64) bool {
	return s.draining.Load() || now >= oldAt || s.config.MaxRequestsPerConnection > 0 && n >= s.config.MaxRequestsPerConnection
}

// replace lets a connection go on as another, once it is known what it speaks.
func (s *Server) replace(c, by connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.conns[by] = struct{}{}
}

func (s *Server) ended(c connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.closed && len(s.conns) == 0 {
		close(s.empty)
	}
}

// Connections returns how many are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Drain ends all connections: idle ones at once, others after the exchange that
// they are in, or when ctx ends. It returns how many were cut off. Serve should
// have been stopped before.
func (s *Server) Drain(ctx context.Context) int {
	s.draining.Store(true)
	s.mu.Lock()
	already := s.closed
	s.closed = true
	if len(s.conns) == 0 && !already {
		close(s.empty)
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()

	defer s.workers.end()
	// What is under way is looked after until it is over, as before: clients go away, and stall.
	watch := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(watch) })
	defer watching.Wait()
	defer close(watch)
	select {
	case <-s.empty:
		return 0
	case <-ctx.Done():
	}
	s.mu.Lock()
	cut := len(s.conns)
	for c := range s.conns {
		c.cut()
	}
	s.mu.Unlock()
	<-s.empty
	return cut
}

// watchEvery is how soon a client that went away is noticed.
const watchEvery = 250 * time.Millisecond

// giveBack gives memory that nothing holds back to the system. Pools keep theirs for one collection
// more (sync.Pool), which behind a wave of requests is most of it.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

// watch looks at all connections again and again, until stop closes. It is what
// lets requests do without timers. Serve has one, and Drain.
func (s *Server) watch(stop <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var all []connection
	tidy := tidier{free: giveBack}
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if !s.looking.TryLock() {
			continue // Serve's looks, while Drain's is there already
		}
		s.mu.Lock()
		all = all[:0]
		for c := range s.conns {
			all = append(all, c)
		}
		s.mu.Unlock()
		now := s.config.Clock()
		s.lookedAt.Store(now)
		for i, c := range all {
			c.check(now)
			all[i] = nil
		}
		s.layToRest()
		tidy.check(s.rests.Load())
		s.looking.Unlock()
	}
}
