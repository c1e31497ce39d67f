package upstream

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
)

const (
	// idleTime is how long a connection may lie idle before it is closed. It is
	// below the 60 s and more that servers commonly wait, so that it is this side
	// that closes.
	idleTime = 50 * time.Second
	// maxIdle bounds the idle connections to one host; the oldest is closed.
	maxIdle = 512
	// keepAlive finds peers that vanished without a word.
	keepAlive = 30 * time.Second
)

// Host is a live endpoint: its load, its breaker, its idle connections. It is
// safe for concurrent use.
type Host struct {
	cluster *Cluster
	address string
	network netip.AddrPort

	load     lb.Host
	failures atomic.Uint64
	breaker  atomic.Pointer[breaker.Breaker]
	endpoint atomic.Pointer[mesh.Endpoint]

	mu      sync.Mutex
	idle    []*Conn // guarded by mu; the most recently used last
	retired bool    // guarded by mu
}

func newHost(c *Cluster, e mesh.Endpoint) *Host {
	h := &Host{cluster: c, address: e.Address.String(), network: e.Address}
	h.endpoint.Store(&e)
	return h
}

// Endpoint returns the configuration in force.
func (h *Host) Endpoint() *mesh.Endpoint { return h.endpoint.Load() }

// Cluster returns the cluster the host is in.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Address returns where the host is connected to.
func (h *Host) Address() netip.AddrPort { return h.network }

// Status is what a host has been through, for those who show it.
type Status struct {
	Endpoint mesh.Endpoint
	Active   int
	Requests uint64
	Failures uint64
	Idle     int
	Breaker  *breaker.Snapshot // nil if breaking is off
}

// Status returns the host's counters.
func (h *Host) Status(now int64) Status {
	s := Status{Endpoint: *h.Endpoint(), Active: h.load.Active(), Requests: h.load.Requests(), Failures: h.failures.Load()}
	h.mu.Lock()
	s.Idle = len(h.idle)
	h.mu.Unlock()
	if b := h.breaker.Load(); b != nil {
		snapshot := b.Snapshot(now)
		s.Breaker = &snapshot
	}
	return s
}

// Conn is a connection to a host. It belongs to whoever took it until it is put
// back or closed.
type Conn struct {
	*http1.Conn
	Net  net.Conn
	host *Host
	// Deadline is the read and write deadline set on Net, by the clock of the Set;
	// 0: none. Requests move it lazily.
	Deadline int64
	// Reused says that an earlier request went over it: then its peer may close it
	// at any time.
	Reused bool
	idleAt int64
}

// Take returns an idle connection that still looks good, nil if there is none.
func (h *Host) Take(now int64) *Conn {
	for {
		h.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()
			return nil
		}
		c := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		h.mu.Unlock()
		if now-c.idleAt < int64(idleTime) && c.Alive() {
			return c
		}
		c.Close()
	}
}

// Dial opens a connection within the cluster's connect timeout. It blocks.
func (h *Host) Dial(ctx context.Context) (*Conn, error) {
	d := net.Dialer{Timeout: h.cluster.limits.Load().connectTimeout, KeepAlive: keepAlive}
	nc, err := d.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: http1.NewConn(nc, http1.Client, nil), Net: nc, host: h}, nil
}

// Put gives a connection back for other requests. It must be between exchanges.
func (c *Conn) Put(now int64) {
	h := c.host
	c.Reused = true
	c.idleAt = now
	var oldest *Conn
	h.mu.Lock()
	if h.retired {
		h.mu.Unlock()
		c.Close()
		return
	}
	if len(h.idle) >= maxIdle {
		oldest = h.idle[0]
		copy(h.idle, h.idle[1:])
		h.idle = h.idle[:len(h.idle)-1]
	}
	h.idle = append(h.idle, c)
	h.mu.Unlock()
	if oldest != nil {
		oldest.Close()
	}
}

// Close closes the connection and gives its buffers back.
func (c *Conn) Close() {
	_ = c.Net.Close() // nothing is left to be lost on it
	c.Release()
}

// closeIdle closes what has been idle for too long.
func (h *Host) closeIdle(now int64) {
	h.mu.Lock()
	n := 0
	for n < len(h.idle) && now-h.idle[n].idleAt >= int64(idleTime) {
		n++
	}
	old := append([]*Conn(nil), h.idle[:n]...)
	h.idle = append(h.idle[:0], h.idle[n:]...)
	h.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

// retire ends the host: idle connections are closed, used ones when put back.
func (h *Host) retire() {
	h.retireBreaker()
	h.mu.Lock()
	h.retired = true
	idle := h.idle
	h.idle = nil
	h.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

func (h *Host) retireBreaker() {
	if b := h.breaker.Swap(nil); b != nil {
		b.Retire()
	}
}
