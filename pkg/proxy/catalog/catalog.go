package catalog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// Kind is a type of resource, in the order in which one leads to the next.
type Kind uint8

// The kinds of resources that make up a destination.
const (
	Listeners Kind = iota
	Routes
	Clusters
	Endpoints
	kinds
)

// NegativeTime is how long an unknown name is watched before it is forgotten. Within
// that time it is answered at once, and the control plane says if it comes to be.
const NegativeTime = 10 * time.Second

// LingerTime is how long resources that no destination needs any more are kept
// and subscribed: requests that were routed by them may still be under way, and
// what comes back soon finds its hosts as they were.
const LingerTime = 10 * time.Second

// Config bounds a catalog. Zero fields mean the default.
type Config struct {
	// Source names the calling service in metrics.
	Source string
	// WaitTime is how long a request waits for a destination that was not called
	// before. Default 5 s.
	WaitTime time.Duration
	// IdleTime after the last request, a destination is forgotten. Default 10 min.
	IdleTime time.Duration
	// Keep has the names that are not, once they are known: their connections may last for
	// long without another.
	Keep map[string]bool
	// MaxDestinations known, asked for or known not to exist; the latter make room for
	// others. A request for one more is refused. Default 5,000.
	MaxDestinations int
	// MaxWaiting requests; one more is refused. Default 1,000.
	MaxWaiting int
}

func (c Config) withDefaults() Config {
	if c.WaitTime == 0 {
		c.WaitTime = 5 * time.Second
	}
	if c.IdleTime == 0 {
		c.IdleTime = 10 * time.Minute
	}
	if c.MaxDestinations == 0 {
		c.MaxDestinations = 5000
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1000
	}
	return c
}

// subscriber asks the control plane for resources by name. Its methods return at
// once and may be called under the catalog's lock.
type subscriber interface {
	Subscribe(kind Kind, names ...string)
	Unsubscribe(kind Kind, names ...string)
	Connected() bool
}

// Destination is a published name. It is immutable.
type Destination struct {
	Routes *table.Routes
}

// live holds the wants that have something published. It is immutable: a name that
// comes or goes makes a new one, a new version of a name does not.
type live map[string]*want

// Catalog holds destinations. It is safe for concurrent use.
type Catalog struct {
	config  Config
	clock   func() int64
	log     *slog.Logger
	set     *upstream.Set
	metrics *metrics.Proxy
	sub     subscriber

	live atomic.Pointer[live]

	mu       sync.Mutex
	waiting  int                     // guarded by mu
	wants    map[string]*want        // guarded by mu; by destination name
	routes   map[string]*routeNode   // guarded by mu; subscribed, by name
	clusters map[string]*clusterNode // guarded by mu; subscribed, by name

	stop chan struct{}
	done chan struct{}
}

// New starts a catalog over the clusters of set. sub must be attached before the
// first Await. clock returns monotonic nanoseconds.
func New(config Config, set *upstream.Set, m *metrics.Proxy, sub subscriber, clock func() int64, log *slog.Logger) *Catalog {
	c := &Catalog{
		config: config.withDefaults(), clock: clock, log: log, set: set, metrics: m, sub: sub,
		wants:    map[string]*want{},
		routes:   map[string]*routeNode{},
		clusters: map[string]*clusterNode{},
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	c.live.Store(&live{})
	go c.forgetIdle()
	return c
}

// Close stops the catalog's goroutine. Lookups go on.
func (c *Catalog) Close() {
	close(c.stop)
	<-c.done
}

// Lookup returns the destination of a canonical name, nil if it is not known
// (yet). It neither locks nor allocates.
func (c *Catalog) Lookup(name []byte, now int64) *Destination {
	w := (*c.live.Load())[string(name)]
	if w == nil {
		return nil
	}
	if now-w.usedAt.Load() > int64(time.Second) {
		w.usedAt.Store(now)
	}
	return w.published.Load()
}

// Await returns the destination of a canonical name, learning it if nobody called
// it before: it blocks until the control plane has answered, for the configured
// time or until ctx ends. The reason is None exactly if there is a destination.
func (c *Catalog) Await(ctx context.Context, name string) (*Destination, reason.Reason) {
	w, settled, why := c.ask(name)
	if why != reason.None {
		return nil, why
	}
	defer c.waited(w)
	timeout := time.NewTimer(c.config.WaitTime)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-ctx.Done():
		return nil, reason.ClientGone
	case <-timeout.C:
		if !c.sub.Connected() {
			return nil, reason.ControlPlaneGone
		}
		return nil, reason.NotLearnedInTime
	}
	if d := w.published.Load(); d != nil {
		return d, reason.None
	}
	return nil, reason.UnknownService
}

// ask makes sure that the name is subscribed, and returns what to wait for; then
// waited must be called.
func (c *Catalog) ask(name string) (*want, <-chan struct{}, reason.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	w, ok := c.wants[name]
	if ok && w.unknown {
		return nil, nil, reason.UnknownService
	}
	if c.waiting >= c.config.MaxWaiting && (!ok || !w.isSettled()) {
		return nil, nil, reason.TooManyWaiting
	}
	if !ok {
		if len(c.wants) >= c.config.MaxDestinations && !c.forgetUnknown() {
			return nil, nil, reason.TooManyDestinations
		}
		w = &want{name: name, settled: make(chan struct{})}
		c.wants[name] = w
		c.sub.Subscribe(Listeners, name)
	}
	w.usedAt.Store(now)
	w.waiting++
	c.waiting++
	return w, w.settled, reason.None
}

// forgetUnknown makes room for a name by forgetting one that nobody has registered. It
// needs c.mu.
func (c *Catalog) forgetUnknown() bool {
	for _, w := range c.wants {
		if w.unknown && w.waiting == 0 {
			c.forget(w, c.clock())
			return true
		}
	}
	return false
}

// forget ends the subscription of a destination. It needs c.mu.
func (c *Catalog) forget(w *want, now int64) {
	c.release(w, now)
	c.sub.Unsubscribe(Listeners, w.name)
	delete(c.wants, w.name)
}

func (c *Catalog) waited(w *want) {
	c.mu.Lock()
	w.waiting--
	c.waiting--
	c.mu.Unlock()
}

// forgetIdle drops destinations that nobody has called for IdleTime, until Close.
func (c *Catalog) forgetIdle() {
	defer close(c.done)
	tick := time.NewTicker(min(c.config.IdleTime/4, NegativeTime))
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.sweep()
		}
	}
}

func (c *Catalog) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	var forgotten []*want
	for _, w := range c.wants {
		idle := !c.config.Keep[w.name] && now-w.usedAt.Load() > int64(c.config.IdleTime)
		expired := w.unknown && now-w.since >= int64(NegativeTime)
		if w.waiting == 0 && (idle || expired) {
			c.forget(w, now)
			if w.listed {
				forgotten = append(forgotten, w)
			}
		}
	}
	c.list(forgotten)
	c.dropUnused(now)
}
