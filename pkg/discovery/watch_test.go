package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// poll returns the next event that is there already.
func poll(t testing.TB, w *discovery.Watcher) (discovery.Event, bool) {
	t.Helper()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	e, err := w.Next(ended)
	if errors.Is(err, context.Canceled) {
		return e, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return e, true
}

// describe writes an event as a line.
func describe(e discovery.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "@%d", e.Revision)
	if e.Snapshot {
		b.WriteString(" snapshot")
	}
	if e.Bookmark {
		b.WriteString(" bookmark")
	}
	for _, r := range e.Changed {
		fmt.Fprintf(&b, " +%s/%s", r.Key.Service, r.Key.ID)
	}
	for _, k := range e.Removed {
		fmt.Fprintf(&b, " -%s/%s", k.Service, k.ID)
	}
	for _, s := range e.Services {
		fmt.Fprintf(&b, " !%s", s)
	}
	return b.String()
}

// wantNext compares the events that are there with those wanted, and returns the
// last one's token.
func wantNext(t testing.TB, w *discovery.Watcher, want ...string) (token string) {
	t.Helper()
	for _, line := range want {
		e, ok := poll(t, w)
		if got := describe(e); !ok || got != line {
			t.Fatalf("got  %q\nwant %q", got, line)
		}
		token = e.Token
	}
	if e, ok := poll(t, w); ok {
		t.Fatalf("got  %q\nwant nothing more", describe(e))
	}
	return token
}

func at(service, id string) string { return store.Root + "instances/default/" + service + "/" + id }

func TestAWatchIsASnapshotThenWholeRevisions(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		txn(t, s, store.Put(at("a", "1"), value("10.0.0.1")), store.Put(at("b", "1"), value("10.0.0.1")))
		p := settled(newPlane(t, s, "r1"))
		all := p.view.Watch(discovery.Filter{}, "")
		onlyB := p.view.Watch(discovery.Filter{Namespace: "default", Service: "b"}, "")
		other := p.view.Watch(discovery.Filter{Namespace: "other"}, "")
		wantNext(t, all, "@2 snapshot +a.default/1 +b.default/1 !a.default !b.default")
		wantNext(t, onlyB, "@2 snapshot +b.default/1 !b.default")
		wantNext(t, other, "@2 snapshot")

		txn(t, s, store.Put(at("a", "1"), value("10.0.0.2")), store.Put(at("a", "2"), value("10.0.0.2")), store.Delete(at("b", "1")))
		txn(t, s, store.Put(store.Root+"policies/default/a", nil)) // not the registry's
		txn(t, s, store.Put(store.Root+"services/other/c", []byte(`{}`)))
		synctest.Wait()
		wantNext(t, all, "@3 +a.default/1 +a.default/2 -b.default/1", "@5 !c.other")
		wantNext(t, onlyB, "@3 -b.default/1")
		wantNext(t, other, "@5 !c.other")
	})
}

func TestATokenResumesAfterTheEventThatCarriedIt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		first := wantNext(t, p.view.Watch(discovery.Filter{}, ""), "@1 snapshot")
		txn(t, s, store.Put(at("a", "1"), value("10.0.0.1")))
		synctest.Wait()
		second := wantNext(t, p.view.Watch(discovery.Filter{}, first), "@2 +a.default/1 !a.default")
		txn(t, s, store.Delete(at("a", "1")))
		synctest.Wait()
		wantNext(t, p.view.Watch(discovery.Filter{}, first), "@2 +a.default/1 !a.default", "@3 -a.default/1")
		third := wantNext(t, p.view.Watch(discovery.Filter{}, second), "@3 -a.default/1")
		wantNext(t, p.view.Watch(discovery.Filter{}, third))
		wantNext(t, p.view.Watch(discovery.Filter{Namespace: "other"}, first))
	})
}

func TestATokenIsGoodForAnotherReplicaAndAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		txn(t, s, store.Put(at("a", "1"), value("10.0.0.1")))
		other := settled(newPlane(t, s, "r1"))
		txn(t, s, store.Put(at("a", "2"), value("10.0.0.1")))
		p := settled(newPlane(t, s, "r2")) // has seen revision 3 at once
		token := wantNext(t, p.view.Watch(discovery.Filter{}, ""), "@3 snapshot +a.default/1 +a.default/2 !a.default")
		txn(t, s, store.Put(at("a", "3"), value("10.0.0.1")))
		synctest.Wait()
		wantNext(t, other.view.Watch(discovery.Filter{}, token), "@4 +a.default/3")
		restarted := settled(newPlane(t, s, "r3"))
		wantNext(t, restarted.view.Watch(discovery.Filter{}, token), "@4 +a.default/3")
	})
}

func TestATokenThatMeansNothingGetsASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		txn(t, s, store.Put(at("a", "1"), value("10.0.0.1")))
		p := settled(newPlane(t, s, "r1"))
		const snapshot = "@2 snapshot +a.default/1 !a.default"
		token := wantNext(t, p.view.Watch(discovery.Filter{}, ""), snapshot)
		cluster, sum := token[:16], token[len(token)-16:]
		wantNext(t, p.view.Watch(discovery.Filter{}, token))
		for name, token := range map[string]string{
			"too old":           cluster + "-1-" + sum,
			"from the future":   cluster + "-3-" + sum,
			"of another store":  "0000000000000001-2-" + sum,
			"of another past":   cluster + "-2-0000000000000001",
			"without a sum":     cluster + "-2",
			"no number":         cluster + "-x-" + sum,
			"negative":          cluster + "--2-" + sum,
			"beyond any number": cluster + "-99999999999999999999-" + sum,
			"spelled otherwise": cluster + "-+2-" + sum,
			"garbage":           "\xff\x00" + strings.Repeat("-", 1000),
		} {
			if e, _ := poll(t, p.view.Watch(discovery.Filter{}, token)); describe(e) != snapshot {
				t.Errorf("%s: got %q", name, describe(e))
			}
		}
	})
}

func TestNobodyIsToldBeforeAChangeIsInForce(t *testing.T) {
	v := discovery.NewView(discard(), "")
	v.Apply(store.Batch{ClusterID: 1, Revision: 2})
	v.Settle()
	w := v.Watch(discovery.Filter{}, "")
	wantNext(t, w, "@2 snapshot")
	v.Apply(store.Batch{ClusterID: 1, Revision: 3, Puts: []store.Entry{{Key: at("a", "1"), Value: value("10.0.0.1"), ModRevision: 3}}})
	wantNext(t, w)
	v.Settle()
	wantNext(t, w, "@3 +a.default/1 !a.default")
}

func TestABookmarkMovesTheTokenOn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		w := p.view.Watch(discovery.Filter{Service: "b", Namespace: "default"}, "")
		wantNext(t, w, "@1 snapshot")
		txn(t, s, store.Put(at("a", "1"), value("10.0.0.1"))) // nothing of b's
		start := time.Now()
		e, err := w.Next(t.Context())
		if err != nil || describe(e) != "@2 bookmark" || time.Since(start) != discovery.BookmarkInterval {
			t.Fatalf("%q after %v, %v; want a bookmark of 2", describe(e), time.Since(start), err)
		}
		txn(t, s, store.Put(at("b", "1"), value("10.0.0.1")))
		synctest.Wait()
		wantNext(t, p.view.Watch(discovery.Filter{}, e.Token), "@3 +b.default/1 !b.default")
		wantNext(t, w, "@3 +b.default/1 !b.default")
	})
}

// flood makes n revisions.
func flood(v *discovery.View, from int64, n int) (to int64) {
	for range n {
		from++
		v.Apply(store.Batch{ClusterID: 1, Revision: from, Puts: []store.Entry{{Key: at("a", "1"), Value: value("10.0.0.1"), ModRevision: from}}})
		v.Settle()
	}
	return from
}

func TestASlowWatcherIsToldSoAndHoldsUpNobody(t *testing.T) {
	v := discovery.NewView(discard(), "")
	v.Apply(store.Batch{ClusterID: 1, Revision: 1})
	v.Settle()
	slow, quick := v.Watch(discovery.Filter{}, ""), v.Watch(discovery.Filter{}, "")
	wantNext(t, slow, "@1 snapshot")
	wantNext(t, quick, "@1 snapshot")
	revision := flood(v, 1, 4096)
	token := ""
	for range 10 { // 4,096 behind is not too slow
		e, ok := poll(t, slow)
		if token = e.Token; !ok {
			t.Fatal("nothing")
		}
	}
	for range 2 * 4096 {
		for e, ok := poll(t, quick); ok; e, ok = poll(t, quick) {
			if e.Snapshot || len(e.Changed) != 1 {
				t.Fatalf("the quick one got %q", describe(e))
			}
		}
		revision = flood(v, revision, 1)
	}
	wantNext(t, quick, fmt.Sprintf("@%d +a.default/1", revision))

	_, err := slow.Next(t.Context())
	var tooSlow *discovery.SlowError
	if !errors.As(err, &tooSlow) || tooSlow.Token != token || !strings.Contains(err.Error(), token) {
		t.Fatalf("%v, want a SlowError with the last token %s", err, token)
	}
	wantNext(t, v.Watch(discovery.Filter{}, tooSlow.Token), fmt.Sprintf("@%d snapshot +a.default/1 !a.default", revision))
}

func TestAtTheEdgeOfTheHistoryAWatcherIsSlowOrMissesNothing(t *testing.T) {
	v := discovery.NewView(discard(), "")
	v.Apply(store.Batch{ClusterID: 1, Revision: 1})
	v.Settle()
	at := map[int64]*discovery.Watcher{}
	for revision := int64(1); revision < 4110; revision = flood(v, revision, 1) {
		if revision > 4090 {
			at[revision] = v.Watch(discovery.Filter{}, "")
			poll(t, at[revision])
		}
	}
	flood(v, 4110, 4096)
	var slow, quick int
	for revision, w := range at {
		e, err := w.Next(t.Context())
		var tooSlow *discovery.SlowError
		switch {
		case errors.As(err, &tooSlow):
			slow++
		case err != nil || e.Revision != revision+1:
			t.Errorf("after %d: %q, %v", revision, describe(e), err)
		default:
			quick++
		}
	}
	if slow == 0 || quick == 0 {
		t.Errorf("%d slow and %d not; the edge is elsewhere", slow, quick)
	}
}

func TestAWatcherWhoseServicesDoNotChangeIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := discovery.NewView(discard(), "")
		v.Apply(store.Batch{ClusterID: 1, Revision: 1})
		v.Settle()
		w := v.Watch(discovery.Filter{Namespace: "other"}, "")
		wantNext(t, w, "@1 snapshot")
		got := make(chan string)
		go func() {
			e, err := w.Next(t.Context())
			got <- fmt.Sprint(describe(e), err)
		}()
		revision := int64(1)
		for range 50 {
			revision = flood(v, revision, 200)
			synctest.Wait()
		}
		if want := fmt.Sprintf("@%d bookmark<nil>", revision); <-got != want {
			t.Errorf("want %s", want)
		}
	})
}

func TestAStoreSetBackToABackupGetsASnapshot(t *testing.T) {
	for _, since := range []int{0, 1, 20} {
		t.Run(fmt.Sprintf("%d writes since", since), func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := settled(newPlane(t, s, "r1"))
				txn(t, s, store.Put(at("a", "1"), value("10.0.0.1")))
				backup := s.Backup()
				txn(t, s, store.Put(at("a", "2"), value("10.0.0.1")))
				synctest.Wait()
				w := p.view.Watch(discovery.Filter{}, "")
				token := wantNext(t, w, "@3 snapshot +a.default/1 +a.default/2 !a.default")
				s.Restore(backup)
				want := "snapshot +a.default/1"
				for n := range since {
					txn(t, s, store.Put(at("a", fmt.Sprintf("new%02d", n)), value("10.0.0.1")))
					want += fmt.Sprintf(" +a.default/new%02d", n)
				}
				time.Sleep(time.Minute) // the mirror finds out
				want = fmt.Sprintf("@%d %s !a.default", 2+since, want)
				wantNext(t, w, want)
				// The old token names a revision that there is again, and means another state.
				wantNext(t, p.view.Watch(discovery.Filter{}, token), want)
				txn(t, s, store.Delete(at("a", "1")))
				txn(t, s, store.Delete(at("a", "none")), store.Put(at("a", "3"), value("10.0.0.1")))
				synctest.Wait()
				wantNext(t, w, fmt.Sprintf("@%d -a.default/1", 3+since), fmt.Sprintf("@%d +a.default/3", 4+since))
				if e, _ := poll(t, p.view.Watch(discovery.Filter{}, token)); !e.Snapshot {
					t.Errorf("the old token got %q later", describe(e))
				}
			})
		})
	}
}

func TestNoRevisionIsLostThatComesWhileARestoredStateIsNotInForce(t *testing.T) {
	v := discovery.NewView(discard(), "")
	v.Apply(store.Batch{ClusterID: 1, Revision: 100})
	v.Settle()
	w := v.Watch(discovery.Filter{}, "")
	wantNext(t, w, "@100 snapshot")
	v.Apply(store.Batch{ClusterID: 1, Revision: 50, Synthetic: true})
	wantNext(t, w, "@50 snapshot")
	v.Settle()
	flood(v, 50, 1)
	wantNext(t, w, "@51 +a.default/1 !a.default")
}

func TestWhatCannotBeFollowedOneByOneIsASnapshot(t *testing.T) {
	v := discovery.NewView(discard(), "")
	v.Apply(store.Batch{ClusterID: 1, Revision: 5})
	v.Settle()
	w := v.Watch(discovery.Filter{}, "")
	wantNext(t, w, "@5 snapshot")
	v.Apply(store.Batch{ClusterID: 1, Revision: 9, Synthetic: true}) // many revisions, but no change
	v.Settle()
	wantNext(t, w)
	put := []store.Entry{{Key: at("a", "1"), Value: value("10.0.0.1"), ModRevision: 12}}
	v.Apply(store.Batch{ClusterID: 1, Revision: 13, Synthetic: true, Puts: put})
	v.Settle()
	wantNext(t, w, "@13 snapshot +a.default/1 !a.default")
}

func TestAForgottenServiceIsToldByASnapshotWithoutIt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1"))
		txn(t, s, store.Put(store.Root+"services/default/a", []byte(`{}`)), store.Put(store.Root+"services/default/b", []byte(`{}`)))
		synctest.Wait()
		w := p.view.Watch(discovery.Filter{}, "")
		token := wantNext(t, w, "@2 snapshot !a.default !b.default")
		txn(t, s, store.Delete(store.Root+"services/default/a"))
		synctest.Wait()
		wantNext(t, w, "@3 snapshot !b.default")
		wantNext(t, p.view.Watch(discovery.Filter{}, token), "@3 snapshot !b.default")
	})
}
