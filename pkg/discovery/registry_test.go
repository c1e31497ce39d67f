package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// leaseOf returns the lease that keeps an instance, and whether it lives.
func leaseOf(t testing.TB, s store.Store, id string) store.LeaseID {
	t.Helper()
	e, err := s.Get(t.Context(), path(id))
	if err != nil {
		t.Fatal(err)
	}
	return e.Lease
}

func lives(t testing.TB, s store.Store, lease store.LeaseID) bool {
	t.Helper()
	_, err := s.TimeToLive(t.Context(), lease)
	if err != nil && !errors.Is(err, store.ErrLeaseNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func TestARegisteredInstanceLivesForItsTTLFromTheLastRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		i := p.mustRegister(withTTL(instance("a1"), 10))
		if i.GetNamespace() != "default" || i.GetRevision() == 0 || !i.GetRegisteredAt().AsTime().Equal(time.Now()) {
			t.Errorf("registered as %v", i)
		}
		p.wantIDs("when Register has returned", "[a1]")
		time.Sleep(9 * time.Second)
		if ttl, err := p.registry.Renew(t.Context(), key("a1")); err != nil || ttl != 10*time.Second {
			t.Errorf("%v, %v; want 10s", ttl, err)
		}
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		p.wantIDs("just before the end", "[a1]")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		p.wantIDs("after the TTL", "[]")
		if _, err := p.registry.Renew(t.Context(), key("a1")); !errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
	})
}

func TestRegisteringAgainReplacesAndKeepsTheFirstTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		first := p.mustRegister(instance("a1"))
		time.Sleep(5 * time.Second)
		i := instance("a1")
		i.Address, i.RegisteredAt = "10.0.0.2", nil
		second := p.mustRegister(i)
		if !second.GetRegisteredAt().AsTime().Equal(first.GetRegisteredAt().AsTime()) || second.GetRevision() <= first.GetRevision() {
			t.Errorf("second registered at %v", second.GetRegisteredAt().AsTime())
		}
		r, _ := p.view.Instance(key("a1"))
		if r.Instance.GetAddress() != "10.0.0.2" || r.Revision != second.GetRevision() {
			t.Errorf("%v, want the second", r.Instance)
		}
		if _, err := p.registry.Deregister(t.Context(), key("a1")); err != nil {
			t.Fatal(err)
		}
		if third := p.mustRegister(instance("a1")); !third.GetRegisteredAt().AsTime().Equal(time.Now()) {
			t.Errorf("registered at %v after it was gone", third.GetRegisteredAt().AsTime())
		}
	})
}

func TestDeregisterRemovesHoweverItWasRegistered(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		p.mustRegister(instance("a1"))
		p.mustAttach(instance("a2"))
		txn(t, s, store.Put(path("a3"), value("10.0.0.1")), store.Put(path("a4"), []byte(`garbage`)))
		for _, id := range []string{"a1", "a2", "a3", "a4"} {
			revision, err := p.registry.Deregister(t.Context(), key(id))
			if seen, _ := p.view.Revision(); err != nil || seen < revision || revision == 0 {
				t.Errorf("%s: at %d, seen %d, %v", id, revision, seen, err)
			}
		}
		p.wantIDs("after all", "[]")
		if _, err := p.registry.Deregister(t.Context(), key("a1")); !errors.Is(err, discovery.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
	})
}

func TestWhatIsNotValidIsRefusedAndLeavesNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		i := instance("_")
		i.Identity = "spiffe://elsewhere/ns/default/sa/orders"
		want := []string{"id", "identity"}
		if _, err := p.registry.Register(t.Context(), i); !slices.Equal(fields(err), want) {
			t.Errorf("register: %v, want faults of %q", err, want)
		}
		if _, err := p.registry.Attach(t.Context(), i); !slices.Equal(fields(err), want) {
			t.Errorf("attach: %v, want faults of %q", err, want)
		}
		i.Id, i.Identity = "a1", "spiffe://mesh/ns/default/sa/orders"
		p.mustRegister(i)
		if head, err := s.Head(t.Context()); err != nil || head.Revision != 2 {
			t.Errorf("the store is at %d, want one write; %v", head.Revision, err)
		}
	})
}

func TestTheStreamsInstanceIsNotTheAPIs(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1") // not running: its own key is not there, yet it lives
		p.mustAttach(instance("a1"))
		other := settled(newPlane(t, s, "r2"))
		if _, err := p.registry.Register(t.Context(), instance("a1")); !errors.Is(err, discovery.ErrAttached) {
			t.Errorf("register: %v, want ErrAttached", err)
		}
		if _, err := p.registry.Renew(t.Context(), key("a1")); !errors.Is(err, discovery.ErrAttached) {
			t.Errorf("renew: %v, want ErrAttached", err)
		}
		// Whose replica is dead may be registered by anybody.
		if _, err := other.registry.Register(t.Context(), instance("a1")); err != nil {
			t.Error(err)
		}
		p.stop()
	})
}

func TestManyWhoRegisterTheSameAtOnceLeaveOneInstanceAndOneLease(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		var all sync.WaitGroup
		var granted sync.Map
		for n := range 5 {
			all.Go(func() {
				i := instance("a1")
				i.Address = fmt.Sprintf("10.0.0.%d", n+1)
				if _, err := p.registry.Register(t.Context(), i); err != nil {
					t.Error(err)
				}
				granted.Store(n, true)
			})
		}
		all.Wait()
		synctest.Wait()
		p.wantIDs("after all", "[a1]")
		if living := livingLeases(t, s); !slices.Equal(living, []store.LeaseID{leaseOf(t, s, "a1")}) {
			t.Errorf("leases %v live, want only the last writer's", living)
		}
	})
}

// livingLeases relies on the store in memory counting its leases from 1.
func livingLeases(t testing.TB, s store.Store) (living []store.LeaseID) {
	t.Helper()
	for id := range store.LeaseID(100) {
		if lives(t, s, id) {
			living = append(living, id)
		}
	}
	return living
}

func TestAWriteOfUnknownOutcomeNeitherDoublesNorLoses(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied %t", applied), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := newPlane(t, s, "r1").run()
				time.Sleep(time.Second) // the replica's own key is written
				w := p.view.Watch(discovery.Filter{}, "")
				poll(t, w)

				s.FailNextTxn(applied)
				p.mustRegister(withTTL(instance("a1"), 3600))
				want(t, w, "+orders.default/a1 !orders.default")
				if n := len(livingLeases(t, s)); n != 2 {
					t.Errorf("%d leases, want the replica's and the instance's", n)
				}
				s.FailNextTxn(applied)
				p.mustRegister(withTTL(instance("a1"), 3600))
				want(t, w, "+orders.default/a1")
				if n := len(livingLeases(t, s)); n != 2 {
					t.Errorf("%d leases, want the replica's and the instance's", n)
				}
				s.FailNextTxn(applied)
				a := p.mustAttach(instance("a1"))
				want(t, w, "+orders.default/a1")
				s.FailNextTxn(applied)
				if err := a.SetStatus(t.Context(), meshv1.Status_DRAINING); err != nil || a.Instance().GetStatus() != meshv1.Status_DRAINING {
					t.Errorf("status %v, %v", a.Instance().GetStatus(), err)
				}
				want(t, w, "+orders.default/a1")
				s.FailNextTxn(applied)
				if err := a.Detach(t.Context()); err != nil {
					t.Error(err)
				}
				want(t, w, "-orders.default/a1")
				p.mustAttach(instance("a2"))
				want(t, w, "+orders.default/a2")
				s.FailNextTxn(applied)
				if _, err := p.registry.Deregister(t.Context(), key("a2")); err != nil {
					t.Error(err)
				}
				want(t, w, "-orders.default/a2")
				if n := len(livingLeases(t, s)); n != 1 {
					t.Errorf("%d leases, want the replica's", n)
				}
			})
		})
	}
}

// want takes the one event that is there, whatever its revision.
func want(t testing.TB, w *discovery.Watcher, want string) {
	t.Helper()
	synctest.Wait()
	e, ok := poll(t, w)
	if got := describe(e); !ok || got != fmt.Sprintf("@%d %s", e.Revision, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if e, more := poll(t, w); more {
		t.Errorf("got %q too", describe(e))
	}
}

func TestAnOutcomeThatCannotBeFoundOutLeavesTheLeaseAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, &deafAfterTxn{Store: s}, "r1"))
		_, err := p.registry.Register(t.Context(), instance("a1"))
		if !errors.Is(err, store.ErrUnknownOutcome) {
			t.Fatalf("%v, want ErrUnknownOutcome", err)
		}
		if !lives(t, s, leaseOf(t, s, "a1")) {
			t.Error("what may be registered was taken away")
		}
	})
}

// deafAfterTxn is a store that applies writes, and then is gone without an answer.
type deafAfterTxn struct {
	store.Store
	mu   sync.Mutex
	deaf bool
}

func (d *deafAfterTxn) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	_, err := d.Store.Txn(ctx, t)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf = err == nil; d.deaf {
		err = store.ErrUnknownOutcome
	}
	return store.TxnResult{}, err
}

func (d *deafAfterTxn) Get(ctx context.Context, key string) (store.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return store.Entry{}, store.ErrUnavailable
	}
	return d.Store.Get(ctx, key)
}

func (d *deafAfterTxn) hear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = false
}

func TestLeasesOfReplacedRegistrationsEndAtOnce(t *testing.T) {
	for name, replace := range map[string]func(*plane) error{
		"registered again": func(p *plane) error {
			_, err := p.registry.Register(context.Background(), withTTL(instance("a1"), 3600))
			return err
		},
		"attached": func(p *plane) error {
			_, err := p.registry.Attach(context.Background(), instance("a1"))
			return err
		},
		"deregistered": func(p *plane) error {
			_, err := p.registry.Deregister(context.Background(), key("a1"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := newPlane(t, s, "r1")
				p.mustRegister(withTTL(instance("a1"), 3600))
				old := leaseOf(t, s, "a1")
				later := settled(newPlane(t, s, "r2")) // a restart makes no difference
				if err := replace(later); err != nil {
					t.Fatal(err)
				}
				if lives(t, s, old) {
					t.Error("the lease lives on for an hour")
				}
				if name == "registered again" {
					p.wantIDs("then", "[a1]")
				}
			})
		})
	}
}

func TestTheLeaseOfSomebodyElseIsNeverRevoked(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		theirs, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		// One wrote the key by hand; another copied what the registry had written, under the
		// lease of several keys.
		p.mustRegister(instance("a2"))
		copied, err := s.Get(t.Context(), path("a2"))
		if err != nil {
			t.Fatal(err)
		}
		txn(t, s, store.PutLeased(path("a1"), value("10.0.0.1"), theirs.ID), store.PutLeased(path("a2"), copied.Value, theirs.ID),
			store.PutLeased(path("a3"), value("10.0.0.1"), theirs.ID))
		synctest.Wait()
		for _, id := range []string{"a1", "a2"} {
			p.mustRegister(instance(id))
			p.mustAttach(instance(id))
			if _, err := p.registry.Deregister(t.Context(), key(id)); err != nil {
				t.Error(err)
			}
		}
		if !lives(t, s, theirs.ID) {
			t.Error("the lease is gone")
		}
		p.wantIDs("of that lease", "[a3]")
	})
}

func TestARefusedRegistrationLeavesNoLease(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		p.mustAttach(instance("a1"))
		for range 5 {
			if _, err := p.registry.Register(t.Context(), instance("a1")); !errors.Is(err, discovery.ErrAttached) {
				t.Error(err)
			}
		}
		if living := livingLeases(t, s); len(living) != 0 {
			t.Errorf("leases %v", living)
		}
	})
}

func TestRenewFindsWhatTheViewHasNotSeenYet(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p, behind := newPlane(t, s, "r1"), newPlane(t, s, "r2")
		p.mustRegister(instance("a1"))
		synctest.Wait()
		behind.stop()
		p.mustRegister(instance("a1")) // another lease
		p.mustRegister(instance("a2"))
		for _, id := range []string{"a1", "a2"} {
			if ttl, err := behind.registry.Renew(t.Context(), key(id)); err != nil || ttl != 30*time.Second {
				t.Errorf("%s: %v, %v", id, ttl, err)
			}
		}
	})
}

func TestRenewKeepsAlsoWhatCannotBeReadUnderItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		lease, err := s.Grant(t.Context(), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		txn(t, s, store.PutLeased(path("a1"), []byte(`garbage`), lease.ID))
		if ttl, err := p.registry.Renew(t.Context(), key("a1")); err != nil || ttl != 30*time.Second {
			t.Errorf("%v, %v", ttl, err)
		}
	})
}

func TestTheRegistryHasAnEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		all := store.Batch{ClusterID: 1, Revision: 100}
		for n := range discovery.MaxServices - 1 {
			all.Puts = append(all.Puts, store.Entry{Key: fmt.Sprintf("%sservices/default/s%d", store.Root, n), Value: []byte(`{}`)})
		}
		for n := range discovery.MaxInstancesPerService {
			all.Puts = append(all.Puts, store.Entry{Key: path(fmt.Sprintf("i%d", n)), Value: value("10.0.0.1")})
		}
		p.view.Apply(all)
		p.view.Settle()
		one := instance("one-more")
		if _, err := p.registry.Register(t.Context(), one); !errors.Is(err, discovery.ErrFull) {
			t.Errorf("another instance: %v, want ErrFull", err)
		}
		if _, err := p.registry.Attach(t.Context(), one); !errors.Is(err, discovery.ErrFull) {
			t.Errorf("another instance, attached: %v, want ErrFull", err)
		}
		one.Service = "one-more"
		if _, err := p.registry.Register(t.Context(), one); !errors.Is(err, discovery.ErrFull) {
			t.Errorf("another service: %v, want ErrFull", err)
		}
		if _, err := p.registry.Register(t.Context(), instance("i7")); err != nil {
			t.Errorf("one that is there already: %v", err)
		}
		one.Service = "s7"
		if _, err := p.registry.Register(t.Context(), one); err != nil {
			t.Errorf("the first of a known service: %v", err)
		}
	})
}

func TestAServiceRemembersABoundedNumberOfPorts(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		var err error
		refused := 0
		for n := 0; n < 200; n++ {
			i := instance("a1")
			i.Ports[0].Name = fmt.Sprintf("p%d", n)
			if _, err = p.registry.Register(t.Context(), i); errors.Is(err, discovery.ErrFull) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		got, _ := p.view.Service(orders())
		if refused != 200-128 || len(got.Ports) != 128 {
			t.Errorf("%d ports, %d refused; want 128 ports", len(got.Ports), refused)
		}
		i := instance("a1")
		i.Ports[0].Name, i.Ports[0].Number = "p0", 9999 // a name that is known
		p.mustRegister(i)
	})
}

func TestServicesThatOthersBroughtAreRecordedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		counted := &countingStore{Store: s}
		lazy := settled(newPlane(t, counted, "r2").run())
		old := fmt.Appendf(nil, `{"instance":{"address":"10.0.0.1","ports":[{"name":"http","number":8080}]}}`)
		txn(t, s, store.Put(path("a1"), old))
		txn(t, s, store.Put(path("a2"), value("10.0.0.2"))) // port 9000 is the newer
		txn(t, s, store.Put(path("a3"), old))               // and 8080 the newest
		time.Sleep(5 * time.Second)
		e, err := s.Get(t.Context(), store.Root+"services/default/orders")
		if want := `{"ports":[{"name":"http","number":8080,"protocol":"HTTP"}]}`; err != nil || string(e.Value) != want {
			t.Errorf("%s, %v; want %s", e.Value, err, want)
		}
		txn(t, s, store.Delete(path("a1")), store.Delete(path("a2")), store.Delete(path("a3")))
		synctest.Wait()
		p.wantIDs("all gone", "[]")

		// A control plane that starts reads the instances in another order than they came.
		txn(t, s, store.Put(path("a1"), value("10.0.0.1")))
		txn(t, s, store.Put(path("a0"), old))
		time.Sleep(5 * time.Second)
		lazy.stop()
		again := settled(newPlane(t, counted, "r3").run())
		time.Sleep(5 * time.Second)
		before := counted.gets()
		time.Sleep(time.Minute)
		if after := counted.gets(); after != before {
			t.Errorf("%d looks at a store in which nothing happens", after-before)
		}
		got, _ := again.view.Service(orders())
		if len(got.Ports) != 1 || got.Ports[0].GetNumber() != 8080 {
			t.Errorf("ports %v, want what was recorded last", got.Ports)
		}
	})
}

// countingStore counts the reads of keys.
type countingStore struct {
	store.Store
	mu sync.Mutex
	n  int
}

func (c *countingStore) Get(ctx context.Context, key string) (store.Entry, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Store.Get(ctx, key)
}

func (c *countingStore) gets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
