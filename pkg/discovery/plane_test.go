package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane is a registry on a store, as the control plane puts it together: a view that
// follows the store, with nothing depending on it.
type plane struct {
	t        testing.TB
	raw      store.Store
	view     *discovery.View
	registry *discovery.Registry
	feed     *feed
	// stop ends what run began, and following the store. It may be called twice.
	stop func()
}

// feed hands to a view what a mirror delivers.
type feed struct {
	view *discovery.View
	mu   sync.Mutex
	lost []string // guarded by mu; ids
}

func (f *feed) Snapshot(s store.Snapshot) {
	first := store.Batch{ClusterID: s.ClusterID, Revision: s.Revision, Puts: s.Entries, Synthetic: true}
	f.view.Apply(append([]store.Batch{first}, s.Since...)...)
	f.view.Settle()
}

func (f *feed) Batch(b store.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.view.Apply(b).Lost {
		f.lost = append(f.lost, r.Key.ID)
	}
	f.view.Settle()
}

// lost lists those who were lost.
func (p *plane) lost() []string {
	p.feed.mu.Lock()
	defer p.feed.mu.Unlock()
	return slices.Clone(p.feed.lost)
}

// newPlane follows a store until the test ends.
func newPlane(t testing.TB, s store.Store, replica string) *plane {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p := &plane{t: t, raw: s, view: discovery.NewView(log, "mesh")}
	p.registry = discovery.NewRegistry(discovery.RegistryConfig{
		Store: s, View: p.view, Replica: replica, Log: log,
	})
	p.feed = &feed{view: p.view}
	m, err := store.NewMirror(s, store.MirrorConfig{Prefix: store.Root, History: discovery.MaxHistory}, p.feed)
	if err != nil {
		t.Fatal(err)
	}
	p.background(m.Run)
	return p
}

// background runs f until stop.
func (p *plane) background(f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	before := p.stop
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("ended with %v, want the context's error", err)
		}
		if before != nil {
			before()
		}
	})
	p.t.Cleanup(p.stop)
}

// run keeps the registry tidy.
func (p *plane) run() *plane {
	p.background(p.registry.Run)
	return p
}

// inBubble runs a test on a store in memory, with the bubble's clock.
func inBubble(t *testing.T, test func(t *testing.T, s *memstore.Store)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		t.Cleanup(func() { _ = s.Close() })
		test(t, s)
	})
}

func instance(id string) *meshv1.Instance {
	return &meshv1.Instance{Id: id, Service: "orders", Address: "10.0.0.1", Ports: []*meshv1.Port{{Number: 9000}}}
}

func withTTL(i *meshv1.Instance, seconds int64) *meshv1.Instance {
	i.Ttl = &durationpb.Duration{Seconds: seconds}
	return i
}

func orders() mesh.ServiceName { return mesh.ServiceName{Namespace: "default", Name: "orders"} }

func key(id string) discovery.Key { return discovery.Key{Service: orders(), ID: id} }

func path(id string) string { return store.Root + "instances/default/orders/" + id }

// ids lists the instances of orders.
func (p *plane) ids() string {
	s, ok := p.view.Service(orders())
	if !ok {
		return "unknown"
	}
	var ids []string
	for _, r := range s.Instances {
		ids = append(ids, r.Key.ID)
	}
	return fmt.Sprint(ids)
}

func (p *plane) wantIDs(when, want string) {
	p.t.Helper()
	if got := p.ids(); got != want {
		p.t.Errorf("%s: instances %s, want %s", when, got, want)
	}
}

// mustRegister registers an instance.
func (p *plane) mustRegister(i *meshv1.Instance) *meshv1.Instance {
	p.t.Helper()
	registered, err := p.registry.Register(context.Background(), i)
	if err != nil {
		p.t.Fatal(err)
	}
	return registered
}

// mustAttach attaches an instance.
func (p *plane) mustAttach(i *meshv1.Instance) *discovery.Attachment {
	p.t.Helper()
	a, err := p.registry.Attach(context.Background(), i)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// txn writes as any program might.
func txn(t testing.TB, s store.Store, ops ...store.Op) int64 {
	t.Helper()
	r, err := s.Txn(context.Background(), store.Txn{Then: ops})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// value is an instance as somebody would write it by hand.
func value(address string) []byte {
	return fmt.Appendf(nil, `{"instance":{"address":%q,"ports":[{"number":9000}]}}`, address)
}
