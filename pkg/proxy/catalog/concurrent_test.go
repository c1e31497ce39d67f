package catalog_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestNoRequestIsLostWhileRoutesClustersAndEndpointsChange(t *testing.T) {
	r := start(t, catalog.Config{})
	r.learn(orders)
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				d, why := r.catalog.Await(t.Context(), orders)
				if why != reason.None {
					t.Errorf("a request got %s", why.Code())
					return
				}
				cluster := d.Routes.Match([]byte("any"), []byte("/0")).Cluster
				attempt, _, refusal := cluster.Begin(r.clock(), &lb.Tried{})
				if refusal != upstream.Granted {
					t.Errorf("a request to %s: %s", cluster.Name(), refusal)
					return
				}
				attempt.Done(breaker.Success, r.clock())
			}
		})
	}
	for round := range 200 {
		to := []string{"blue", "green"}[round%2]
		r.routes(orders, to)
		r.cluster(to)
		r.endpoints(to, byte(1+round%7), 8)
		r.apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{Name: orders, RouteName: orders}}})
		_, _ = r.catalog.Listeners(), r.catalog.Routes()
	}
}
