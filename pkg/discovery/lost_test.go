package discovery_test

import (
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// The store removes a key for whoever asks, and when its lease ends. Which of them it
// was decides whether a service that loses most of its instances is believed.
func TestOnlyInstancesThatNobodySawLeaveAreLost(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(*plane)
		lost  bool
	}{
		{"its lease ran out", func(p *plane) { p.mustRegister(withTTL(instance("a1"), 5)) }, true},
		{"its stream fell silent", func(p *plane) { p.mustAttach(instance("a1")).FellSilent() }, true},
		{"its lease ended that another program made", func(p *plane) {
			lease, err := p.raw.Grant(p.t.Context(), 5*time.Second)
			if err != nil {
				p.t.Fatal(err)
			}
			txn(p.t, p.raw, store.PutLeased(path("a1"), value("10.0.0.1"), lease.ID))
		}, true},
		{"its stream broke", func(p *plane) { p.mustAttach(instance("a1")).Broke() }, false},
		{"it said good-bye", func(p *plane) {
			if err := p.mustAttach(instance("a1")).Detach(p.t.Context()); err != nil {
				p.t.Error(err)
			}
		}, false},
		{"it was deregistered", func(p *plane) {
			p.mustRegister(withTTL(instance("a1"), 5))
			if _, err := p.registry.Deregister(p.t.Context(), key("a1")); err != nil {
				p.t.Error(err)
			}
		}, false},
		{"it was deregistered while its sidecar lives", func(p *plane) {
			p.mustAttach(instance("a1"))
			if _, err := p.registry.Deregister(p.t.Context(), key("a1")); err != nil {
				p.t.Error(err)
			}
		}, false},
		{"it drained, and its lease ran out", func(p *plane) {
			i := withTTL(instance("a1"), 5)
			i.Status = meshv1.Status_DRAINING
			p.mustRegister(i)
		}, false},
		{"it had no lease, and its key was deleted", func(p *plane) {
			txn(p.t, p.raw, store.Put(path("a1"), value("10.0.0.1")))
			txn(p.t, p.raw, store.Delete(path("a1")))
		}, false},
		{"it was replaced, and the old one's lease ended", func(p *plane) {
			p.mustRegister(withTTL(instance("a1"), 5))
			p.mustAttach(instance("a1")).Broke()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := settled(newPlane(t, s, "r1").run())
				c.leave(p)
				time.Sleep(time.Minute)
				synctest.Wait()
				p.wantIDs("in the end", "[]")
				if lost := len(p.lost()) > 0; lost != c.lost {
					t.Errorf("lost: %v", p.lost())
				}
			})
		})
	}
}

func TestInstancesWhoseControlPlaneDiedAndWhoDoNotComeBackAreLost(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p1 := settled(newPlane(t, s, "r1").run())
		p1.mustAttach(instance("a1"))
		p1.stop()
		p2 := newPlane(t, s, "r2").run()
		time.Sleep(time.Minute)
		synctest.Wait()
		p2.wantIDs("in the end", "[]")
		if lost := p2.lost(); len(lost) != 1 {
			t.Errorf("lost: %v", lost)
		}
	})
}

// A view that could not follow learns only that they are gone.
func TestInstancesThatAreMissingAfterAGapAreLost(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		for _, id := range []string{"a1", "a2"} {
			p.mustRegister(withTTL(instance(id), 60))
		}
		batch := store.Batch{ClusterID: 1, Revision: 100, Deletes: []string{path("a1"), path("a2")}, Synthetic: true,
			Puts: []store.Entry{{Key: store.Root + "departures/default/orders", Value: []byte(`{"id":"a2"}`), ModRevision: 90}}}
		if lost := p.view.Apply(batch).Lost; len(lost) != 1 || lost[0].Key.ID != "a1" {
			t.Errorf("lost %v; want the one of which nothing says that it left", lost)
		}
	})
}
