package catalog

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
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

// NegativeTime is how long an unknown name is answered without asking again.
const NegativeTime = 10 * time.Second

// Config bounds a catalog. Zero fields mean the default.
type Config struct {
	// Source names the calling service in metrics.
	Source string
	// WaitTime is how long a request waits for a destination that was not called
	// before. Default 5 s.
	WaitTime time.Duration
	// IdleTime after the last request, a destination is forgotten. Default 10 min.
	IdleTime time.Duration
	// MaxDestinations known, asked for or known not to exist. A request for one
	// more is refused. Default 5,000.
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

// Destination is a published name. It is immutable but for when it was used.
type Destination struct {
	Routes *table.Routes
	usedAt *atomic.Int64 // shared by all versions of the destination
}

type live map[string]*Destination

// Catalog holds destinations. It is safe for concurrent use.
type Catalog struct {
	config  Config
	clock   func() int64
	log     *slog.Logger
	set     *upstream.Set
	metrics *metrics.Proxy
	sub     subscriber

	live atomic.Pointer[live]

	mu        sync.Mutex
	waiting   int                                // guarded by mu
	wants     map[string]*want                   // guarded by mu; by destination name
	listeners map[string]mesh.Listener           // guarded by mu
	routes    map[string]mesh.RouteConfiguration // guarded by mu
	clusters  map[string]*upstream.Cluster       // guarded by mu
	asked     [kinds]map[string]bool             // guarded by mu; current subscriptions

	stop chan struct{}
	done chan struct{}
}

// want is a destination that somebody called.
type want struct {
	usedAt  atomic.Int64
	settled chan struct{} // closed when the answer is there; renewed when it is lost
	unknown bool          // guarded by Catalog.mu; the control plane knows no such name
	since   int64         // guarded by Catalog.mu; when unknown was learnt
}

// New starts a catalog over the clusters of set. sub must be attached before the
// first Await. clock returns monotonic nanoseconds.
func New(config Config, set *upstream.Set, m *metrics.Proxy, sub subscriber, clock func() int64, log *slog.Logger) *Catalog {
	c := &Catalog{
		config: config.withDefaults(), clock: clock, log: log, set: set, metrics: m, sub: sub,
		wants:     map[string]*want{},
		listeners: map[string]mesh.Listener{},
		routes:    map[string]mesh.RouteConfiguration{},
		clusters:  map[string]*upstream.Cluster{},
		stop:      make(chan struct{}),
		done:      make(chan struct{}),
	}
	for k := range c.asked {
		c.asked[k] = map[string]bool{}
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
	d := (*c.live.Load())[string(name)]
	if d != nil && now-d.usedAt.Load() > int64(time.Second) {
		d.usedAt.Store(now)
	}
	return d
}

// Await returns the destination of a canonical name, learning it if nobody called
// it before: it blocks until the control plane has answered, for the configured
// time or until ctx ends. The reason is None exactly if there is a destination.
func (c *Catalog) Await(ctx context.Context, name string) (*Destination, reason.Reason) {
	settled, why := c.ask(name)
	if why != reason.None {
		return nil, why
	}
	if settled != nil {
		defer c.waited()
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
	}
	if d := c.Lookup([]byte(name), c.clock()); d != nil {
		return d, reason.None
	}
	return nil, reason.UnknownService
}

// ask makes sure that the name is subscribed. It returns what to wait for, nil if
// the answer is there already.
func (c *Catalog) ask(name string) (<-chan struct{}, reason.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	w, ok := c.wants[name]
	if ok && w.unknown && now-w.since < int64(NegativeTime) {
		return nil, reason.UnknownService
	}
	if !ok || w.unknown {
		if !ok && len(c.wants) >= c.config.MaxDestinations {
			return nil, reason.TooManyWaiting
		}
		w = &want{settled: make(chan struct{})}
		w.usedAt.Store(now)
		c.wants[name] = w
		c.resubscribe()
	}
	select {
	case <-w.settled:
		return nil, reason.None
	default:
	}
	if c.waiting >= c.config.MaxWaiting {
		return nil, reason.TooManyWaiting
	}
	c.waiting++
	return w.settled, reason.None
}

func (c *Catalog) waited() {
	c.mu.Lock()
	c.waiting--
	c.mu.Unlock()
}

// Update is a set of resources of one kind that came or went together.
type Update struct {
	Listeners []mesh.Listener
	Routes    []mesh.RouteConfiguration
	Clusters  []mesh.Cluster
	Endpoints []mesh.LoadAssignment
	// Removed names of Kind do not exist (any more).
	Removed []string
	Kind    Kind
}

// Apply takes an update and publishes what it makes complete. When it returns,
// requests see it. It returns why resources, by name, could not be taken; the
// others are in force. It must be called from one goroutine.
func (c *Catalog) Apply(u Update) map[string]error {
	faults := map[string]error{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range u.Listeners {
		c.listeners[l.Name] = l
	}
	for _, r := range u.Routes {
		c.routes[r.Name] = r
	}
	for _, config := range u.Clusters {
		cluster, err := c.set.Apply(config)
		if err != nil {
			faults[config.Name] = err
			continue
		}
		c.clusters[config.Name] = cluster
	}
	for _, a := range u.Endpoints {
		if err := c.set.Assign(a); err != nil {
			faults[a.Cluster] = err
		}
	}
	for _, name := range u.Removed {
		c.remove(u.Kind, name)
	}
	if u.Kind == Endpoints && len(u.Removed) == 0 && c.nobodyWaits() {
		return faults // the hosts were published in place: nothing to compile
	}
	c.resubscribe()
	c.publish(faults)
	return faults
}

func (c *Catalog) nobodyWaits() bool {
	return len(*c.live.Load()) == len(c.wants)
}

func (c *Catalog) remove(kind Kind, name string) {
	switch kind {
	case Listeners:
		delete(c.listeners, name)
		if w, ok := c.wants[name]; ok {
			w.unknown, w.since = true, c.clock()
			w.settle()
		}
	case Routes:
		delete(c.routes, name)
	case Clusters:
		delete(c.clusters, name)
		c.set.Remove(name)
	case Endpoints:
		// An assignment that went away leaves the last endpoints in place: only its
		// cluster's removal, or a new and empty assignment, says that there are none.
	}
}

// settle wakes those who wait for the answer. It needs Catalog.mu.
func (w *want) settle() {
	select {
	case <-w.settled:
	default:
		close(w.settled)
	}
}

// publish compiles every destination whose chain is complete and swaps the table.
// It needs c.mu.
func (c *Catalog) publish(faults map[string]error) {
	old := *c.live.Load()
	next := make(live, len(c.wants))
	var ready []*want
	for name, w := range c.wants {
		routes, complete, err := c.compile(name)
		switch {
		case err != nil:
			faults[name] = err
			if d, ok := old[name]; ok {
				next[name] = d
			}
		case complete:
			next[name] = &Destination{Routes: routes, usedAt: &w.usedAt}
			ready = append(ready, w)
		case !w.unknown:
			// Make before break: a chain with a gap serves from what it had.
			if d, ok := old[name]; ok {
				next[name] = d
			}
		}
	}
	c.live.Store(&next)
	for _, w := range ready {
		w.settle()
	}
}

// compile makes the routes of a destination, if everything that they need is there.
func (c *Catalog) compile(name string) (*table.Routes, bool, error) {
	rc, ok := c.routesOf(name)
	if !ok {
		return nil, false, nil
	}
	for cluster := range clustersOf(rc) {
		live := c.clusters[cluster]
		if live == nil || !live.Known() {
			return nil, false, nil
		}
	}
	routes, err := table.Compile(rc, table.Deps{
		Cluster: func(name string) *upstream.Cluster { return c.clusters[name] },
		Metrics: c.metrics,
		Source:  c.config.Source,
	})
	return routes, err == nil, err
}

func (c *Catalog) routesOf(name string) (mesh.RouteConfiguration, bool) {
	l, ok := c.listeners[name]
	if !ok {
		return mesh.RouteConfiguration{}, false
	}
	if l.Route != nil {
		return *l.Route, true
	}
	rc, ok := c.routes[l.RouteName]
	return rc, ok
}

// clustersOf returns the names of the clusters that a configuration routes to.
func clustersOf(rc mesh.RouteConfiguration) map[string]bool {
	names := map[string]bool{}
	for _, v := range rc.VirtualHosts {
		for _, r := range v.Routes {
			if r.Action.Direct == nil {
				names[r.Action.Cluster] = true
			}
		}
	}
	return names
}

// resubscribe brings the subscriptions to what the wanted destinations need, and
// drops the resources that none needs any more. It needs c.mu.
func (c *Catalog) resubscribe() {
	var need [kinds]map[string]bool
	for k := range need {
		need[k] = map[string]bool{}
	}
	for name, w := range c.wants {
		if w.unknown {
			continue
		}
		need[Listeners][name] = true
		if l, ok := c.listeners[name]; ok && l.Route == nil {
			need[Routes][l.RouteName] = true
		}
		if rc, ok := c.routesOf(name); ok {
			for cluster := range clustersOf(rc) {
				need[Clusters][cluster] = true
				need[Endpoints][cluster] = true
			}
		}
	}
	for k := range kinds {
		add := missing(need[k], c.asked[k])
		drop := missing(c.asked[k], need[k])
		if len(add) > 0 {
			c.sub.Subscribe(k, add...)
		}
		if len(drop) > 0 {
			c.sub.Unsubscribe(k, drop...)
			for _, name := range drop {
				c.drop(k, name)
			}
		}
		c.asked[k] = need[k]
	}
}

func (c *Catalog) drop(k Kind, name string) {
	switch k {
	case Listeners:
		delete(c.listeners, name)
	case Routes:
		delete(c.routes, name)
	case Clusters:
		delete(c.clusters, name)
		c.set.Remove(name)
		c.metrics.Remove(c.config.Source, name)
	case Endpoints:
	}
}

func missing(want, have map[string]bool) []string {
	var names []string
	for name := range want {
		if !have[name] {
			names = append(names, name)
		}
	}
	return names
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
	forgotten := 0
	for name, w := range c.wants {
		idle := now-w.usedAt.Load() > int64(c.config.IdleTime)
		expired := w.unknown && now-w.since >= int64(NegativeTime)
		if !idle && !expired {
			continue
		}
		w.settle()
		delete(c.wants, name)
		forgotten++
	}
	if forgotten == 0 {
		return
	}
	next := maps.Clone(*c.live.Load())
	for name := range next {
		if _, wanted := c.wants[name]; !wanted {
			delete(next, name)
		}
	}
	c.live.Store(&next)
	c.resubscribe()
}
