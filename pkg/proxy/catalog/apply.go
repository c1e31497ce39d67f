package catalog

import (
	"errors"
	"maps"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/route"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

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

// change is an update under way.
type change struct {
	now     int64
	touched map[*want]struct{} // whose configuration changed or may have become complete
	faults  map[string]error
	// asked are the names to subscribe to.
	asked [kinds][]string
}

// Apply takes an update and publishes what it makes complete. When it returns,
// requests see it. It returns why resources, by name, could not be taken; the
// others are in force, and of those refused what was in force before. Resources
// that are not subscribed are ignored. It must be called from one goroutine.
//
// Its cost grows with the update and the destinations that it concerns, not with
// those that there are; only a name that comes or goes copies the table of names.
func (c *Catalog) Apply(u Update) map[string]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := &change{now: c.clock(), touched: map[*want]struct{}{}, faults: map[string]error{}}
	for i := range u.Listeners {
		c.takeListener(ch, &u.Listeners[i])
	}
	for i := range u.Routes {
		c.takeRoutes(ch, &u.Routes[i])
	}
	for _, config := range u.Clusters {
		c.takeCluster(ch, config)
	}
	for i := range u.Endpoints {
		c.takeEndpoints(ch, &u.Endpoints[i])
	}
	for _, name := range u.Removed {
		c.remove(ch, u.Kind, name)
	}
	c.publish(ch)
	for k, names := range ch.asked {
		if len(names) > 0 {
			c.sub.Subscribe(Kind(k), names...)
		}
	}
	return ch.faults
}

// What a destination that is called by name cannot be.
var (
	errPreface  = errors.New("a listener for a destination called by name has no connections of its own: listener_filters are for bootstrap files")
	errChains   = errors.New("a listener for a destination called by name that relays connections has one filter chain, for all of them: server_names are for bootstrap files")
	errHeralded = errors.New("connections that begin with a PROXY protocol header are for a TCP proxy: the requests of all clients share them")
)

func (c *Catalog) takeListener(ch *change, l *mesh.Listener) {
	w, ok := c.wants[l.Name]
	if !ok {
		return
	}
	switch {
	case l.Preface != (mesh.Preface{}):
		ch.faults[l.Name] = errPreface
		return
	case len(l.Chains) > 0, len(l.TCP) > 1, len(l.TCP) == 1 && len(l.TCP[0].ServerNames) > 0:
		ch.faults[l.Name] = errChains
		return
	}
	if l.Route != nil {
		if _, err := route.New(*l.Route); err != nil {
			ch.faults[l.Name] = err
			return
		}
	}
	if w.unknown { // it was registered meanwhile
		w.unknown, w.settled = false, make(chan struct{})
	}
	w.listener = l
	before := w.route
	w.route = nil
	if l.Route == nil {
		w.route = c.routeNode(ch, l.RouteName)
		w.route.add(w)
	}
	if before != nil {
		before.drop(w, ch.now)
	}
	c.relink(ch, w)
}

func (c *Catalog) takeRoutes(ch *change, config *mesh.RouteConfiguration) {
	n, ok := c.routes[config.Name]
	if !ok {
		return
	}
	if _, err := route.New(*config); err != nil {
		ch.faults[config.Name] = err
		return
	}
	n.config = config
	for w := range n.count {
		c.relink(ch, w)
	}
}

// relink finds the clusters that the newest routes of w lead to, and its chain.
func (c *Catalog) relink(ch *change, w *want) {
	before := w.needs
	w.needs = nil
	if rc := w.newest(); rc != nil {
		names := clustersOf(rc)
		for _, chain := range w.listener.TCP {
			names[chain.TCP.Cluster] = true
		}
		for name := range names {
			n := c.clusterNode(ch, name)
			n.add(w)
			w.needs = append(w.needs, n)
		}
	}
	for _, n := range before {
		n.drop(w, ch.now)
	}
	w.pending = true
	ch.touched[w] = struct{}{}
}

func (c *Catalog) takeCluster(ch *change, config mesh.Cluster) {
	n, ok := c.clusters[config.Name]
	if !ok {
		return
	}
	if config.ProxyProtocol != 0 {
		ch.faults[config.Name] = errHeralded
		return
	}
	cluster, err := c.set.Apply(config)
	if err != nil {
		ch.faults[config.Name] = err
		return
	}
	if n.cluster == nil && n.assigned != nil {
		if err := c.set.Assign(*n.assigned); err != nil {
			ch.faults[config.Name] = err
		}
	}
	n.cluster = cluster
	ch.touch(n)
}

func (c *Catalog) takeEndpoints(ch *change, a *mesh.LoadAssignment) {
	n, ok := c.clusters[a.Cluster]
	if !ok {
		return
	}
	if n.cluster != nil {
		if err := c.set.Assign(*a); err != nil {
			ch.faults[a.Cluster] = err
			return
		}
	}
	n.assigned = a
	ch.touch(n)
}

// touch notes the destinations that waited for the cluster. Those that are
// published see the change at once: it was made in place.
func (ch *change) touch(n *clusterNode) {
	for w := range n.count {
		if w.pending {
			ch.touched[w] = struct{}{}
		}
	}
}

func (c *Catalog) remove(ch *change, kind Kind, name string) {
	switch kind {
	case Listeners:
		if w, ok := c.wants[name]; ok && !w.unknown {
			c.release(w, ch.now)
			w.unknown, w.since = true, ch.now
			ch.touched[w] = struct{}{}
		}
	case Routes:
		if n, ok := c.routes[name]; ok {
			n.config = nil
			for w := range n.count {
				c.relink(ch, w)
			}
		}
	case Clusters:
		if n, ok := c.clusters[name]; ok && n.cluster != nil {
			n.cluster = nil
			c.set.Remove(name)
			for w := range n.count {
				w.pending = true // it must be compiled anew when the cluster comes back
			}
		}
	case Endpoints:
		// An assignment that went away leaves the last endpoints in place: only its
		// cluster's removal, or a new and empty assignment, says that there are none.
		if n, ok := c.clusters[name]; ok {
			n.assigned = nil
		}
	}
}

// release gives back what a destination holds. It needs c.mu.
func (c *Catalog) release(w *want, now int64) {
	if w.route != nil {
		w.route.drop(w, now)
	}
	for _, n := range w.needs {
		n.drop(w, now)
	}
	for _, n := range w.serves {
		n.drop(w, now)
	}
	w.listener, w.route, w.needs, w.serves = nil, nil, nil, nil
	w.published.Store(nil)
}

// publish compiles the touched destinations whose chain is complete. It needs c.mu.
func (c *Catalog) publish(ch *change) {
	var settled, relisted []*want
	for w := range ch.touched {
		if rc := w.newest(); w.pending && rc != nil && w.complete() {
			c.compile(ch, w, rc)
		}
		published := w.published.Load() != nil
		if published || w.unknown {
			settled = append(settled, w)
		}
		if published != w.listed {
			relisted = append(relisted, w)
		}
	}
	c.list(relisted)
	for _, w := range settled {
		w.settle()
	}
}

// compile publishes routes to clusters that are all here.
func (c *Catalog) compile(ch *change, w *want, rc *mesh.RouteConfiguration) {
	deps := table.Deps{
		Cluster: func(name string) *upstream.Cluster { return c.clusters[name].cluster },
		Metrics: c.metrics,
		Source:  c.config.Source,
	}
	if len(w.listener.TCP) > 0 {
		deps.TCP = &w.listener.TCP[0]
	}
	routes, err := table.Compile(*rc, deps)
	if err != nil { // cannot be: they were checked when they came
		c.log.Error("destination could not be compiled", "destination", w.name, "error", err)
		return
	}
	before := w.serves
	w.serves = append([]*clusterNode(nil), w.needs...)
	for _, n := range w.serves {
		n.add(w)
	}
	w.published.Store(&Destination{Routes: routes})
	w.pending = false
	for _, n := range before {
		n.drop(w, ch.now)
	}
}

// list makes a table of names that has those of wants that are published, and not
// those that are not. It needs c.mu.
func (c *Catalog) list(wants []*want) {
	if len(wants) == 0 {
		return
	}
	next := maps.Clone(*c.live.Load())
	for _, w := range wants {
		if w.listed = w.published.Load() != nil; w.listed {
			next[w.name] = w
		} else if next[w.name] == w {
			delete(next, w.name)
		}
	}
	c.live.Store(&next)
}

// routeNode returns the node of a name, and subscribes to it if it is new.
func (c *Catalog) routeNode(ch *change, name string) *routeNode {
	n, ok := c.routes[name]
	if !ok {
		n = &routeNode{name: name}
		c.routes[name] = n
		ch.asked[Routes] = append(ch.asked[Routes], name)
	}
	return n
}

// clusterNode is routeNode for clusters and their endpoints.
func (c *Catalog) clusterNode(ch *change, name string) *clusterNode {
	n, ok := c.clusters[name]
	if !ok {
		n = &clusterNode{name: name}
		c.clusters[name] = n
		ch.asked[Clusters] = append(ch.asked[Clusters], name)
		ch.asked[Endpoints] = append(ch.asked[Endpoints], name)
	}
	return n
}

// clustersOf returns the names of the clusters that a configuration routes to.
func clustersOf(rc *mesh.RouteConfiguration) map[string]bool {
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

// dropUnused forgets the resources that no destination has needed for LingerTime.
// It needs c.mu.
func (c *Catalog) dropUnused(now int64) {
	for name, n := range c.routes {
		if n.expired(now) {
			delete(c.routes, name)
			c.sub.Unsubscribe(Routes, name)
		}
	}
	for name, n := range c.clusters {
		if n.expired(now) {
			delete(c.clusters, name)
			c.sub.Unsubscribe(Clusters, name)
			c.sub.Unsubscribe(Endpoints, name)
			c.set.Remove(name)
			c.metrics.Remove(c.config.Source, name)
		}
	}
}
