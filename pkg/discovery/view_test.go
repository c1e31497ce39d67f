package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestAViewKnowsNothingBeforeTheFirstSnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		s.SetDown(true)
		p := newPlane(t, s, "r1")
		time.Sleep(time.Minute)
		if _, synced := p.view.Revision(); synced {
			t.Error("synced with a store that was never there")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if e, err := p.view.Watch(discovery.Filter{}, "").Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a watcher is told %+v, %v; want nothing", e, err)
		}
		s.SetDown(false)
		time.Sleep(time.Minute)
		if _, synced := p.view.Revision(); !synced {
			t.Error("not synced with an empty store")
		}
	})
}

func TestAnInstanceThatSomebodyWritesByHandIsThere(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		lease, err := s.Grant(t.Context(), 30*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		txn(t, s, store.PutLeased(path("a1"), value("10.0.0.1"), lease.ID))
		synctest.Wait()
		r, ok := p.view.Instance(key("a1"))
		if !ok || r.Instance.GetAddress() != "10.0.0.1" || r.Lease != lease.ID {
			t.Fatalf("%+v, %t", r, ok)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		p.wantIDs("when the lease has expired", "[]")
	})
}

func TestAValueThatCannotBeReadLeavesTheInstanceAsItWas(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		txn(t, s, store.Put(path("a1"), value("10.0.0.1")))
		txn(t, s, store.Put(path("a1"), []byte(`{"instance":{"id":"a2"}}`)), store.Put(path("b"), []byte(`{}`)))
		txn(t, s, store.Put(store.Root+"services/default/orders", []byte(`[]`)))
		synctest.Wait()
		if r, ok := p.view.Instance(key("a1")); !ok || r.Instance.GetAddress() != "10.0.0.1" {
			t.Errorf("%+v, %t; want the last good one", r, ok)
		}
		p.wantIDs("with a bad value beside", "[a1]")
		faulty := p.view.Faulty()
		for _, k := range []string{path("a1"), path("b"), store.Root + "services/default/orders"} {
			if faulty[k] == "" {
				t.Errorf("%s is not listed as faulty: %v", k, faulty)
			}
		}
		txn(t, s, store.Put(path("a1"), value("10.0.0.2")), store.Delete(path("b")))
		txn(t, s, store.Put(store.Root+"services/default/orders", []byte(`{}`)))
		synctest.Wait()
		if r, _ := p.view.Instance(key("a1")); r.Instance.GetAddress() != "10.0.0.2" || len(p.view.Faulty()) != 0 {
			t.Errorf("mended, but %v, faulty %v", r.Instance, p.view.Faulty())
		}
		txn(t, s, store.Put(path("a1"), nil))
		txn(t, s, store.Delete(path("a1")))
		synctest.Wait()
		p.wantIDs("when the key with a bad value is gone", "[]")
	})
}

func TestAHandwrittenIdentityOfAnotherTrustDomainIsSetAsideAsTheAPIWouldRefuseIt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		of := func(domain string) []byte {
			return fmt.Appendf(nil, `{"instance":{"address":"10.0.0.1","ports":[{"number":9000}],"registeredAt":"1999-01-01T00:00:00Z",
				"identity":"spiffe://%s/ns/default/sa/orders"}}`, domain)
		}
		txn(t, s, store.Put(path("a1"), of("evil.example")), store.Put(path("a2"), of("mesh")))
		synctest.Wait()
		p.wantIDs("with a stranger among them", "[a2]")
		if why := p.view.Faulty()[path("a1")]; !strings.Contains(why, "identity") || !strings.HasSuffix(why, "is not of the trust domain mesh") {
			t.Errorf("set aside because %q", why)
		}
		// What the registry reads by itself is set aside, too: there is nothing to succeed.
		if again := p.mustRegister(withTTL(instance("a1"), 10)); again.GetRegisteredAt().AsTime().Year() == 1999 || len(p.view.Faulty()) != 0 {
			t.Errorf("registered over it: %v, faulty %v", again, p.view.Faulty())
		}
		anywhere := discovery.NewView(discard(), "")
		anywhere.Apply(store.Batch{Revision: 2, Puts: []store.Entry{{Key: path("a1"), Value: of("evil.example")}}})
		if _, ok := anywhere.Instance(key("a1")); !ok {
			t.Errorf("a view of no trust domain sets it aside: %v", anywhere.Faulty())
		}
	})
}

func TestApplyTellsWhichServicesChanged(t *testing.T) {
	v := discovery.NewView(discard(), "")
	put := func(k, value string) store.Entry { return store.Entry{Key: store.Root + k, Value: []byte(value)} }
	good := string(value("10.0.0.1"))
	for n, c := range []struct {
		batch store.Batch
		want  string
	}{
		{store.Batch{Puts: []store.Entry{put("instances/default/b/x", good), put("instances/default/a/x", good), put("services/alpha/c", `{}`)}}, "[c.alpha a.default b.default]"},
		{store.Batch{Puts: []store.Entry{put("policies/default/a", `{}`), put("replicas/r1", `{}`)}}, "[]"},
		{store.Batch{Puts: []store.Entry{put("instances/default/a/x", `{}`)}}, "[]"},
		{store.Batch{Deletes: []string{store.Root + "instances/default/a/never", store.Root + "instances/default/never/x", store.Root + "instances/x"}}, "[]"},
		{store.Batch{Deletes: []string{store.Root + "instances/default/a/x"}}, "[a.default]"},
		{store.Batch{Deletes: []string{store.Root + "services/default/a", store.Root + "services/default/never", store.Root + "services//b"}}, "[a.default]"},
	} {
		c.batch.Revision = int64(n + 2)
		if got := fmt.Sprint(v.Apply(c.batch).Services); got != c.want {
			t.Errorf("batch %d: %s, want %s", n, got, c.want)
		}
	}
}

func TestAServiceOutlivesItsInstancesAndRemembersTheirPorts(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1")
		if _, ok := p.view.Service(orders()); ok {
			t.Error("known before it was ever there")
		}
		p.mustRegister(withTTL(instance("a1"), 5))
		time.Sleep(6 * time.Second)
		synctest.Wait()
		check := func(when string, v *discovery.View) {
			t.Helper()
			got, ok := v.Service(orders())
			if !ok || len(got.Instances) != 0 || len(got.Ports) != 1 || got.Ports[0].GetNumber() != 9000 || got.Ports[0].GetName() != "http" {
				t.Errorf("%s: %+v, %t; want a service with its port and without instances", when, got, ok)
			}
		}
		check("all gone", p.view)
		check("seen by a control plane that never saw an instance", settled(newPlane(t, s, "r2")).view)
		all, _ := p.view.Services("default")
		if others, _ := p.view.Services("other"); len(all) != 1 || len(others) != 0 {
			t.Errorf("%d services of default, %d of other; want 1 and none", len(all), len(others))
		}
		txn(t, s, store.Delete(store.Root+"services/default/orders"))
		synctest.Wait()
		p.wantIDs("an operator has deleted the service", "unknown")
	})
}

// settled waits until a plane has followed.
func settled(p *plane) *plane {
	synctest.Wait()
	return p
}

func TestServicesAreSortedAndTheirInstancesToo(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		for _, k := range []string{"b/y/2", "b/y/1", "b/x/1", "a/z/1"} {
			txn(t, s, store.Put(store.Root+"instances/"+k, value("10.0.0.1")))
		}
		p := settled(newPlane(t, s, "r1"))
		all, revision := p.view.Services("")
		var got []string
		for _, service := range all {
			for _, r := range service.Instances {
				got = append(got, service.Name.String()+" "+r.Key.ID)
			}
		}
		if want := []string{"z.a 1", "x.b 1", "y.b 1", "y.b 2"}; !slices.Equal(got, want) || revision != 5 {
			t.Errorf("%q at %d, want %q at 5", got, revision, want)
		}
	})
}

func TestAwaitWaitsUntilAChangeIsInForceNotOnlySeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := discovery.NewView(discard(), "")
		v.Apply(store.Batch{Revision: 5})
		ended := make(chan error)
		go func() { ended <- v.Await(t.Context(), 5) }()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("returned %v before Settle", err)
		default:
		}
		v.Settle()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := v.Await(ctx, 5); err != nil {
			t.Errorf("what is in force needs no time: %v", err)
		}
		if err := v.Await(ctx, 6); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's error", err)
		}
	})
}

func TestAStoreThatIsGoneChangesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := newPlane(t, s, "r1").run()
		p.mustAttach(instance("a1"))
		s.SetDown(true)
		time.Sleep(time.Hour)
		p.wantIDs("after an hour's outage", "[a1]")
		s.SetDown(false)
		time.Sleep(time.Minute)
		p.wantIDs("after it", "[a1]")
	})
}

func TestTheRevisionOfAServiceIsThatOfItsNewestInstanceAfterARestartToo(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		var newest int64
		for _, id := range []string{"z", "a"} { // the newest is the first in a listing
			newest = p.mustRegister(withTTL(instance(id), 60)).GetRevision()
		}
		fresh := discovery.NewView(discard(), "")
		page, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root})
		if err != nil {
			t.Fatal(err)
		}
		fresh.Apply(store.Batch{Revision: page.Revision, Puts: page.Entries, Synthetic: true})
		for when, v := range map[string]*discovery.View{"following": p.view, "from a listing": fresh} {
			if got, _ := v.Service(orders()); got.Revision != newest {
				t.Errorf("%s: revision %d, want %d", when, got.Revision, newest)
			}
		}
	})
}
