// Package reconcile is the one place where the store's changes become resources:
// it follows the store, keeps the registry's view and the policies up to date, and
// translates each service that changed, and only those, into the xDS cache.
//
// The snapshot is taken in on the mirror's goroutine, what follows on one of its own, one
// revision after the other, all that waits at once. The end of a hold of [guard] comes
// with time or an operator.
package reconcile

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/guard"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// Config says what is brought into line with what.
type Config struct {
	Store    store.Store
	View     *discovery.View
	Policies *policy.Policies
	Cache    *xdsserver.Cache
	// OnSynced is called once, when the cache holds all that the store had.
	OnSynced func()
	// Changed is told of each service that may have changed, as data planes are told of it, or that it is not known any more, before the
	// revision is in force. It must not block, nor call the reconciler. nil: nobody is.
	Changed func(s translate.Service, known bool)
	Log     *slog.Logger
}

// Reconciler keeps a cache in line with a store.
type Reconciler struct {
	c      Config
	mirror *store.Mirror
	guard  *guard.Guard
	waits  chan store.Batch // from the mirror's goroutine to the one that takes in; closed when the mirror has ended

	mu       sync.Mutex
	made     map[mesh.ServiceName]map[xdsserver.Key]bool // guarded by mu; the resources that stand for a service
	revision int64                                       // guarded by mu; the last one taken in
	overdue  *time.Timer                                 // guarded by mu; ends holds
	ended    bool                                        // guarded by mu
}

// New returns a reconciler. Nothing happens before Run.
func New(c Config) (*Reconciler, error) {
	r := &Reconciler{c: c, guard: guard.New(c.Log), waits: make(chan store.Batch, maxWaiting), made: map[mesh.ServiceName]map[xdsserver.Key]bool{}}
	r.overdue = time.AfterFunc(never, r.endHolds)
	var err error
	r.mirror, err = store.NewMirror(c.Store, store.MirrorConfig{
		Prefix:  store.Root,
		History: discovery.MaxHistory, // so that those who watch go on where they were before a restart
		Logger:  c.Log,
	}, r)
	return r, err
}

// never is how long a timer waits that nothing has set.
const never = time.Duration(1<<63 - 1)

// maxWaiting bounds the revisions that wait for a translation; more of them hold back the store's watch.
const maxWaiting = 1024

// Run follows the store until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	var taking sync.WaitGroup
	taking.Go(r.takeWaiting)
	err := r.mirror.Run(ctx)
	close(r.waits)
	taking.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.overdue.Stop()
	return err
}

// Mirror tells how far the store was followed.
func (r *Reconciler) Mirror() *store.Mirror { return r.mirror }

// Snapshot implements [store.MirrorHandler].
func (r *Reconciler) Snapshot(s store.Snapshot) {
	first := store.Batch{ClusterID: s.ClusterID, Revision: s.Revision, Puts: s.Entries, Synthetic: true}
	r.take(append([]store.Batch{first}, s.Since...), false) // who was lost in the past is history
	r.c.Cache.SetSynced()
	r.c.OnSynced()
}

// Batch implements [store.MirrorHandler].
func (r *Reconciler) Batch(b store.Batch) { r.waits <- b }

// takeWaiting takes in what the mirror delivers, until it has ended.
func (r *Reconciler) takeWaiting() {
	for b := range r.waits {
		r.takeAll(b)
	}
}

// takeAll takes in a batch and all that wait behind it: a service is translated whole, which takes
// tens of milliseconds if it is large, so that one translation for each of many revisions would
// fall behind those who write them.
func (r *Reconciler) takeAll(b store.Batch) {
	batches := []store.Batch{b}
	for range len(r.waits) {
		batches = append(batches, <-r.waits)
	}
	r.take(batches, true)
}

// take takes batches in as one. The guard learns of losses that are news.
func (r *Reconciler) take(batches []store.Batch, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := r.c.View.Apply(batches...)
	if news {
		r.guard.Lose(time.Now(), changes.Lost)
	}
	touched := map[mesh.ServiceName]bool{}
	for _, name := range changes.Services {
		touched[name] = true
	}
	for _, b := range batches {
		for _, name := range r.c.Policies.Apply(b) {
			touched[name] = true
		}
		r.revision = b.Revision
	}
	r.update(touched)
	r.c.View.Settle()
	r.c.Log.Debug("taken in", "revisions", len(batches), "services", len(touched), "revision", r.revision)
}

// update brings the cache into line with services. It needs r.mu.
func (r *Reconciler) update(touched map[mesh.ServiceName]bool) {
	var put []codec.Encoded
	var remove []xdsserver.Key
	for name := range touched {
		add, gone := r.service(name)
		put, remove = append(put, add...), append(remove, gone...)
	}
	if len(put)+len(remove) > 0 {
		r.c.Cache.Update(put, remove, r.revision)
	}
	if _, next := r.guard.Due(time.Now()); next.IsZero() || r.ended {
		r.overdue.Stop()
	} else {
		r.overdue.Reset(time.Until(next))
	}
}

// Held lists the lost instances of a service that its data planes keep: see
// [guard.Guard.Hold].
func (r *Reconciler) Held(name mesh.ServiceName) []guard.Held { return r.guard.Held(name) }

// HeldCount returns how many there are.
func (r *Reconciler) HeldCount() int { return r.guard.Count() }

// Release lets go of a held instance, of all of a service if id is empty, and returns
// how many these were.
func (r *Reconciler) Release(name mesh.ServiceName, id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.guard.Release(name, id)
	if n > 0 {
		r.update(map[mesh.ServiceName]bool{name: true})
	}
	return n
}

// endHolds lets go of what was held for long enough.
func (r *Reconciler) endHolds() {
	r.mu.Lock()
	defer r.mu.Unlock()
	due, _ := r.guard.Due(time.Now())
	touched := map[mesh.ServiceName]bool{}
	for _, name := range due {
		touched[name] = true
	}
	r.update(touched)
}

// service translates one, and returns the resources that stand for it now, and
// those that no longer do.
func (r *Reconciler) service(name mesh.ServiceName) (put []codec.Encoded, gone []xdsserver.Key) {
	s, known := r.c.View.Service(name)
	described := translate.Service{Name: name}
	if known {
		s.Instances = append(r.guard.Hold(time.Now(), s), s.Instances...)
		described = describe(s, r.c.Policies.Get(name))
	}
	if r.c.Changed != nil {
		r.c.Changed(described, known)
	}
	if !known {
		r.guard.Forget(name)
	} else {
		var err error
		if put, err = translate.For(described); err != nil {
			r.c.Log.Error("service not translated; its data planes keep what they have", "service", name.String(), "error", err)
			return nil, nil
		}
	}
	now := map[xdsserver.Key]bool{}
	for _, e := range put {
		now[xdsserver.Key{Type: e.Type, Name: e.Name}] = true
	}
	for k := range r.made[name] {
		if !now[k] {
			gone = append(gone, k)
		}
	}
	if r.made[name] = now; len(now) == 0 {
		delete(r.made, name)
	}
	return put, gone
}

// Service returns a service as data planes are told of it: with what operators want of it, and with the lost instances that are held. It returns
// false if the service was never known.
func (r *Reconciler) Service(name mesh.ServiceName) (translate.Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.c.View.Service(name)
	if !known {
		return translate.Service{Name: name}, false
	}
	var held []*discovery.Record
	for _, h := range r.guard.Held(name) {
		held = append(held, h.Record)
	}
	s.Instances = append(held, s.Instances...)
	return describe(s, r.c.Policies.Get(name)), true
}

// describe puts the registry's and the operators' words into the translator's.
func describe(s discovery.Service, p *meshv1.Policy) translate.Service {
	t := translate.Service{Name: s.Name, Ports: ports(s.Ports), Policy: wanted(p)}
	for _, record := range s.Instances {
		i := record.Instance
		address, err := netip.ParseAddr(i.GetAddress())
		if err != nil {
			continue // the registry has checked it
		}
		t.Instances = append(t.Instances, translate.Instance{
			ID:      i.GetId(),
			Address: address,
			Ports:   ports(i.GetPorts()),
			Inbound: uint16(i.GetInboundPort()),
			Knocks:  i.GetTakesKnocks(),
			Weight:  i.GetWeight(),
			Zone:    i.GetZone(),
			Health:  health(i.GetStatus()),
		})
	}
	return t
}

func ports(list []*meshv1.Port) []translate.Port {
	all := make([]translate.Port, 0, len(list))
	for _, p := range list {
		protocol, ok := mesh.ParseProtocol(p.GetProtocol().String())
		if !ok {
			protocol = mesh.ProtocolHTTP
		}
		all = append(all, translate.Port{Name: p.GetName(), Number: uint16(p.GetNumber()), Protocol: protocol})
	}
	return slices.Clip(all)
}

func health(s meshv1.Status) mesh.Health {
	switch s {
	case meshv1.Status_HEALTHY:
		return mesh.HealthHealthy
	case meshv1.Status_UNHEALTHY:
		return mesh.HealthUnhealthy
	case meshv1.Status_DRAINING:
		return mesh.HealthDraining
	default:
		return mesh.HealthUnknown
	}
}

// wanted reads a policy; nil is one that says nothing.
func wanted(p *meshv1.Policy) translate.Policy {
	t := translate.Policy{Breaker: breaker(p.GetBreaker())}
	switch p.GetLoadBalancing() {
	case meshv1.LoadBalancing_ROUND_ROBIN:
		t.LB = mesh.LBRoundRobin
	case meshv1.LoadBalancing_WEIGHTED_ROUND_ROBIN:
		t.LB = mesh.LBWeightedRoundRobin
	case meshv1.LoadBalancing_RANDOM:
		t.LB = mesh.LBRandom
	default:
		t.LB = mesh.LBLeastRequest
	}
	if timeout := p.GetRequestTimeout(); timeout != nil {
		if t.RequestTimeout = timeout.AsDuration(); t.RequestTimeout == 0 {
			t.RequestTimeout = -1
		}
	}
	return t
}

func breaker(b *meshv1.Breaker) mesh.Breaker {
	return mesh.Breaker{
		Disabled:            b.GetDisabled(),
		ConsecutiveFailures: b.GetConsecutiveFailures(),
		FailurePercent:      b.GetFailurePercent(),
		MinimumRequests:     b.GetMinimumRequests(),
		Window:              b.GetWindow().AsDuration(),
		OpenTime:            b.GetOpenTime().AsDuration(),
		MaxOpenTime:         b.GetMaxOpenTime().AsDuration(),
		HalfOpenRequests:    b.GetHalfOpenRequests(),
		MaxEjectionPercent:  b.GetMaxEjectionPercent(),
		PanicPercent:        b.GetPanicThresholdPercent(),
	}
}
