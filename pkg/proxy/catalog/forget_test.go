package catalog_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// measured returns the destinations that metrics have series of, in order.
func (r *rig) measured() []string {
	r.Helper()
	samples, err := r.metrics.Samples()
	if err != nil {
		r.Fatal(err)
	}
	var names []string
	for _, s := range samples {
		for _, l := range s.Labels {
			if s.Name == "fairlead_requests_in_flight" && l.Name == "destination" {
				names = append(names, l.Value)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestTheSeriesOfAForgottenDestinationGoWithIt(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Minute}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.learn(billing)
		if got := r.measured(); !slices.Equal(got, []string{billing, orders}) {
			t.Fatalf("there are series of %q", got)
		}
		for range 8 { // two minutes in which only billing is called
			time.Sleep(15 * time.Second)
			wantUsable(t, r, billing)
		}
		if got := r.measured(); !slices.Equal(got, []string{billing}) {
			t.Errorf("there are series of %q", got)
		}
	})
}

func TestADestinationToBeKeptIsNotForgottenUnlessItIsUnknown(t *testing.T) {
	inBubble(t, catalog.Config{IdleTime: time.Minute, Keep: map[string]bool{orders: true, billing: true}}, func(t *testing.T, r *rig) {
		r.learn(orders)
		answer := r.await(billing)
		r.remove(catalog.Listeners, billing)
		answered(t, answer)
		time.Sleep(time.Hour)
		if got := r.control.subscribed(catalog.Listeners); !slices.Equal(got, []string{orders}) {
			t.Errorf("it is subscribed to %q", got)
		}
		wantUsable(t, r, orders)
	})
}

func TestRoutesThatAreRemovedAreNotThoseOfANewDestination(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
		r.learn(orders)
		r.remove(catalog.Routes, orders)
		if held := r.catalog.Routes(); len(held) != 0 {
			t.Errorf("it still shows %d", len(held))
		}
		answer := r.await(billing)
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: billing, RouteName: orders}}})
		wantWaiting(t, answer)
		r.routes(orders, orders)
		if why := answered(t, answer); why != reason.None {
			t.Errorf("it got %s", why.Code())
		}
	})
}

func TestAClusterThatComesBackHasTheEndpointsThatWereTakenLast(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig)
		want   upstream.Refusal
		hosts  int
	}{
		"unchanged": {func(*rig) {}, upstream.Granted, 1},
		"others":    {func(r *rig) { r.endpoints(orders, 1, 2) }, upstream.Granted, 2},
		"some that were refused": {func(r *rig) {
			bad := assignment(orders, 1, 2, 3)
			bad.Endpoints[2].Weight = 0
			if faults := r.catalog.Apply(catalog.Update{Kind: catalog.Endpoints, Endpoints: []mesh.LoadAssignment{bad}}); len(faults) != 1 {
				r.Errorf("the faults are %v", faults)
			}
		}, upstream.Granted, 1},
		"removed": {func(r *rig) { r.remove(catalog.Endpoints, orders) }, upstream.NoEndpoints, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) {
				r.learn(orders)
				c.change(r)
				r.remove(catalog.Clusters, orders)
				r.cluster(orders)
				cluster, refusal := r.use(orders)
				if refusal != c.want || refusal == upstream.Granted && len(cluster.Hosts()) != c.hosts {
					t.Errorf("%s, of %d hosts", refusal, len(cluster.Hosts()))
				}
				r.endpoints(orders, 4)
				if n := len(wantUsable(t, r, orders).Hosts()); n != 1 {
					t.Errorf("with endpoints again it has %d hosts", n)
				}
			})
		})
	}
}

func TestAClusterLingersAnewEachTimeItIsLeft(t *testing.T) {
	inBubble(t, catalog.Config{}, func(t *testing.T, r *rig) { // which looks for the idle every 10 s
		r.learn(orders)
		time.Sleep(time.Second)
		r.routes(orders, "green")
		r.cluster("green")
		r.endpoints("green", 2)
		wantUsable(t, r, orders)
		time.Sleep(5 * time.Second)
		r.routes(orders, orders) // back in time
		time.Sleep(60 * time.Second)
		wantUsable(t, r, orders)
		r.routes(orders, "green")
		r.cluster("green")
		r.endpoints("green", 2)
		if got := wantUsable(t, r, orders); got.Name() != "green" {
			t.Fatalf("requests go to %s", got.Name())
		}
		time.Sleep(catalog.LingerTime - time.Millisecond)
		synctest.Wait()
		if got := r.clusters(); !slices.Contains(got, orders) {
			t.Errorf("the clusters are %q", got)
		}
		time.Sleep(2 * catalog.LingerTime)
		if got := r.clusters(); !slices.Equal(got, []string{"green"}) {
			t.Errorf("later the clusters are %q", got)
		}
	})
}
