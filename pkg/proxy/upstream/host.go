package upstream

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
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
	healed   atomic.Pointer[recovery] // nil: it has its full share
	endpoint atomic.Pointer[mesh.Endpoint]
	ejected  bool // guarded by Cluster.mu; was, when its breaker was suspended

	dials  chan struct{} // holds one per connection that is being opened
	queued atomic.Int32  // who wait to open one

	shared  shared
	isHTTP2 atomic.Bool // it has chosen that by ALPN, when it was connected to last
	known   atomic.Bool // it has chosen something
	// refusesHTTP1: offered nothing but HTTP/1.1, it has refused the handshake since, or chosen nothing.
	refusesHTTP1 atomic.Bool
	noConnect    atomic.Bool   // it does not take CONNECT with a protocol either
	learning     chan struct{} // holds one while a connection is opened to learn what it speaks

	mu       sync.Mutex
	idle     []*h1Stream // guarded by mu; the most recently used last
	patience patience    // guarded by mu
	retired  bool        // guarded by mu
}

func newHost(c *Cluster, e mesh.Endpoint) *Host {
	h := &Host{cluster: c, address: e.Address.String(), network: e.Address, dials: make(chan struct{}, maxDials), learning: make(chan struct{}, 1)}
	h.endpoint.Store(&e)
	h.shared.host = h
	return h
}

// Endpoint returns the configuration in force.
func (h *Host) Endpoint() *mesh.Endpoint { return h.endpoint.Load() }

// Cluster returns the cluster the host is in.
func (h *Host) Cluster() *Cluster { return h.cluster }

// Address returns where the host is connected to.
func (h *Host) Address() netip.AddrPort { return h.network }

// Shared reports whether many requests share a connection to the host. Of one that chooses by
// ALPN what it speaks, it is not known before it was connected to, and may change.
func (h *Host) Shared() bool {
	limits := h.cluster.limits.Load()
	return limits.multiplexed || limits.alpn && h.isHTTP2.Load() || h.cluster.set.peers && h.Endpoint().Sidecar
}

// Chooses reports whether the host is asked by ALPN what it speaks.
func (h *Host) Chooses() bool { return h.cluster.Chooses() }

// RefusesHTTP1 reports whether a host that chooses has refused a connection that can speak nothing but
// HTTP/1.1, when it was last asked for one, and takes CONNECT with a protocol, as far as is known.
func (h *Host) RefusesHTTP1() bool {
	return h.Chooses() && h.refusesHTTP1.Load() && !h.noConnect.Load()
}

// MayLoop reports whether the host may be another process's port that leads to hosts like
// this one: those are on loopback addresses, and no sidecar's inbound port.
func (h *Host) MayLoop() bool {
	return h.cluster.set.own.Load() != nil && h.network.Addr().Unmap().IsLoopback() && !h.Endpoint().Sidecar
}

// Status is what a host has been through, for those who show it.
type Status struct {
	Endpoint mesh.Endpoint
	Active   int
	Requests uint64
	Failures uint64
	Idle     int               // connections that nobody uses; of HTTP/2 those without a stream
	Breaker  *breaker.Snapshot // nil if breaking is off
}

// Status returns the host's counters.
func (h *Host) Status(now int64) Status {
	s := Status{Endpoint: *h.Endpoint(), Active: h.load.Active(), Requests: h.load.Requests(), Failures: h.failures.Load()}
	h.mu.Lock()
	s.Idle = len(h.idle)
	h.mu.Unlock()
	s.Idle += h.shared.idle()
	if b := h.breaker.Load(); b != nil {
		snapshot := b.Snapshot(now)
		s.Breaker = &snapshot
	}
	return s
}

// recovery is the time in which a host gets its share back.
type recovery struct{ from, lasts int64 }

// leastShare is the part of its share that a host gets at the beginning of its recovery.
const leastShare = 0.1

// admits reports whether the host takes a request that it was picked for. After its
// breaker has closed its share grows from a tenth to all of it, so that a host that has
// just come back, maybe with cold caches, is not struck down again.
func (h *Host) admits(now int64) bool {
	r := h.healed.Load()
	if r == nil {
		return true
	}
	part := float64(now-r.from) / float64(r.lasts)
	if part >= 1 {
		h.healed.CompareAndSwap(r, nil)
		return true
	}
	return rand.Float64() < leastShare+(1-leastShare)*part
}

// retire ends the host: idle connections are closed, used ones when put back.
func (h *Host) retire() {
	h.retireBreaker()
	h.mu.Lock()
	h.retired = true
	idle := h.idle
	h.idle = nil
	h.mu.Unlock()
	closeAll(idle)
	h.shared.retire()
}

func (h *Host) retireBreaker() {
	if b := h.breaker.Swap(nil); b != nil {
		b.Retire()
	}
}
