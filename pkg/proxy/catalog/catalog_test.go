package catalog_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// The destinations that the tests call.
const (
	orders  = "orders.default"
	billing = "billing.default"
)

// inBubble runs a test on a clock that stands still while anything can run.
func inBubble(t *testing.T, config catalog.Config, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, start(t, config)) })
}

// answered returns an answer that must be there once everything has come to rest.
func answered(t *testing.T, answer <-chan reason.Reason) reason.Reason {
	t.Helper()
	synctest.Wait()
	select {
	case why := <-answer:
		return why
	default:
		t.Fatal("it still waits")
		return reason.None
	}
}

// wantWaiting fails the test if the request does not wait.
func wantWaiting(t *testing.T, answer <-chan reason.Reason) {
	t.Helper()
	synctest.Wait()
	if len(answer) > 0 {
		t.Fatalf("it was answered: %s", (<-answer).Code())
	}
}

// use sends a request that begins with /0 to a destination, and returns the
// cluster and the refusal that it gets.
func (r *rig) use(name string) (*upstream.Cluster, upstream.Refusal) {
	r.Helper()
	d := r.catalog.Lookup([]byte(name), r.clock())
	if d == nil {
		r.Fatalf("%s is not published", name)
	}
	cluster := d.Routes.Match([]byte("any"), []byte("/0")).Cluster
	attempt, _, refusal := cluster.Begin(r.clock(), &lb.Tried{})
	attempt.Done(0, r.clock())
	return cluster, refusal
}

func wantUsable(t *testing.T, r *rig, name string) *upstream.Cluster {
	t.Helper()
	cluster, refusal := r.use(name)
	if refusal != upstream.Granted {
		t.Errorf("%s: %s", name, refusal)
	}
	return cluster
}

func TestTheFirstRequestSubscribesAndTheChainLeadsOn(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		answer := r.await(orders)
		steps := []struct {
			arrives func()
			asks    [4][]string // of each kind, afterwards
		}{
			{func() {}, [4][]string{{orders}, nil, nil, nil}},
			{func() {
				r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, RouteName: "r"}}})
			}, [4][]string{{orders}, {"r"}, nil, nil}},
			{func() { r.routes("r", "c1", "c2") }, [4][]string{{orders}, {"r"}, {"c1", "c2"}, {"c1", "c2"}}},
			{func() { r.cluster("c1") }, [4][]string{{orders}, {"r"}, {"c1", "c2"}, {"c1", "c2"}}},
			{func() { r.cluster("c2"); r.endpoints("c2", 2) }, [4][]string{{orders}, {"r"}, {"c1", "c2"}, {"c1", "c2"}}},
		}
		for i, step := range steps {
			step.arrives()
			for kind := catalog.Listeners; kind <= catalog.Endpoints; kind++ {
				if got := r.control.subscribed(kind); !slices.Equal(got, step.asks[kind]) {
					t.Errorf("step %d: of kind %d it asks for %q, not %q", i, kind, got, step.asks[kind])
				}
			}
			if r.catalog.Lookup([]byte(orders), r.clock()) != nil {
				t.Errorf("step %d: it is published before its chain is complete", i)
			}
			wantWaiting(t, answer)
		}
		r.endpoints("c1", 1)
		if why := answered(t, answer); why != reason.None {
			t.Errorf("the waiting request got %s", why.Code())
		}
		wantUsable(t, r, orders)
	})
}

func TestRoutesThatComeWithTheListenerNeedNoFurtherQuestion(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		answer := r.await(orders)
		inline := routes("inline", "c")
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, Route: &inline}}})
		if got := r.control.subscribed(catalog.Routes); got != nil {
			t.Errorf("it asks for routes %q", got)
		}
		r.cluster("c")
		r.endpoints("c", 1)
		if why := answered(t, answer); why != reason.None {
			t.Errorf("the waiting request got %s", why.Code())
		}
	})
}

func TestEndpointsMayComeBeforeTheirCluster(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		answer := r.await(orders)
		r.listener(orders)
		r.routes(orders, orders)
		r.endpoints(orders, 1)
		r.cluster(orders)
		if why := answered(t, answer); why != reason.None {
			t.Errorf("the waiting request got %s", why.Code())
		}
		wantUsable(t, r, orders)
	})
}

func TestConcurrentFirstRequestsShareOneSubscription(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		var answers []<-chan reason.Reason
		for range 100 {
			answers = append(answers, r.await(orders))
		}
		synctest.Wait()
		if n := r.control.asked(catalog.Listeners, orders); n != 1 {
			t.Errorf("it was subscribed %d times", n)
		}
		r.listener(orders)
		r.routes(orders, orders)
		r.cluster(orders)
		r.endpoints(orders, 1)
		for _, answer := range answers {
			if why := answered(t, answer); why != reason.None {
				t.Errorf("a waiting request got %s", why.Code())
			}
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	t.Run("in number", func(t *testing.T) {
		inBubble(t, catalog.Config{MaxWaiting: 2}, func(t *testing.T, r *rig) {
			r.learn(billing)
			waiting := []<-chan reason.Reason{r.await(orders), r.await(orders)}
			synctest.Wait()
			if why := answered(t, r.await(orders)); why != reason.TooManyWaiting {
				t.Errorf("one too many got %s", why.Code())
			}
			if _, why := r.catalog.Await(context.Background(), "other.default"); why != reason.TooManyWaiting {
				t.Errorf("one too many, for another name, got %s", why.Code())
			}
			if n := r.control.asked(catalog.Listeners, "other.default"); n != 0 {
				t.Error("what was refused was subscribed")
			}
			if _, why := r.catalog.Await(context.Background(), billing); why != reason.None {
				t.Errorf("what need not wait got %s", why.Code())
			}
			r.remove(catalog.Listeners, orders)
			for _, answer := range waiting {
				answered(t, answer)
			}
			wantWaiting(t, r.await("other.default"))
			time.Sleep(6 * time.Second)
		})
	})
	t.Run("in time", func(t *testing.T) {
		inBubble(t, catalog.Config{WaitTime: 5 * time.Second}, func(t *testing.T, r *rig) {
			answer := r.await(orders)
			time.Sleep(5*time.Second - 2*time.Millisecond)
			wantWaiting(t, answer)
			time.Sleep(2 * time.Millisecond)
			if why := answered(t, answer); why != reason.NotLearnedInTime {
				t.Errorf("it got %s", why.Code())
			}
		})
	})
	t.Run("by the client", func(t *testing.T) {
		inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			answer := r.awaitUntil(ctx, orders)
			cancel()
			if why := answered(t, answer); why != reason.ClientGone {
				t.Errorf("it got %s", why.Code())
			}
		})
	})
}

func TestWithoutControlPlaneTheAnswerSaysSo(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(billing)
		r.control.disconnect()
		answer := r.await(orders)
		time.Sleep(5 * time.Second)
		if why := answered(t, answer); why != reason.ControlPlaneGone {
			t.Errorf("it got %s", why.Code())
		}
		wantUsable(t, r, billing)
	})
}

func TestNamesAreBounded(t *testing.T) {
	inBubble(t, catalog.Config{MaxDestinations: 3}, func(t *testing.T, r *rig) {
		r.learn(orders)
		wait := r.await("incomplete.default")
		nobody := r.await("nobody.default")
		if _, why := r.catalog.Await(t.Context(), billing); why != reason.TooManyDestinations || why.Status() != 503 {
			t.Errorf("a fourth name got %s", why.Code())
		}
		r.remove(catalog.Listeners, "nobody.default")
		answered(t, nobody)
		r.learn(billing) // a name that nobody registered makes room
		wantUsable(t, r, billing)
		wantUsable(t, r, orders)
		if got := r.control.asked(catalog.Listeners, "nobody.default"); got != 0 {
			t.Error("what was forgotten is still subscribed")
		}
		r.remove(catalog.Listeners, "incomplete.default")
		answered(t, wait)
	})
}

func TestAnUnknownNameIs404UntilItIsRegistered(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		first := r.await(orders)
		r.remove(catalog.Listeners, orders)
		if why := answered(t, first); why != reason.UnknownService || why.Status() != 404 {
			t.Fatalf("it got %s", why.Code())
		}
		time.Sleep(time.Second)
		if _, why := r.catalog.Await(t.Context(), orders); why != reason.UnknownService {
			t.Errorf("meanwhile it got %s", why.Code())
		}
		r.listener(orders)
		second := r.await(orders)
		wantWaiting(t, second)
		r.routes(orders, orders)
		r.cluster(orders)
		r.endpoints(orders, 1)
		if why := answered(t, second); why != reason.None {
			t.Errorf("now that it exists it got %s", why.Code())
		}
		if n := r.control.asked(catalog.Listeners, orders); n != 1 {
			t.Errorf("it was asked for %d times", n)
		}
		time.Sleep(2 * catalog.NegativeTime)
		wantUsable(t, r, orders)
	})
}

func TestAnUnknownNameIsForgottenAndAskedForAgain(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		first := r.await(orders)
		r.remove(catalog.Listeners, orders)
		answered(t, first)
		time.Sleep(2 * catalog.NegativeTime)
		if got := r.control.subscribed(catalog.Listeners); got != nil {
			t.Errorf("it is still subscribed: %q", got)
		}
		second := r.await(orders)
		wantWaiting(t, second)
		r.remove(catalog.Listeners, orders)
		if why := answered(t, second); why != reason.UnknownService {
			t.Errorf("it got %s", why.Code())
		}
	})
}

func TestKnownButEmptyIsNotUnknown(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		answer := r.await(orders)
		r.listener(orders)
		r.routes(orders, orders)
		r.cluster(orders)
		r.endpoints(orders) // none
		if why := answered(t, answer); why != reason.None {
			t.Fatalf("it got %s", why.Code())
		}
		if _, refusal := r.use(orders); refusal != upstream.NoEndpoints {
			t.Errorf("its cluster says %s", refusal)
		}
		r.endpoints(orders, 1)
		wantUsable(t, r, orders)
	})
}

func TestAnIdleDestinationIsForgottenAndCanComeBack(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Minute}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.learn(billing)
		for range 8 { // two minutes in which only billing is called
			time.Sleep(15 * time.Second)
			wantUsable(t, r, billing)
		}
		for kind := catalog.Listeners; kind <= catalog.Endpoints; kind++ {
			if got := r.control.subscribed(kind); !slices.Equal(got, []string{billing}) {
				t.Errorf("of kind %d it is subscribed to %q", kind, got)
			}
		}
		if got := r.clusters(); !slices.Equal(got, []string{billing}) {
			t.Errorf("the clusters are %q", got)
		}
		if r.catalog.Lookup([]byte(orders), r.clock()) != nil {
			t.Error("it is still published")
		}
		r.learn(orders)
		wantUsable(t, r, orders)
	})
}

func TestARequestThatWaitsIsNotForgotten(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Second, WaitTime: time.Minute}, func(t *testing.T, r *rig) {
		answer := r.await(orders)
		time.Sleep(30 * time.Second)
		wantWaiting(t, answer)
		r.listener(orders)
		r.routes(orders, orders)
		r.cluster(orders)
		r.endpoints(orders, 1)
		if why := answered(t, answer); why != reason.None {
			t.Errorf("it got %s", why.Code())
		}
	})
}

func TestANameThatComesBackSoonFindsItsHostsAsTheyWere(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Minute}, func(t *testing.T, r *rig) {
		r.learn(orders)
		before := wantUsable(t, r, orders).Hosts()[0]
		for r.catalog.Lookup([]byte(orders), 0) != nil { // now 0: which is no use
			time.Sleep(time.Second)
		}
		synctest.Wait() // until it is forgotten, not only out of the table
		answer := r.await(orders)
		r.listener(orders)
		if why := answered(t, answer); why != reason.None {
			t.Fatalf("it got %s", why.Code())
		}
		if after := wantUsable(t, r, orders).Hosts()[0]; after != before {
			t.Error("the host is another one")
		}
	})
}

func TestAnUpdateOfOneResourceKeepsTheOthers(t *testing.T) {
	type update struct {
		what   string
		arrive func(r *rig)
	}
	updates := []update{
		{"its listener", func(r *rig) { r.listener(orders) }},
		{"its routes", func(r *rig) { r.routes(orders, orders) }},
		{"its cluster", func(r *rig) { r.cluster(orders) }},
		{"its endpoints", func(r *rig) { r.endpoints(orders, 1, 2) }},
	}
	for _, u := range updates {
		t.Run(u.what, func(t *testing.T) {
			inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
				r.learn(orders)
				r.learn(billing)
				other := r.catalog.Lookup([]byte(billing), r.clock())
				cluster := wantUsable(t, r, orders)
				host := cluster.Hosts()[0]
				u.arrive(r)
				if r.catalog.Lookup([]byte(billing), r.clock()) != other {
					t.Error("the other destination was made anew")
				}
				after := wantUsable(t, r, orders)
				if after != cluster || after.Hosts()[0] != host {
					t.Error("the cluster or its host was made anew")
				}
				time.Sleep(3 * catalog.LingerTime)
				wantUsable(t, r, orders)
			})
		})
	}
}

func TestMakeBeforeBreak(t *testing.T) {
	t.Run("a route to a new cluster waits for it", func(t *testing.T) {
		inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
			r.learn(orders)
			old := wantUsable(t, r, orders)
			r.routes(orders, "green")
			time.Sleep(10 * catalog.LingerTime) // the new cluster is slow to come
			if wantUsable(t, r, orders) != old {
				t.Error("requests go elsewhere before the new cluster is known")
			}
			r.cluster("green")
			wantUsable(t, r, orders)
			r.endpoints("green", 2)
			if got := wantUsable(t, r, orders); got.Name() != "green" {
				t.Errorf("requests go to %s", got.Name())
			}
			if _, refusal := begin(old); refusal != upstream.Granted {
				t.Errorf("a request under way by the old route: %s", refusal)
			}
			time.Sleep(3 * catalog.LingerTime)
			if got := r.clusters(); !slices.Equal(got, []string{"green"}) {
				t.Errorf("the clusters are %q", got)
			}
			if got := r.control.subscribed(catalog.Endpoints); !slices.Equal(got, []string{"green"}) {
				t.Errorf("it is subscribed to the endpoints of %q", got)
			}
		})
	})
	t.Run("a listener that names other routes", func(t *testing.T) {
		inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
			r.learn(orders)
			old := wantUsable(t, r, orders)
			r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, RouteName: "other"}}})
			time.Sleep(3 * catalog.LingerTime)
			if wantUsable(t, r, orders) != old {
				t.Error("requests go elsewhere before the new routes are known")
			}
			r.routes("other", orders)
			wantUsable(t, r, orders)
			if got := r.control.subscribed(catalog.Routes); !slices.Equal(got, []string{"other"}) {
				t.Errorf("it is subscribed to the routes %q", got)
			}
		})
	})
	t.Run("routes that are removed serve on", func(t *testing.T) {
		inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
			r.learn(orders)
			r.remove(catalog.Routes, orders)
			time.Sleep(3 * catalog.LingerTime)
			wantUsable(t, r, orders)
		})
	})
}

func begin(c *upstream.Cluster) (upstream.Attempt, upstream.Refusal) {
	attempt, _, refusal := c.Begin(0, &lb.Tried{})
	attempt.Done(0, 0)
	return attempt, refusal
}

func TestARemovedListenerEndsTheDestination(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		old := wantUsable(t, r, orders)
		r.remove(catalog.Listeners, orders)
		if _, why := r.catalog.Await(t.Context(), orders); why != reason.UnknownService {
			t.Errorf("it got %s", why.Code())
		}
		if _, refusal := begin(old); refusal != upstream.Granted {
			t.Errorf("a request under way: %s", refusal)
		}
		time.Sleep(3 * catalog.LingerTime)
		if got := r.clusters(); got != nil {
			t.Errorf("the clusters are %q", got)
		}
		r.learn(orders)
		wantUsable(t, r, orders)
	})
}

func TestARemovedClusterHasNoHostsUntilItComesBack(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.remove(catalog.Clusters, orders)
		if _, refusal := r.use(orders); refusal != upstream.NoEndpoints {
			t.Errorf("the removed cluster says: %s", refusal)
		}
		r.cluster(orders) // its endpoints have not changed: nobody sends them again
		wantUsable(t, r, orders)
	})
}

func TestRemovedEndpointsLeaveTheLastOnesInPlace(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.remove(catalog.Endpoints, orders)
		wantUsable(t, r, orders)
	})
}

func TestWhatNobodyAskedForIsNotKept(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.listener("x")
		r.routes("x", "x")
		r.cluster("x")
		r.endpoints("x", 1)
		r.remove(catalog.Listeners, "y")
		r.remove(catalog.Routes, "y")
		r.remove(catalog.Clusters, "y")
		r.remove(catalog.Endpoints, "y")
		if got := r.clusters(); !slices.Equal(got, []string{orders}) {
			t.Errorf("the clusters are %q", got)
		}
		if l, rc := r.catalog.Listeners(), r.catalog.Routes(); len(l) != 1 || len(rc) != 1 {
			t.Errorf("it holds %d listeners and %d route configurations", len(l), len(rc))
		}
	})
}

func TestARefusedResourceIsNamedAndWhatWasInForceStays(t *testing.T) {
	twice := routes(orders, orders)
	twice.VirtualHosts = append(twice.VirtualHosts, twice.VirtualHosts[0])
	tooMany := cluster(orders)
	tooMany.Breaker.MaxEjectionPercent = 101
	heralded := cluster(orders)
	heralded.ProxyProtocol = mesh.ProxyV1
	weightless := assignment(orders, 1, 2)
	weightless.Endpoints[1].Weight = 0
	updates := map[string]catalog.Update{
		"routes":    {Kind: catalog.Routes, Routes: []mesh.RouteConfiguration{twice, routes(billing, billing)}},
		"listener":  {Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, Route: &twice}}},
		"chains":    {Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, TCP: []mesh.TCPChain{{}, {}}}}},
		"names":     {Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, TCP: []mesh.TCPChain{{ServerNames: []string{"a.example"}}}}}},
		"preface":   {Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, RouteName: orders, Preface: mesh.Preface{ProxyProtocol: true}}}},
		"heralded":  {Kind: catalog.Clusters, Clusters: []mesh.Cluster{heralded}},
		"cluster":   {Kind: catalog.Clusters, Clusters: []mesh.Cluster{tooMany, cluster(billing)}},
		"endpoints": {Kind: catalog.Endpoints, Endpoints: []mesh.LoadAssignment{weightless, assignment(billing, 1)}},
	}
	for what, update := range updates {
		t.Run(what, func(t *testing.T) {
			inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
				r.learn(orders)
				before := r.catalog.Lookup([]byte(orders), r.clock())
				answer := r.await(billing)
				r.listener(billing)
				if what != "routes" {
					r.routes(billing, billing)
				}
				faults := r.catalog.Apply(update)
				if len(faults) != 1 || faults[orders] == nil {
					t.Errorf("the faults are %v", faults)
				}
				if r.catalog.Lookup([]byte(orders), r.clock()) != before {
					t.Error("what was in force was replaced")
				}
				if n := len(wantUsable(t, r, orders).Hosts()); n != 1 {
					t.Errorf("it has %d hosts", n)
				}
				if what == "routes" && r.control.asked(catalog.Clusters, billing) == 0 {
					t.Error("the good resource beside it was not taken")
				}
				r.remove(catalog.Listeners, billing)
				answered(t, answer)
			})
		})
	}
}

func TestConnectionsToADestinationMayGoElsewhereThanRequests(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		inline := mesh.RouteConfiguration{Name: "inline", VirtualHosts: []mesh.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []mesh.Route{
			{Match: mesh.RouteMatch{Prefix: "/"}, Action: mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 503}}},
		}}}}
		relaying := mesh.Listener{Name: orders, Route: &inline, TCP: []mesh.TCPChain{{Name: "chain", TCP: mesh.TCPProxy{Cluster: "c", ConnectAttempts: 3, IdleTimeout: time.Minute}}}}
		answer := r.await(orders)
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{relaying}})
		wantWaiting(t, answer)
		r.cluster("c")
		r.endpoints("c", 1)
		if why := answered(t, answer); why != reason.None {
			t.Fatalf("it got %s", why.Code())
		}
		router := catalog.Router{Catalog: r.catalog, Namespace: "default"}
		e, why, wait := router.Route([]byte(orders), []byte("/any"), r.clock())
		if wait || why != reason.None || e.Direct == nil || e.TCP != nil || e.Relay == nil {
			t.Fatalf("requests lead to %+v, %s", e, why.Code())
		}
		if c := e.Relay; c.TCP == nil || c.TCP.ConnectAttempts != 3 || c.TCP.IdleTimeout != time.Minute || c.Cluster.Name() != "c" || c.Route != "chain" || c.Destination != "c" {
			t.Errorf("connections lead to %+v", c)
		}
		r.listener(orders)
		r.routes(orders, "c")
		if e, _, _ := router.Route([]byte(orders), []byte("/0"), r.clock()); e == nil || e.Relay != nil {
			t.Errorf("without a chain it leads to %+v", e)
		}
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{relaying}})
		if e, _, _ := router.Route([]byte(orders), []byte("/0"), r.clock()); e == nil || e.Relay == nil {
			t.Errorf("once it has one again it leads to %+v", e)
		}
	})
}

func TestTwoDestinationsMayShareAClusterAndRoutes(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Minute}, func(t *testing.T, r *rig) {
		first, second := r.await(orders), r.await(billing)
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{
			{Name: orders, RouteName: "shared"}, {Name: billing, RouteName: "shared"}}})
		r.routes("shared", "c")
		r.cluster("c")
		r.endpoints("c", 1)
		for _, answer := range []<-chan reason.Reason{first, second} {
			if why := answered(t, answer); why != reason.None {
				t.Errorf("it got %s", why.Code())
			}
		}
		for range 8 {
			time.Sleep(15 * time.Second)
			wantUsable(t, r, orders) // billing is forgotten meanwhile
		}
		if r.catalog.Lookup([]byte(billing), r.clock()) != nil {
			t.Error("the idle one is still published")
		}
		if got := r.clusters(); !slices.Equal(got, []string{"c"}) {
			t.Errorf("the clusters are %q", got)
		}
	})
}

func TestHeldResourcesAreShownInOrder(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.learn(billing)
		var shown []string
		for _, l := range r.catalog.Listeners() {
			shown = append(shown, l.Name)
		}
		for _, rc := range r.catalog.Routes() {
			shown = append(shown, rc.Name)
		}
		if want := []string{billing, orders, billing, orders}; !slices.Equal(shown, want) {
			t.Errorf("it shows %q", shown)
		}
	})
}
