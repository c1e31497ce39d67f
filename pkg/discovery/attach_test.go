package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestAnAttachedInstanceNeedsNoHeartbeat(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		a := p.mustAttach(withTTL(instance("a1"), 5))
		if a.Instance().GetTtl() != nil || a.Instance().GetRevision() == 0 || leaseOf(t, s, "a1") != 0 {
			t.Errorf("attached as %v", a.Instance())
		}
		before, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		after, err := s.Head(t.Context())
		if err != nil || after != before {
			t.Errorf("%d writes in a day in which nothing happened, %v", after.Revision-before.Revision, err)
		}
		p.wantIDs("a day later", "[a1]")
	})
}

func TestAStatusIsInForceWhenSetStatusReturnsAndIsWrittenOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		a := p.mustAttach(instance("a1"))
		for range 3 {
			if err := a.SetStatus(t.Context(), meshv1.Status_UNHEALTHY); err != nil {
				t.Fatal(err)
			}
			r, _ := p.view.Instance(key("a1"))
			if r.Instance.GetStatus() != meshv1.Status_UNHEALTHY || r.Revision != 3 || a.Instance().GetRevision() != 3 {
				t.Fatalf("%v in force; want unhealthy since revision 3", r.Instance)
			}
		}
	})
}

func TestALostInstanceIsRemovedAfterASecond(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		p.mustAttach(instance("a1")).Broke()
		time.Sleep(time.Second - 1)
		synctest.Wait()
		p.wantIDs("within the grace", "[a1]")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		p.wantIDs("after it", "[]")
	})
}

func TestALostInstanceIsRemovedAsSoonAsTheStoreIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		a := p.mustAttach(instance("a1"))
		s.SetDown(true)
		a.Broke()
		time.Sleep(time.Hour)
		p.wantIDs("while the store is gone", "[a1]")
		s.SetDown(false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		p.wantIDs("when it is back", "[]")
	})
}

func TestAnOldStreamCannotTouchWhatANewOneAttached(t *testing.T) {
	for name, between := range map[string]func(*plane){
		"at once":                 func(*plane) {},
		"after it was removed":    func(p *plane) { _, _ = p.registry.Deregister(context.Background(), key("a1")) },
		"after a life by a lease": func(p *plane) { txn(p.t, p.raw, store.Put(path("a1"), value("10.0.0.1"))) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := settled(newPlane(t, s, "r1").run())
				old := p.mustAttach(instance("a1"))
				between(p)
				current := p.mustAttach(instance("a1"))
				if err := old.SetStatus(t.Context(), meshv1.Status_DRAINING); !errors.Is(err, discovery.ErrReplaced) {
					t.Errorf("the old stream's status: %v, want ErrReplaced", err)
				}
				if err := old.Detach(t.Context()); err != nil {
					t.Errorf("the old stream's good-bye: %v", err)
				}
				old.Broke()
				time.Sleep(time.Minute)
				synctest.Wait()
				p.wantIDs("after the old stream's end", "[a1]")
				if r, _ := p.view.Instance(key("a1")); r.Instance.GetStatus() != meshv1.Status_STATUS_UNSPECIFIED {
					t.Errorf("status %v", r.Instance.GetStatus())
				}
				if err := current.Detach(t.Context()); err != nil {
					t.Error(err)
				}
				p.wantIDs("after the new stream's good-bye", "[]")
			})
		})
	}
}

func TestAnInstanceThatComesBackToAnotherReplicaStays(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p1, p2 := newPlane(t, s, "r1").run(), settled(newPlane(t, s, "r2").run())
		old := p1.mustAttach(instance("a1"))
		old.Broke()
		time.Sleep(900 * time.Millisecond)
		p2.mustAttach(instance("a1"))
		time.Sleep(time.Minute)
		p1.wantIDs("the first replica", "[a1]")
		p2.wantIDs("the second replica", "[a1]")
	})
}

func TestNothingIsRemovedBecauseTheRegistryStops(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		a, b := p.mustAttach(instance("a1")), p.mustAttach(instance("a2"))
		a.Broke()
		time.Sleep(500 * time.Millisecond)
		p.stop() // waits for the grace to be given up
		b.Broke()
		time.Sleep(time.Minute)
		for _, id := range []string{"a1", "a2"} {
			if _, err := s.Get(t.Context(), path(id)); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestStreamsMayBreakWhileTheRegistryStops(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		a := p.mustAttach(instance("a1"))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 {
				a.Broke()
			}
		}()
		p.stop()
		<-done
	})
}

func TestAnAttachmentThatNobodyHoldsIsRemoved(t *testing.T) {
	t.Run("written, but not known to be", func(t *testing.T) {
		inBubble(t, func(t *testing.T, s *memstore.Store) {
			deaf := &deafAfterTxn{Store: s}
			p := settled(newPlane(t, deaf, "r1"))
			if a, err := p.registry.Attach(t.Context(), instance("a1")); !errors.Is(err, store.ErrUnknownOutcome) || a != nil {
				t.Fatalf("%v, %v; want ErrUnknownOutcome", a, err)
			}
			synctest.Wait()
			p.wantIDs("meanwhile", "[a1]")
			deaf.hear()
			time.Sleep(2 * time.Second)
			deaf.hear() // of the removal, too
			time.Sleep(10 * time.Second)
			p.wantIDs("then", "[]")
		})
	})
	t.Run("written, but the stream broke before it was in force", func(t *testing.T) {
		inBubble(t, func(t *testing.T, s *memstore.Store) {
			p := settled(newPlane(t, s, "r1").run())
			s.StallWatches(true)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			if a, err := p.registry.Attach(ctx, instance("a1")); !errors.Is(err, context.DeadlineExceeded) || a != nil {
				t.Fatalf("%v, %v; want the context's error", a, err)
			}
			s.StallWatches(false)
			time.Sleep(time.Minute)
			p.wantIDs("then", "[]")
		})
	})
}

func TestOrphansHaveTenSecondsToComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		p.mustAttach(instance("a1"))
		p.mustAttach(instance("a2"))
		p.stop() // and its key is gone at once

		next := settled(newPlane(t, s, "r1-again").run())
		time.Sleep(5 * time.Second)
		next.mustAttach(instance("a1"))
		time.Sleep(4900 * time.Millisecond)
		next.wantIDs("within the grace", "[a1 a2]")
		time.Sleep(1200 * time.Millisecond) // looked for every second
		synctest.Wait()
		next.wantIDs("after it", "[a1]")
		time.Sleep(time.Hour)
		next.wantIDs("later", "[a1]")
	})
}

func TestOrphansOfAReplicaThatDiedWithoutAWordWaitForItsKeyFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		lease, err := s.Grant(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		txn(t, s, store.PutLeased(store.Root+"replicas/dead", []byte(`{}`), lease.ID),
			store.Put(path("a1"), []byte(`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]},"owner":"dead","epoch":1}`)))
		p := settled(newPlane(t, s, "r1").run())
		time.Sleep(19 * time.Second)
		p.wantIDs("10 s until the key is gone, then 9 s of grace", "[a1]")
		time.Sleep(3 * time.Second)
		p.wantIDs("after both", "[]")
	})
}

func TestWhoeverAttachedAnOrphanAndDiedTooHasAGraceOfItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		const owned = `{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]},"owner":%q,"epoch":1}`
		p := settled(newPlane(t, s, "r1").run())
		txn(t, s, store.Put(path("a1"), fmt.Appendf(nil, owned, "dead")))
		time.Sleep(9500 * time.Millisecond)
		txn(t, s, store.Put(path("a1"), fmt.Appendf(nil, owned, "dead-too")))
		time.Sleep(9500 * time.Millisecond)
		p.wantIDs("within the second's grace", "[a1]")
		time.Sleep(3 * time.Second)
		p.wantIDs("after it", "[]")
	})
}

func TestAReplicaWhoseLeaseWasLostMakesAnotherAndKeepsItsInstances(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		p.mustAttach(instance("a1"))
		s.SetDown(true)
		time.Sleep(time.Minute) // the lease expires
		s.SetDown(false)
		time.Sleep(15 * time.Second)
		if _, err := s.Get(t.Context(), store.Root+"replicas/r1"); err != nil {
			t.Errorf("the replica's key: %v", err)
		}
		p.wantIDs("its own instance", "[a1]")
		p.stop()
		if _, err := s.Get(t.Context(), store.Root+"replicas/r1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the key of a replica that stopped: %v, want it gone", err)
		}
	})
}

func TestAWriterWhoNeverWinsGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, &rival{s}, "r1"))
		if _, err := p.registry.Register(t.Context(), instance("a1")); err == nil {
			t.Error("registered, though another always came first")
		}
		if living := livingLeases(t, s); len(living) != 0 {
			t.Errorf("leases %v of a registration that failed", living)
		}
	})
}

// rival writes before every transaction.
type rival struct{ store.Store }

func (r *rival) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	before := store.Txn{Then: []store.Op{store.Put(path("a1"), value("10.0.0.9"))}}
	if _, err := r.Store.Txn(ctx, before); err != nil {
		return store.TxnResult{}, err
	}
	return r.Store.Txn(ctx, t)
}

func replaced(a *discovery.Attachment) bool {
	synctest.Wait()
	select {
	case <-a.Replaced():
		return true
	default:
		return false
	}
}

func TestAStreamLearnsThatItKeepsNothingRegisteredAnyMore(t *testing.T) {
	for name, after := range map[string]func(p *plane){
		"it was removed":                  func(p *plane) { _, _ = p.registry.Deregister(context.Background(), key("a1")) },
		"it was written by hand":          func(p *plane) { txn(p.t, p.raw, store.Put(path("a1"), value("10.0.0.1"))) },
		"its key was deleted":             func(p *plane) { txn(p.t, p.raw, store.Delete(path("a1"))) },
		"the same sidecar made a new one": func(p *plane) { p.mustAttach(instance("a1")) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := settled(newPlane(t, s, "r1").run())
				a := p.mustAttach(instance("a1"))
				if err := a.SetStatus(t.Context(), meshv1.Status_UNHEALTHY); err != nil {
					t.Fatal(err)
				}
				if replaced(a) {
					t.Fatal("replaced by its own status")
				}
				if after(p); !replaced(a) {
					t.Error("it was not told")
				}
			})
		})
	}
}

func TestTwoSidecarsCannotGoByOneIDUntilOneIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		alive, dies := context.WithCancel(t.Context())
		first, err := p.registry.Attach(alive, instance("a1"))
		if err != nil {
			t.Fatal(err)
		}
		twin := instance("a1")
		twin.Address = "10.0.0.2"
		if _, err := p.registry.Attach(t.Context(), twin); !errors.Is(err, discovery.ErrTwin) {
			t.Errorf("the twin of one that lives: %v, want ErrTwin", err)
		}
		if replaced(first) {
			t.Error("the first lost its place")
		}
		dies()
		first.Broke()
		synctest.Wait()
		if _, err := p.registry.Attach(t.Context(), twin); err != nil {
			t.Errorf("the twin of one that died: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if r, _ := p.view.Instance(key("a1")); r == nil || r.Instance.GetAddress() != "10.0.0.2" {
			t.Errorf("registered is %v, want the one that lives", r)
		}
	})
}
