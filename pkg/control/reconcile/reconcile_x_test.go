package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/guard"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/control/reconcile"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a control plane's memory over a store.
type plane struct {
	t          *testing.T
	store      *memstore.Store
	view       *discovery.View
	policies   *policy.Policies
	registry   *discovery.Registry
	cache      *xdsserver.Cache
	reconciler *reconcile.Reconciler
	log        *lines
	synced     int                                    // read it after synctest.Wait
	told       map[mesh.ServiceName]translate.Service // what Changed was told last; read it after synctest.Wait
}

// lines is a log that may be read while it is written.
type lines struct{ lockedbuf.Buffer }

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }

func newPlane(t *testing.T, s *memstore.Store) *plane {
	t.Helper()
	p := &plane{t: t, store: s, log: &lines{}, told: map[mesh.ServiceName]translate.Service{}}
	log := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p.view, p.policies, p.cache = discovery.NewView(log, ""), policy.New(s, log), xdsserver.NewCache(log)
	p.registry = discovery.NewRegistry(discovery.RegistryConfig{Store: s, View: p.view, Replica: "r1", Log: log})
	var err error
	p.reconciler, err = reconcile.New(reconcile.Config{
		Store: s, View: p.view, Policies: p.policies, Cache: p.cache, Log: log, OnSynced: func() { p.synced++ }, Changed: p.changed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plane) changed(s translate.Service, known bool) {
	if known {
		p.told[s.Name] = s
	} else {
		delete(p.told, s.Name)
	}
}

// run follows the store, for use in a bubble, until stop is called.
func run(t *testing.T, s *memstore.Store) (p *plane, stop func()) {
	t.Helper()
	p = newPlane(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.reconciler.Run(ctx) })
	synctest.Wait()
	return p, func() {
		cancel()
		running.Wait()
	}
}

func instance(service, id string, number uint32) *meshv1.Instance {
	return &meshv1.Instance{
		Service: service, Id: id, Address: "10.0.0.1", Ttl: durationpb.New(time.Hour),
		Ports: []*meshv1.Port{{Name: "http", Number: number}},
	}
}

func (p *plane) register(i *meshv1.Instance) *meshv1.Instance {
	p.t.Helper()
	registered, err := p.registry.Register(p.t.Context(), i)
	if err != nil {
		p.t.Fatal(err)
	}
	return registered
}

// take lets the reconciler, which does not run, take in a batch.
func (p *plane) take(b store.Batch) {
	p.reconciler.Batch(b)
	p.reconciler.TakeWaiting()
}

func (p *plane) put(want *meshv1.Policy) {
	p.t.Helper()
	stored, err := p.policies.Put(p.t.Context(), want)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.view.Await(p.t.Context(), stored.GetRevision()); err != nil {
		p.t.Fatal(err)
	}
}

// delete removes a key by hand.
func (p *plane) delete(key string) {
	p.t.Helper()
	if _, err := p.store.Txn(p.t.Context(), store.Txn{Then: []store.Op{store.Delete(store.Root + key)}}); err != nil {
		p.t.Fatal(err)
	}
	synctest.Wait()
}

// chain names what stands for the port http of a service, and its names.
func chain(service string, number int) []xdsserver.Key {
	name := service + ".default"
	return []xdsserver.Key{
		{Type: codec.TypeListener, Name: name},
		{Type: codec.TypeListener, Name: fmt.Sprintf("%s:%d", name, number)},
		{Type: codec.TypeListener, Name: name + ":http"},
		{Type: codec.TypeRoute, Name: name + ":http"},
		{Type: codec.TypeCluster, Name: name + ":http"},
		{Type: codec.TypeEndpoints, Name: name + ":http"},
	}
}

// versions returns those of the keys that exist.
func (p *plane) versions(keys ...xdsserver.Key) map[xdsserver.Key]string {
	all := map[xdsserver.Key]string{}
	for _, k := range keys {
		if v, ok := p.cache.Has(k); ok {
			all[k] = v
		}
	}
	return all
}

// changed lists the types of the resources that differ.
func changed(before, after map[xdsserver.Key]string) (types []string) {
	for k, v := range after {
		if before[k] != v {
			types = append(types, k.Type.String())
		}
	}
	for k := range before {
		if _, still := after[k]; !still {
			types = append(types, "no "+k.Type.String())
		}
	}
	slices.Sort(types)
	return types
}

func TestRegistrationBringsTheWholeChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		p.register(instance("orders", "a", 9000))
		if got := p.versions(chain("orders", 9000)...); len(got) != 6 {
			t.Errorf("there is %v", got)
		}
	})
}

func TestChangeOfAServiceTouchesOnlyItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		p.register(instance("orders", "a", 9000))
		p.register(instance("carts", "a", 9000))
		orders, carts := p.versions(chain("orders", 9000)...), p.versions(chain("carts", 9000)...)

		p.register(instance("orders", "b", 9001))
		if got := changed(orders, p.versions(chain("orders", 9000)...)); !slices.Equal(got, []string{"endpoints", "no listener"}) {
			t.Errorf("of the service itself changed %v", got)
		}
		p.put(&meshv1.Policy{Service: "orders", RequestTimeout: durationpb.New(time.Second)})
		if got := p.versions(chain("carts", 9000)...); !maps.Equal(got, carts) {
			t.Errorf("of the other changed %v", changed(carts, got))
		}
	})
}

func TestPolicyChangesWhatItIsAbout(t *testing.T) {
	for name, c := range map[string]struct {
		policy *meshv1.Policy
		want   []string
	}{
		"timeout":         {&meshv1.Policy{RequestTimeout: durationpb.New(time.Second)}, []string{"route"}},
		"no timeout":      {&meshv1.Policy{RequestTimeout: durationpb.New(0)}, []string{"route"}},
		"default timeout": {&meshv1.Policy{RequestTimeout: durationpb.New(mesh.DefaultRequestTimeout)}, nil},
		"round robin":     {&meshv1.Policy{LoadBalancing: meshv1.LoadBalancing_ROUND_ROBIN}, []string{"cluster"}},
		"weighted":        {&meshv1.Policy{LoadBalancing: meshv1.LoadBalancing_WEIGHTED_ROUND_ROBIN}, []string{"cluster"}},
		"random":          {&meshv1.Policy{LoadBalancing: meshv1.LoadBalancing_RANDOM}, []string{"cluster"}},
		"least request":   {&meshv1.Policy{LoadBalancing: meshv1.LoadBalancing_LEAST_REQUEST}, nil},
		"breaker":         {&meshv1.Policy{Breaker: &meshv1.Breaker{ConsecutiveFailures: 2}}, []string{"cluster"}},
		"breaker, open":   {&meshv1.Policy{Breaker: &meshv1.Breaker{OpenTime: durationpb.New(time.Second)}}, []string{"cluster"}},
		"panic":           {&meshv1.Policy{Breaker: &meshv1.Breaker{PanicThresholdPercent: 40}}, []string{"cluster"}},
		"breaker off":     {&meshv1.Policy{Breaker: &meshv1.Breaker{Disabled: true}}, []string{"cluster"}},
		"nothing said":    {&meshv1.Policy{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := run(t, memstore.New())
				defer stop()
				p.register(instance("orders", "a", 9000))
				before := p.versions(chain("orders", 9000)...)
				c.policy.Service = "orders"
				p.put(c.policy)
				if got := changed(before, p.versions(chain("orders", 9000)...)); !slices.Equal(got, c.want) {
					t.Errorf("changed %v, want %v", got, c.want)
				}
				p.delete("policies/default/orders")
				if got := p.versions(chain("orders", 9000)...); !maps.Equal(got, before) {
					t.Errorf("without it, not as before: %v", changed(before, got))
				}
			})
		})
	}
}

func TestStatusWeightAndZoneReachTheEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		i := instance("orders", "a", 9000)
		p.register(i)
		seen := map[string]bool{}
		for _, set := range []func(){
			func() {},
			func() { i.Status = meshv1.Status_HEALTHY },
			func() { i.Status = meshv1.Status_UNHEALTHY },
			func() { i.Status = meshv1.Status_DRAINING },
			func() { i.Weight = 7 },
			func() { i.Zone = "z" },
			func() { i.InboundPort = 15006 },
			func() { i.Address = "10.0.0.2" },
		} {
			before := p.versions(chain("orders", 9000)...)
			set()
			p.register(i)
			after := p.versions(chain("orders", 9000)...)
			if got := changed(before, after); len(seen) > 0 && !slices.Equal(got, []string{"endpoints"}) {
				t.Errorf("%v: changed %v", i, got)
			}
			seen[after[chain("orders", 9000)[5]]] = true
		}
		if len(seen) != 8 {
			t.Errorf("%d versions of 8 states", len(seen))
		}
	})
}

func TestLabelsAreNotTheDataPlanesBusiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		i := instance("orders", "a", 9000)
		p.register(i)
		before := p.versions(chain("orders", 9000)...)
		i.Labels = map[string]string{"version": "v2"}
		p.register(i)
		if got := p.versions(chain("orders", 9000)...); !maps.Equal(got, before) {
			t.Errorf("changed %v", changed(before, got))
		}
	})
}

func TestPolicyMayComeBeforeItsService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, stop := run(t, memstore.New())
		defer stop()
		first.put(&meshv1.Policy{Service: "orders", LoadBalancing: meshv1.LoadBalancing_RANDOM})
		if got := first.versions(chain("orders", 9000)...); len(got) != 0 {
			t.Errorf("a policy alone makes %v", got)
		}
		first.register(instance("orders", "a", 9000))

		second, stop := run(t, memstore.New())
		defer stop()
		second.register(instance("orders", "a", 9000))
		second.put(&meshv1.Policy{Service: "orders", LoadBalancing: meshv1.LoadBalancing_RANDOM})
		a, b := first.versions(chain("orders", 9000)...), second.versions(chain("orders", 9000)...)
		if len(a) != 6 || !maps.Equal(a, b) {
			t.Errorf("the order matters: %v", changed(a, b))
		}
	})
}

func TestServiceOutlivesItsInstancesAndGoesWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		i := p.register(instance("orders", "a", 9000))
		before := p.versions(chain("orders", 9000)...)
		if _, err := p.registry.Deregister(t.Context(), discovery.Key{Service: mesh.ServiceName{Name: "orders", Namespace: "default"}, ID: i.GetId()}); err != nil {
			t.Fatal(err)
		}
		if got := changed(before, p.versions(chain("orders", 9000)...)); !slices.Equal(got, []string{"endpoints"}) {
			t.Errorf("without instances, changed %v", got)
		}
		p.delete("services/default/orders")
		if got := p.versions(chain("orders", 9000)...); len(got) != 0 {
			t.Errorf("without its key, there is still %v", got)
		}
		if s, known := p.reconciler.Service(orders()); known || len(p.told) > 0 {
			t.Errorf("it is still said to be %v, or %v", s, p.told)
		}
	})
}

func TestSameStateGivesSameVersionsToWhoeverReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		old, stop := run(t, s)
		for n := range 20 {
			old.register(instance("orders", fmt.Sprint("i", n), 9000))
		}
		old.register(instance("carts", "a", 9001))
		old.put(&meshv1.Policy{Service: "orders", LoadBalancing: meshv1.LoadBalancing_RANDOM, Breaker: &meshv1.Breaker{MinimumRequests: 3}})
		stop()
		keys := append(chain("orders", 9000), chain("carts", 9001)...)
		before := old.versions(keys...)

		restarted, stop := run(t, s)
		defer stop()
		if after := restarted.versions(keys...); len(after) != 12 || !maps.Equal(before, after) {
			t.Errorf("changed %v", changed(before, after))
		}
	})
}

// A large service takes long to translate: while many of its instances come and go, one
// translation for each would fall behind.
func TestRevisionsThatWaitAreTranslatedAtOnceAndToldOneByOne(t *testing.T) {
	p := newPlane(t, memstore.New())
	p.reconciler.Snapshot(store.Snapshot{ClusterID: 1, Revision: 1})
	watch := p.view.Watch(discovery.Filter{}, "")
	if e, err := watch.Next(t.Context()); err != nil || !e.Snapshot {
		t.Fatalf("%+v, %v", e, err)
	}
	const revisions = 500
	for i := range int64(revisions) {
		p.reconciler.Batch(store.Batch{ClusterID: 1, Revision: i + 2, Puts: []store.Entry{{
			Key:            fmt.Sprintf("%sinstances/default/orders/i%d", store.Root, i),
			Value:          fmt.Appendf(nil, `{"instance":{"address":"10.0.%d.%d","ports":[{"name":"http","number":80}]}}`, i/250, i%250+1),
			CreateRevision: i + 2, ModRevision: i + 2, Version: 1,
		}}})
	}
	p.reconciler.TakeWaiting()
	if n := p.log.count("taken in"); n != 2 {
		t.Errorf("taken in %d times, want once the snapshot and once what waited", n)
	}
	if s, _ := p.view.Service(mesh.ServiceName{Namespace: "default", Name: "orders"}); len(s.Instances) != revisions {
		t.Errorf("%d instances, want %d", len(s.Instances), revisions)
	}
	if _, ok := p.cache.Has(xdsserver.Key{Type: codec.TypeEndpoints, Name: "orders.default:http"}); !ok {
		t.Error("nothing is published")
	}
	for want := int64(2); want < revisions+2; {
		e, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Revision != want || len(e.Changed) != 1 {
			t.Fatalf("told of revision %d with %d changes, want %d with one", e.Revision, len(e.Changed), want)
		}
		want++
	}
}

func TestSyncedOnceWhenTheCacheHoldsAllThatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		first, stop := run(t, s)
		first.register(instance("orders", "a", 9000))
		stop()

		log := slog.New(slog.DiscardHandler)
		cache := xdsserver.NewCache(log)
		var had []int
		r, err := reconcile.New(reconcile.Config{
			Store: s, View: discovery.NewView(log, ""), Policies: policy.New(s, log), Cache: cache, Log: log,
			OnSynced: func() {
				n := 0
				for _, k := range chain("orders", 9000) {
					if _, ok := cache.Has(k); ok {
						n++
					}
				}
				had = append(had, n)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = r.Run(ctx) })
		synctest.Wait()
		s.BreakWatches() // and follow it anew: that is no first time
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		if !slices.Equal(had, []int{6}) {
			t.Errorf("when synced, there were %v resources", had)
		}
	})
}

func TestStoreSetBackToABackupTakesAwayWhatCameAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		p.register(instance("orders", "a", 9000))
		before := p.versions(chain("orders", 9000)...)
		backup := p.store.Backup()
		p.register(instance("orders", "b", 9000))
		p.register(instance("carts", "a", 9000))
		p.put(&meshv1.Policy{Service: "orders", LoadBalancing: meshv1.LoadBalancing_RANDOM})
		p.store.Restore(backup)
		time.Sleep(time.Minute)
		if after := p.versions(chain("orders", 9000)...); !maps.Equal(before, after) {
			t.Errorf("changed %v", changed(before, after))
		}
		if got := p.versions(chain("carts", 9000)...); len(got) != 0 {
			t.Errorf("there is still %v", got)
		}
	})
}

// crowd writes an instance with about 300 bytes in its load assignment.
func crowd(n int) store.Entry {
	id := fmt.Sprintf("i%062d", n)
	return store.Entry{
		Key: store.Root + "instances/default/crowd/" + id, ModRevision: 2,
		Value: fmt.Appendf(nil, `{"instance":{"address":"fd00:1111:2222:3333:4444:5555:%x:%x","zone":"%063d","ports":[{"name":"http","number":9000}]}}`, n>>16, n&0xffff, n),
	}
}

func TestServiceThatCannotBeTranslatedKeepsWhatItHadAndHoldsUpNobody(t *testing.T) {
	p := newPlane(t, memstore.New())
	p.reconciler.Snapshot(store.Snapshot{Revision: 2, Entries: []store.Entry{crowd(0), {
		Key: store.Root + "services/default/orders", Value: []byte(`{"ports":[{"name":"http","number":9000}]}`), ModRevision: 2,
	}}})
	before := p.versions(chain("crowd", 9000)...)
	if len(before) != 6 {
		t.Fatalf("there is %v", before)
	}
	const complaint = "service not translated"
	tooMany := store.Batch{Revision: 3}
	for n := range 20_000 { // beyond what a resource may hold
		tooMany.Puts = append(tooMany.Puts, crowd(n))
	}
	p.take(tooMany)
	if got := p.versions(chain("crowd", 9000)...); !maps.Equal(before, got) {
		t.Errorf("changed %v", changed(before, got))
	}
	if n := p.log.count(complaint); n != 1 {
		t.Fatalf("it is told %d times", n)
	}

	orders := p.versions(chain("orders", 9000)...)
	p.take(store.Batch{Revision: 4, Puts: []store.Entry{{
		Key: store.Root + "policies/default/orders", Value: []byte(`{"policy":{"loadBalancing":"RANDOM"}}`), ModRevision: 4,
	}}})
	if got := changed(orders, p.versions(chain("orders", 9000)...)); !slices.Equal(got, []string{"cluster"}) {
		t.Errorf("of the other service changed %v", got)
	}
	if n := p.log.count(complaint); n != 1 {
		t.Error("it was translated again, although another service changed")
	}

	fewer := store.Batch{Revision: 5}
	for n := 1; n < 20_000; n++ {
		fewer.Deletes = append(fewer.Deletes, crowd(n).Key)
	}
	p.take(fewer)
	if got := p.versions(chain("crowd", 9000)...); !maps.Equal(before, got) {
		t.Errorf("small again, changed %v", changed(before, got))
	}
	p.take(store.Batch{Revision: 6, Deletes: []string{crowd(0).Key}})
	if got := changed(before, p.versions(chain("crowd", 9000)...)); !slices.Equal(got, []string{"endpoints"}) {
		t.Errorf("empty, changed %v", got)
	}
}

func TestNobodyIsToldOfAChangeBeforeTheCacheHasIt(t *testing.T) {
	p := newPlane(t, memstore.New())
	p.reconciler.Snapshot(store.Snapshot{Revision: 1})
	for round := int64(2); round < 200; round++ {
		name := fmt.Sprint("s", round)
		told := make(chan bool)
		go func() {
			_ = p.view.Await(t.Context(), round)
			_, has := p.cache.Has(xdsserver.Key{Type: codec.TypeEndpoints, Name: name + ".default:http"})
			told <- has
		}()
		p.take(store.Batch{Revision: round, Puts: []store.Entry{{
			Key: store.Root + "instances/default/" + name + "/a", ModRevision: round,
			Value: []byte(`{"instance":{"address":"10.0.0.1","ports":[{"name":"http","number":9000}]}}`),
		}}})
		if !<-told {
			t.Fatalf("revision %d was in force before the cache had it", round)
		}
	}
}

func TestBookmarksAndForeignKeysMoveTheRevisionAndNothingElse(t *testing.T) {
	p := newPlane(t, memstore.New())
	p.reconciler.Snapshot(store.Snapshot{Revision: 1, Entries: []store.Entry{crowd(0)}})
	before := p.versions(chain("crowd", 9000)...)
	p.take(store.Batch{Revision: 8})
	p.take(store.Batch{Revision: 9, Puts: []store.Entry{{Key: store.Root + "future/thing", Value: []byte("x"), ModRevision: 9}}})
	if err := p.view.Await(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	if got := p.versions(chain("crowd", 9000)...); !maps.Equal(before, got) {
		t.Errorf("changed %v", changed(before, got))
	}
	if p.synced != 1 {
		t.Errorf("synced %d times", p.synced)
	}
}

// wantPublished compares the endpoints that data planes are sent with those of a mesh
// that has just these instances: versions tell contents apart.
func (p *plane) wantPublished(ids ...string) {
	p.t.Helper()
	other, stop := run(p.t, memstore.New())
	defer stop()
	other.hold(ids...)
	endpoints := chain("orders", 9000)[5]
	if got, want := p.versions(endpoints), other.versions(endpoints); !maps.Equal(got, want) {
		p.t.Errorf("what is published is not %v", ids)
	}
	said, _ := p.reconciler.Service(orders())
	for what, s := range map[string]translate.Service{"Service": said, "Changed": p.told[orders()]} {
		var got []string
		for _, i := range s.Instances {
			got = append(got, i.ID)
		}
		if slices.Sort(got); !slices.Equal(got, ids) {
			p.t.Errorf("%s says %v, not %v", what, got, ids)
		}
	}
}

func TestLossOfMostOfAServiceIsNotPublished(t *testing.T) {
	for name, c := range map[string]struct {
		then  func(p *plane)
		after time.Duration
		want  []string
	}{
		"for ten minutes":        {func(*plane) {}, guard.MaxHold - 10*time.Second, []string{"a", "b", "c", "d", "e"}},
		"and no longer":          {func(*plane) {}, guard.MaxHold + 10*time.Second, []string{"e"}},
		"until it is released":   {func(p *plane) { p.reconciler.Release(orders(), "") }, 0, []string{"e"}},
		"but for one released":   {func(p *plane) { p.reconciler.Release(orders(), "b") }, 0, []string{"a", "c", "d", "e"}},
		"until most are back":    {func(p *plane) { p.hold("a", "b") }, 0, []string{"a", "b", "e"}},
		"and one that comes new": {func(p *plane) { p.hold("f") }, 0, []string{"a", "b", "c", "d", "e", "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := run(t, memstore.New())
				defer stop()
				for _, id := range []string{"a", "b", "c", "d"} {
					i := instance("orders", id, 9000)
					i.Ttl = durationpb.New(10 * time.Second)
					p.register(i)
				}
				p.hold("e")
				before := p.versions(chain("orders", 9000)...)
				time.Sleep(12 * time.Second) // their leases run out
				synctest.Wait()
				if s, _ := p.view.Service(orders()); len(s.Instances) != 1 {
					t.Fatalf("%d instances are registered; the registry tells the truth", len(s.Instances))
				}
				if got := p.versions(chain("orders", 9000)...); !maps.Equal(got, before) {
					t.Errorf("the loss was published: %v", changed(before, got))
				}
				if n := p.log.count("most of a service was lost at once"); n != 1 {
					t.Errorf("said %d times", n)
				}
				c.then(p)
				time.Sleep(c.after)
				synctest.Wait()
				p.wantPublished(c.want...)
			})
		})
	}
}

// A control plane that starts reads the past of the store, for those who watch.
func TestPastIsNewsToWatchersAndNotToTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		p, stop := run(t, s)
		for _, id := range []string{"a", "b", "c", "d"} {
			i := instance("orders", id, 9000)
			i.Ttl = durationpb.New(10 * time.Second)
			p.register(i)
		}
		p.hold("e")
		before, err := p.view.Watch(discovery.Filter{}, "").Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stop()
		time.Sleep(12 * time.Second) // their leases run out
		p, stop = run(t, s)
		defer stop()
		p.wantPublished("e")
		if n := p.reconciler.HeldCount(); n != 0 {
			t.Errorf("%d are held", n)
		}
		var gone []string
		for w := p.view.Watch(discovery.Filter{}, before.Token); len(gone) < 4; {
			e, err := w.Next(t.Context())
			if err != nil || e.Snapshot {
				t.Fatalf("%+v, %v", e, err)
			}
			for _, k := range e.Removed {
				gone = append(gone, k.ID)
			}
		}
		if slices.Sort(gone); !slices.Equal(gone, []string{"a", "b", "c", "d"}) {
			t.Errorf("told that %v went", gone)
		}
	})
}

func TestDeregistrationOfMostOfAServiceIsPublishedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := run(t, memstore.New())
		defer stop()
		p.hold("a", "b", "c", "d", "e")
		for _, id := range []string{"a", "b", "c", "d"} {
			if _, err := p.registry.Deregister(t.Context(), discovery.Key{Service: orders(), ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		p.wantPublished("e")
	})
}

func orders() mesh.ServiceName { return mesh.ServiceName{Namespace: "default", Name: "orders"} }

// hold registers instances that live for an hour.
func (p *plane) hold(ids ...string) {
	p.t.Helper()
	for _, id := range ids {
		p.register(instance("orders", id, 9000))
	}
	synctest.Wait()
}
