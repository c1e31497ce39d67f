package proxy

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// tidyAfter is how many connections have to have gone to rest before it pays to give what
// they held back to the system at once; otherwise the runtime does it within minutes.
const tidyAfter = 256

// tidier knows when to do so: behind a wave of connections, not within it.
type tidier struct {
	free         func()
	before, done uint32
}

// check is told how many connections have ever gone to rest, at each look at them.
func (t *tidier) check(rests uint32) {
	if rests == t.before && rests-t.done >= tidyAfter {
		t.done = rests
		t.free()
	}
	t.before = rests
}

// rested is a client connection that has been idle for a while, of which no more is kept
// than what it needs to go on: it waits on a goroutine whose stack has never grown, which is
// half of the memory of one that carried a request, and has no codec.
type rested struct {
	server   *Server
	socket   *net.TCPConn
	since    int64
	scheme   []byte
	from     netip.Addr
	requests int
	oldAt    int64
	ended    atomic.Bool // by others than the client

	mu    sync.Mutex
	woken bool // guarded by mu; it is over, or goes on as a conn
}

// layToRest wakes those that are tired. The runtime begins stacks with what those that it saw at the last
// collection had used, on average; behind a wave of requests, which a collection may have come upon
// while all of them waited for their answers, that is twice of what resting takes. So many are looked
// at again before, now that they are idle.
func (s *Server) layToRest() {
	if len(s.tired) >= tidyAfter {
		runtime.GC()
	}
	for i, c := range s.tired {
		c.wakeToRest()
		s.tired[i] = nil
	}
	s.tired = s.tired[:0]
}

// wakeToRest wakes the goroutine of an idle connection, which is to rest, if there is
// nothing between it and the socket that could hold bytes.
func (c *conn) wakeToRest() {
	if _, ok := c.net.(*net.TCPConn); !ok {
		return
	}
	c.wake(resting)
}

// wake wakes the goroutine of an idle connection, which is to rest or to leave.
func (c *conn) wake(to phase) {
	c.life.mu.Lock()
	defer c.life.mu.Unlock()
	if c.life.phase.CompareAndSwap(uint32(idle), uint32(to)) {
		_ = c.net.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed one
	}
}

// woken returns what the connection was woken for, and takes the deadline back that woke it.
func (c *conn) woken() phase {
	c.life.mu.Lock() // the deadline may be about to be set
	defer c.life.mu.Unlock()
	_ = c.net.SetReadDeadline(time.Time{})
	return phase(c.life.phase.Load())
}

// rest leaves the connection to a rested one.
func (c *conn) rest() {
	r := &rested{
		server: c.server, socket: c.net.(*net.TCPConn), since: c.life.since.Load(),
		scheme: c.scheme, from: c.from, requests: c.requests, oldAt: c.oldAt,
	}
	c.h1.Release()
	c.server.replace(c, r)
	c.server.rests.Add(1)
	if c.server.draining.Load() { // a drain may have seen c
		r.drain()
	}
	go r.serve()
}

// serve waits for the next request, and goes on as a connection that reads it.
func (r *rested) serve() {
	if !r.await() {
		_ = r.socket.Close()
		r.server.ended(r)
		return
	}
	c := newConn(r.server, r.socket)
	c.scheme, c.from, c.requests, c.oldAt = r.scheme, r.from, r.requests, r.oldAt
	r.server.replace(r, c) // if a drain has seen r, c carries the request that came first
	c.serve()
}

// await waits for the next request, and returns false if none will come.
func (r *rested) await() bool {
	err := sockio.Await(r.socket)
	r.mu.Lock()
	r.woken = true
	r.mu.Unlock()
	if r.ended.Load() {
		_ = r.socket.SetReadDeadline(time.Time{}) // fails only on a closed one
		return err == nil || sockio.Pending(r.socket)
	}
	return err == nil
}

func (r *rested) check(now int64) {
	if now-r.since > int64(r.server.config.IdleTimeout) {
		r.drain()
	}
}

func (r *rested) idleSince() (int64, bool) { return r.since, !r.ended.Load() }

// drain is that of conn.
func (r *rested) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.woken {
		r.ended.Store(true)
		_ = r.socket.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed one
	}
}

func (r *rested) makeRoom() { r.drain() }

func (r *rested) cut() {
	r.ended.Store(true)
	_ = r.socket.Close()
}
