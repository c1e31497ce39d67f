package catalog_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a catalog whose control plane is the test.
type rig struct {
	testing.TB
	catalog *catalog.Catalog
	set     *upstream.Set
	control *control
	metrics *metrics.Registry
	clock   func() int64
	closed  sync.Once
}

// start makes a catalog that lives until the test ends. In a synctest bubble, its
// clock is the bubble's.
func start(tb testing.TB, config catalog.Config) *rig {
	tb.Helper()
	began := time.Now()
	clock := func() int64 { return int64(time.Since(began)) }
	log := slog.New(slog.DiscardHandler)
	set := upstream.NewSet(clock, log)
	control := &control{connected: true}
	config.Source = "caller.default"
	registry := metrics.New(metrics.Config{})
	c := catalog.New(config, set, metrics.NewProxy(registry, reason.Codes()), control, clock, log)
	r := &rig{TB: tb, catalog: c, set: set, control: control, metrics: registry, clock: clock}
	tb.Cleanup(r.close)
	return r
}

func (r *rig) close() {
	r.closed.Do(func() {
		r.catalog.Close()
		r.set.Close()
	})
}

// await asks for a name as a request does, and returns where its answer comes.
func (r *rig) await(name string) <-chan reason.Reason {
	return r.awaitUntil(context.Background(), name)
}

func (r *rig) awaitUntil(ctx context.Context, name string) <-chan reason.Reason {
	answer := make(chan reason.Reason, 1)
	go func() {
		d, why := r.catalog.Await(ctx, name)
		if (d == nil) != (why != reason.None) {
			r.Errorf("a destination: %v, and the reason %s", d != nil, why.Code())
		}
		answer <- why
	}()
	for r.control.asked(catalog.Listeners, name) == 0 && len(answer) == 0 {
		time.Sleep(time.Millisecond) // until it has subscribed
	}
	return answer
}

// apply hands in an update that must be taken.
func (r *rig) apply(u catalog.Update) {
	r.Helper()
	if faults := r.catalog.Apply(u); len(faults) > 0 {
		r.Fatalf("refused: %v", faults)
	}
}

// learn makes a destination known: its chain has one resource of each kind, all
// of the destination's name, and one instance.
func (r *rig) learn(name string) {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // it asks, and does not wait
	_, _ = r.catalog.Await(ctx, name)
	r.listener(name)
	r.routes(name, name)
	r.cluster(name)
	r.endpoints(name, 1)
}

func (r *rig) listener(name string) {
	r.Helper()
	r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: name, RouteName: name}}})
}

func (r *rig) routes(name string, clusters ...string) {
	r.Helper()
	r.apply(catalog.Update{Kind: catalog.Routes, Routes: []mesh.RouteConfiguration{routes(name, clusters...)}})
}

func (r *rig) cluster(name string) {
	r.Helper()
	r.apply(catalog.Update{Kind: catalog.Clusters, Clusters: []mesh.Cluster{cluster(name)}})
}

func (r *rig) endpoints(name string, hosts ...byte) {
	r.Helper()
	r.apply(catalog.Update{Kind: catalog.Endpoints, Endpoints: []mesh.LoadAssignment{assignment(name, hosts...)}})
}

func (r *rig) remove(kind catalog.Kind, names ...string) {
	r.Helper()
	r.apply(catalog.Update{Kind: kind, Removed: names})
}

// clusters returns the names of the clusters that exist.
func (r *rig) clusters() []string {
	var names []string
	for _, c := range r.set.Clusters() {
		names = append(names, c.Name())
	}
	slices.Sort(names)
	return names
}

// routes leads /0 to the first cluster, /1 to the second, and so on.
func routes(name string, clusters ...string) mesh.RouteConfiguration {
	v := mesh.VirtualHost{Name: "all", Domains: []string{"*"}}
	for i, c := range clusters {
		v.Routes = append(v.Routes, mesh.Route{
			Match: mesh.RouteMatch{Prefix: fmt.Sprintf("/%d", i)}, Action: mesh.RouteAction{Cluster: c}})
	}
	return mesh.RouteConfiguration{Name: name, VirtualHosts: []mesh.VirtualHost{v}}
}

func cluster(name string) mesh.Cluster {
	return mesh.Cluster{Name: name, ConnectTimeout: time.Second}
}

// assignment has a host for each of the last bytes of an address.
func assignment(cluster string, hosts ...byte) mesh.LoadAssignment {
	a := mesh.LoadAssignment{Cluster: cluster}
	for _, h := range hosts {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, h}), 80)
		a.Endpoints = append(a.Endpoints, mesh.Endpoint{Instance: fmt.Sprintf("i%d", h), Address: address, Weight: 1})
	}
	return a
}

// control is the stream to the control plane: it notes what the catalog asks for.
type control struct {
	mu        sync.Mutex
	connected bool
	wanted    [4]map[string]int // how often each name was subscribed; absent: it is not
	calls     int
}

func (c *control) Subscribe(k catalog.Kind, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.wanted[k] == nil {
		c.wanted[k] = map[string]int{}
	}
	for _, name := range names {
		c.wanted[k][name]++
	}
}

func (c *control) Unsubscribe(k catalog.Kind, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		delete(c.wanted[k], name)
	}
}

func (c *control) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

func (c *control) disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected = false
}

// asked returns how often a name was subscribed since it last was not; 0: it is not.
func (c *control) asked(k catalog.Kind, name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wanted[k][name]
}

// subscribed returns the names that are subscribed, in order.
func (c *control) subscribed(k catalog.Kind) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.wanted[k] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
