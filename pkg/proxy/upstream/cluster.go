package upstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
)

// maxPicks bounds how often the picker is asked for a host that grants its permit
// (lb.Tried remembers at most eight); then the hosts are asked in turn.
const maxPicks = 4

// Cluster is a live set of hosts and the policy for using them. It is safe for
// concurrent use.
type Cluster struct {
	name   string
	number uint64 // in the order of making
	clock  func() int64
	log    *slog.Logger
	cursor *lb.Cursor

	// Read by requests.
	hosts  atomic.Pointer[hostSet]
	limits atomic.Pointer[limits]
	active atomic.Int64
	open   atomic.Int64 // connections, used and idle
	wait   atomic.Int64 // requests that wait for one
	// refused is when a request was refused last because of a limit; 0: never.
	refused atomic.Int64

	set      *Set
	mu       sync.Mutex
	config   mesh.Cluster         // guarded by mu
	all      map[hostKey]*Host    // guarded by mu; in configuration
	order    []*Host              // guarded by mu; as the assignment lists them
	share    *breaker.Share       // guarded by mu; nil without a breaker
	probe    *time.Timer          // publishes when an open host becomes probe-able
	changed  *time.Timer          // publishes after a breaker changed
	panic    bool                 // guarded by mu; as it was published last
	known    bool                 // guarded by mu; an assignment has arrived
	retired  bool                 // guarded by mu
	assigned *mesh.LoadAssignment // guarded by mu
}

type limits struct {
	requests       int64 // in flight; 0: any number
	connections    int64 // open; 0: any number
	pending        int64 // requests that wait for a connection; 0: any number
	perConnection  int64 // requests that a connection carries; 0: any number
	idle           int64 // how long a connection lies idle at the most
	lifetime       time.Duration
	jitter         int32 // of lifetime, as of mesh.OldAt
	http2          mesh.HTTP2Options
	connectTimeout time.Duration
	keepalive      net.KeepAliveConfig
	recovery       int64 // how long a host takes to its full share after its breaker closed
	protocol       mesh.Protocol
	proxy          mesh.ProxyVersion
	tls            *mtls.Client // nil: in the clear
	multiplexed    bool         // many requests share a connection
	alpn           bool         // or so it is with those hosts that choose HTTP/2 by ALPN
}

// oldAt returns when a connection that begins now is too old for further requests.
func (l *limits) oldAt(now int64) int64 {
	return mesh.OldAt(now, l.lifetime, l.jitter, rand.Float64())
}

// isHasty reports whether connections end so soon that they are to be looked at more often.
func (l *limits) isHasty() bool {
	const soon = 4 * sweepEvery
	return l.idle < int64(soon) || l.lifetime > 0 && l.lifetime < soon
}

// enqueue counts one more who waits for a connection, which dequeue takes back. It returns false,
// and counts nothing, if as many wait as may.
func (c *Cluster) enqueue() bool {
	n := c.wait.Add(1)
	if most := c.limits.Load().pending; most > 0 && n > most {
		c.wait.Add(-1)
		return false
	}
	return true
}

func (c *Cluster) dequeue() { c.wait.Add(-1) }

// crowdedFor is how long a cluster counts as crowded after it has refused a request.
const crowdedFor = int64(time.Second)

// isCrowded reports whether requests are refused because others have all the places there are.
func (c *Cluster) isCrowded(now int64) bool {
	at := c.refused.Load()
	return at != 0 && now-at < crowdedFor
}

// hostSet is what one pick reads: the hosts that may be used, and their picker.
type hostSet struct {
	usable []*Host
	picker lb.Picker
	total  int  // in configuration, usable or not
	panic  bool // too few breakers let requests through: they are not heeded
}

type hostKey struct {
	address  string
	instance string
}

func newCluster(name string, number uint64, set *Set) *Cluster {
	c := &Cluster{set: set, name: name, number: number, clock: set.clock, log: set.log, cursor: lb.NewCursor(), all: map[hostKey]*Host{}}
	c.limits.Store(&limits{connectTimeout: mesh.DefaultConnectTimeout, idle: int64(idleTime), keepalive: keepaliveOf(mesh.TCPKeepalive{})})
	c.hosts.Store(&hostSet{})
	c.probe = time.AfterFunc(never, c.republish)
	c.changed = time.AfterFunc(never, c.republish)
	return c
}

// never is how long a timer waits that nothing has set.
const never = time.Duration(1<<63 - 1)

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Protocol returns what the hosts speak.
func (c *Cluster) Protocol() mesh.Protocol { return c.limits.Load().protocol }

// Chooses reports whether each host chooses by ALPN what it speaks.
func (c *Cluster) Chooses() bool { return c.limits.Load().alpn }

// ProxyProtocol returns the version of the header that connections to the hosts begin
// with; 0: with none.
func (c *Cluster) ProxyProtocol() mesh.ProxyVersion { return c.limits.Load().proxy }

// configure applies a policy that was checked, and the TLS that was made for it. The
// state of breakers, loads and connections stays, but that connections which were made by
// other TLS are not used again.
func (c *Cluster) configure(config mesh.Cluster, security *mtls.Client) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.limits.Load().tls; before != nil && before != security {
		before.Close()
	}
	breakerConfig := breakerConfig(config.Breaker)
	multiplexed := config.Protocol == mesh.ProtocolHTTP2 || config.Protocol == mesh.ProtocolGRPC
	requests := int64(config.MaxRequests)
	chooses := config.ALPN && security != nil
	if !multiplexed && !chooses {
		// An attempt uses one connection, so a limit of connections is one of attempts.
		requests = smallest(requests, int64(config.MaxConnections))
	}
	c.limits.Store(&limits{
		requests:       requests,
		connections:    int64(config.MaxConnections),
		pending:        int64(config.MaxPendingRequests),
		perConnection:  int64(config.MaxRequestsPerConnection),
		idle:           int64(cmp.Or(config.IdleTimeout, idleTime)),
		lifetime:       config.MaxConnectionDuration,
		jitter:         config.MaxConnectionJitter,
		http2:          config.HTTP2,
		connectTimeout: cmp.Or(config.ConnectTimeout, mesh.DefaultConnectTimeout),
		keepalive:      keepaliveOf(config.TCPKeepalive),
		recovery:       int64(breakerConfig.OpenTime),
		protocol:       config.Protocol,
		proxy:          config.ProxyProtocol,
		tls:            security,
		multiplexed:    multiplexed,
		alpn:           chooses,
	})
	c.config = config
	if err := c.configureBreakers(breakerConfig); err != nil {
		return fmt.Errorf("cluster %s: breaker: %w", c.name, err)
	}
	if config.Static != nil {
		return c.assignLocked(*config.Static)
	}
	return c.publish()
}

// check finds what configure and assign could not apply.
func check(config mesh.Cluster) error {
	if b := config.Breaker; !b.Disabled {
		if err := breakerConfig(b).Validate(); err != nil {
			return fmt.Errorf("cluster %s: breaker: %w", config.Name, err)
		}
		if b.PanicPercent > 100 {
			return fmt.Errorf("cluster %s: breaker: panic threshold is %d %%, not 0 to 100 %%", config.Name, b.PanicPercent)
		}
		if b.MaxEjectionPercent > 100 {
			return fmt.Errorf("cluster %s: breaker: ejection share is %d %%, not 1 to 100 %%", config.Name, b.MaxEjectionPercent)
		}
	}
	if config.Static != nil {
		return checkAssignment(*config.Static)
	}
	return nil
}

func checkAssignment(a mesh.LoadAssignment) error {
	for _, e := range a.Endpoints {
		if e.Weight == 0 {
			return fmt.Errorf("cluster %s: endpoint %s has no weight", a.Cluster, e.Address)
		}
	}
	return nil
}

// smallest returns the lower of two limits, of which 0 is none.
func smallest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// configureBreakers gives every host a breaker by the policy, or none.
func (c *Cluster) configureBreakers(config breaker.Config) error {
	if c.config.Breaker.Disabled {
		for _, h := range c.order {
			h.retireBreaker()
		}
		c.share = nil
		return nil
	}
	percent := int(c.config.Breaker.WithDefaults().MaxEjectionPercent)
	if c.share == nil {
		share, err := breaker.NewShare(percent, c.serving())
		if err != nil {
			return err
		}
		c.share = share
	} else if err := c.share.SetPercent(percent); err != nil {
		return err
	}
	for _, h := range c.order {
		if b := h.breaker.Load(); b != nil {
			if err := b.SetConfig(config); err != nil {
				return err
			}
		} else if err := c.addBreaker(h, config); err != nil {
			return err
		}
	}
	return nil
}

// serving counts the hosts that may be used but for their breakers. Those alone make up
// the number of which a share may be ejected: where others are unhealthy already, so
// many ejections as of all hosts could leave none. It needs c.mu.
func (c *Cluster) serving() int {
	n := 0
	for _, h := range c.order {
		if h.Endpoint().Health.Usable() {
			n++
		}
	}
	return n
}

func (c *Cluster) addBreaker(h *Host, config breaker.Config) error {
	b, err := breaker.New(config, breaker.WithShare(c.share), breaker.OnChange(func(change breaker.Change) {
		c.breakerChanged(h, change)
	}))
	if err != nil {
		return err
	}
	h.breaker.Store(b)
	return nil
}

// suspend takes the breaker of a host out of use while the host itself is. What says
// that it is well again knows more than the breaker did, so it comes back closed, as in
// Envoy (successful_active_health_check_uneject_host). It needs c.mu.
func (h *Host) suspend(now int64) {
	if b := h.breaker.Load(); b != nil && b.Suspend(now) {
		h.ejected = true
	}
}

// resume ends what suspend began. A host that was ejected gets its share back by and by.
// It needs c.mu.
func (h *Host) resume(now int64) {
	b := h.breaker.Load()
	if b == nil {
		return
	}
	b.Resume()
	if h.ejected {
		h.ejected = false
		h.healed.Store(&recovery{from: now, lasts: h.cluster.limits.Load().recovery})
	}
}

// breakerConfig turns the policy's words into the breaker's.
func breakerConfig(b mesh.Breaker) breaker.Config {
	b = b.WithDefaults()
	config := breaker.Default()
	config.ConsecutiveFailures = int(b.ConsecutiveFailures)
	config.FailureRatio = float64(b.FailurePercent) / 100
	config.MinimumRequests = int(b.MinimumRequests)
	config.Window = b.Window
	config.OpenTime = b.OpenTime
	config.MaxOpenTime = b.MaxOpenTime
	config.HalfOpenProbes = int(b.HalfOpenRequests)
	return config
}

// assign replaces the endpoints, or returns an error and changes nothing. Hosts
// that stay keep their state; connections to hosts that go are closed once they
// are idle.
func (c *Cluster) assign(a mesh.LoadAssignment) error {
	if err := checkAssignment(a); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assignLocked(a)
}

func (c *Cluster) assignLocked(a mesh.LoadAssignment) error {
	if c.retired {
		return nil
	}
	before := c.all
	c.all = make(map[hostKey]*Host, len(a.Endpoints))
	c.order = c.order[:0:0]
	var fresh []*Host
	for _, e := range a.Endpoints {
		key := hostKey{e.Address.String(), e.Instance}
		if _, twice := c.all[key]; twice {
			continue
		}
		h, stays := before[key]
		if !stays {
			h = newHost(c, e)
			fresh = append(fresh, h)
		}
		delete(before, key)
		h.endpoint.Store(&e)
		c.all[key] = h
		c.order = append(c.order, h)
	}
	// Those that leave give their places in the share back before it shrinks, and those
	// that come back may take one once it has grown.
	for _, h := range before {
		h.retire()
	}
	now := c.clock()
	for _, h := range c.order {
		if !h.Endpoint().Health.Usable() {
			h.suspend(now)
		}
	}
	if c.share != nil {
		c.share.SetHosts(c.serving())
		for _, h := range c.order {
			if h.Endpoint().Health.Usable() {
				h.resume(now)
			}
		}
		config := breakerConfig(c.config.Breaker)
		for _, h := range fresh {
			if err := c.addBreaker(h, config); err != nil {
				return fmt.Errorf("cluster %s: breaker: %w", c.name, err)
			}
		}
	}
	c.known = true
	c.assigned = &a
	return c.publish()
}

// breakerChanged keeps the picker to the hosts whose breakers are not open. A
// breaker may call it from under c.mu (when its host is retired), so it leaves
// the work to a timer; until that has fired, the breaker itself refuses.
func (c *Cluster) breakerChanged(h *Host, change breaker.Change) {
	if change.Reason == breaker.Retired || change.Reason == breaker.Suspended {
		return
	}
	if change.To == breaker.Closed {
		h.healed.Store(&recovery{from: change.At, lasts: c.limits.Load().recovery})
	}
	c.log.Info("breaker changed", "cluster", c.name, "instance", h.Endpoint().Instance, "host", h.address,
		"from", change.From, "to", change.To, "reason", change.Reason)
	c.changed.Reset(0)
}

func (c *Cluster) republish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.publish(); err != nil {
		c.log.Error("hosts could not be published", "cluster", c.name, "error", err)
	}
}

// publish builds the picker over the hosts that may be used now, and sets the
// timer for the next open breaker that becomes probe-able. Where breakers leave less
// than the panic threshold of the hosts that are well, the picker is over all of those.
// It needs c.mu.
func (c *Cluster) publish() error {
	if c.retired {
		return nil
	}
	now := c.clock()
	var well, usable []*Host // but for their breakers, and with them
	nextProbe := int64(-1)
	for _, h := range c.order {
		if !h.Endpoint().Health.Usable() {
			continue
		}
		well = append(well, h)
		if b := h.breaker.Load(); b != nil && b.State(now) == breaker.Open {
			if at := b.ReadyAt(); nextProbe < 0 || at < nextProbe {
				nextProbe = at
			}
			continue
		}
		usable = append(usable, h)
	}
	panicking := 100*len(usable) < int(c.config.Breaker.PanicPercent)*len(well)
	if panicking != c.panic {
		c.panic = panicking
		c.log.Warn("panic threshold", "cluster", c.name, "panic", panicking, "healthy", len(well), "open", len(well)-len(usable))
	}
	if panicking {
		usable = well
	}
	set := &hostSet{usable: usable, total: len(c.order), panic: panicking}
	loads, weights := make([]*lb.Host, len(usable)), make([]uint32, len(usable))
	for i, h := range usable {
		loads[i], weights[i] = &h.load, h.Endpoint().Weight
	}
	picker, err := lb.New(pickerPolicy(c.config.LB), loads, weights, c.cursor)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.name, err)
	}
	set.picker = picker
	c.hosts.Store(set)
	c.scheduleProbe(now, nextProbe)
	return nil
}

func (c *Cluster) scheduleProbe(now, at int64) {
	if at < 0 {
		c.probe.Stop()
		return
	}
	// A millisecond late rather than early: then the breaker does say half-open.
	c.probe.Reset(time.Duration(max(at-now, 0)) + time.Millisecond)
}

func pickerPolicy(p mesh.LBPolicy) lb.Policy {
	switch p {
	case mesh.LBRoundRobin:
		return lb.RoundRobin
	case mesh.LBWeightedRoundRobin:
		return lb.WeightedRoundRobin
	case mesh.LBRandom:
		return lb.Random
	default:
		return lb.LeastRequest
	}
}

// retire closes what the cluster holds. Attempts under way end as they will.
func (c *Cluster) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	if security := c.limits.Load().tls; security != nil {
		security.Close()
	}
	c.probe.Stop()
	c.changed.Stop()
	for _, h := range c.order {
		h.retire()
	}
	c.hosts.Store(&hostSet{})
}

// Known reports whether the cluster's endpoints have arrived, be they none.
func (c *Cluster) Known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// Hosts returns the hosts in configuration, for those who show them.
func (c *Cluster) Hosts() []*Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.order)
}

// Config returns the policy in force and the endpoints, for those who show them.
func (c *Cluster) Config() (mesh.Cluster, mesh.LoadAssignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assigned == nil {
		return c.config, mesh.LoadAssignment{Cluster: c.name}
	}
	return c.config, *c.assigned
}

// Active returns how many attempts are under way.
func (c *Cluster) Active() int64 { return c.active.Load() }
