package mgmt_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// stream is a watch, whichever face it came by.
type stream interface {
	Recv() (*meshv1.WatchResponse, error)
}

type openWatch func(r *meshv1.WatchRequest) stream

// onBothWatches runs a test once with watches over gRPC and once with them over REST.
func onBothWatches(t *testing.T, test func(t *testing.T, w *world, watch openWatch)) {
	t.Helper()
	for name, face := range map[string]func(*world) openWatch{"grpc": watchGRPC, "rest": watchREST} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) { test(t, w, face(w)) })
		})
	}
}

func watchGRPC(w *world) openWatch {
	return func(r *meshv1.WatchRequest) stream { return w.watch(w.conn, r) }
}

func (w *world) watch(conn *grpc.ClientConn, r *meshv1.WatchRequest) stream {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s, err := meshv1.NewRegistryClient(conn).Watch(ctx, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func watchREST(w *world) openWatch {
	return func(r *meshv1.WatchRequest) stream {
		query := url.Values{}
		for name, value := range map[string]string{"namespace": r.GetNamespace(), "service": r.GetService(), "revision": r.GetRevision()} {
			if value != "" {
				query.Set(name, value)
			}
		}
		return w.watchREST("?" + query.Encode())
	}
}

func next(t *testing.T, s stream) *meshv1.WatchResponse {
	t.Helper()
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if r.GetToken() == "" || r.GetStoreRevision() == 0 {
		t.Errorf("no token or no revision in %v", r)
	}
	return r
}

// brief says what a response tells.
func brief(r *meshv1.WatchResponse) string {
	var parts []string
	if r.GetSnapshot() {
		parts = append(parts, "snapshot")
	}
	if r.GetBookmark() {
		parts = append(parts, "bookmark")
	}
	for _, s := range r.GetServices() {
		parts = append(parts, "service "+s.GetService()+"."+s.GetNamespace())
	}
	for _, i := range r.GetChanged() {
		parts = append(parts, "+"+i.GetService()+"/"+i.GetId())
	}
	for _, k := range r.GetRemoved() {
		parts = append(parts, "-"+k.GetService()+"/"+k.GetId())
	}
	return strings.Join(parts, " ")
}

func expectNext(t *testing.T, s stream, want string) *meshv1.WatchResponse {
	t.Helper()
	r := next(t, s)
	if got := brief(r); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	return r
}

func (w *world) deregister(service, id string) {
	w.t.Helper()
	if _, err := w.registry.Deregister(w.t.Context(), discovery.Key{Service: mesh.ServiceName{Name: service, Namespace: "default"}, ID: id}); err != nil {
		w.t.Fatal(err)
	}
}

func TestWatchTellsWhatThereIsAndThenEveryChange(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		w.register(instance("orders", "a"))
		s := watch(&meshv1.WatchRequest{})
		expectNext(t, s, "snapshot service orders.default +orders/a")
		w.register(instance("orders", "b"))
		w.register(instance("carts", "a"))
		w.deregister("orders", "a")
		expectNext(t, s, "+orders/b")
		expectNext(t, s, "service carts.default +carts/a")
		expectNext(t, s, "-orders/a")
	})
}

func TestWatchOfAnEmptyRegistryBeginsWithAnEmptySnapshot(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		expectNext(t, watch(&meshv1.WatchRequest{}), "snapshot")
	})
}

func TestWatchTellsARevisionWhole(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		s := watch(&meshv1.WatchRequest{})
		expectNext(t, s, "snapshot")
		value := []byte(`{"instance":{"address":"10.0.0.1","ports":[{"name":"http","number":9000}]}}`)
		const instances = store.Root + "instances/default/orders/"
		if _, err := w.store.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(instances+"a", value), store.Put(instances+"b", value)}}); err != nil {
			t.Fatal(err)
		}
		expectNext(t, s, "service orders.default +orders/a +orders/b")
		if _, err := w.store.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(instances + "a"), store.Delete(instances + "b")}}); err != nil {
			t.Fatal(err)
		}
		r := next(t, s)
		slices.SortFunc(r.GetRemoved(), func(a, b *meshv1.InstanceKey) int { return strings.Compare(a.GetId(), b.GetId()) })
		if got := brief(r); got != "-orders/a -orders/b" || r.GetRemoved()[0].GetNamespace() != "default" {
			t.Errorf("told %q", got)
		}
	})
}

func TestWatchTellsOnlyWhatItIsFor(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		shop := instance("orders", "s")
		shop.Namespace = "shop"
		w.register(instance("carts", "a"))
		w.register(instance("orders", "a"))
		w.register(shop)
		all, namespace := watch(&meshv1.WatchRequest{}), watch(&meshv1.WatchRequest{Namespace: "shop"})
		service, unknown := watch(&meshv1.WatchRequest{Service: "orders"}), watch(&meshv1.WatchRequest{Service: "nobody"})
		expectNext(t, all, "snapshot service carts.default service orders.default service orders.shop +carts/a +orders/a +orders/s")
		expectNext(t, namespace, "snapshot service orders.shop +orders/s")
		expectNext(t, service, "snapshot service orders.default +orders/a")
		expectNext(t, unknown, "snapshot")
		w.register(instance("carts", "b"))
		w.register(instance("orders", "b"))
		w.register(instance("nobody", "a"))
		expectNext(t, all, "+carts/b")
		expectNext(t, service, "+orders/b")
		expectNext(t, unknown, "service nobody.default +nobody/a")
	})
}

func TestTokenResumesWithNothingLostOrTwice(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		s := watch(&meshv1.WatchRequest{})
		tokens := []string{next(t, s).GetToken()}
		for _, id := range []string{"a", "b", "c"} {
			w.register(instance("orders", id))
			tokens = append(tokens, next(t, s).GetToken())
		}
		for told, token := range tokens {
			resumed := watch(&meshv1.WatchRequest{Revision: token})
			for _, want := range []string{"service orders.default +orders/a", "+orders/b", "+orders/c"}[told:] {
				expectNext(t, resumed, want)
			}
			// And nothing else, until time is told.
			expectNext(t, resumed, "bookmark")
		}
	})
}

func TestTokenOfElsewhereGetsASnapshot(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		w.register(instance("orders", "a"))
		own := next(t, watch(&meshv1.WatchRequest{})).GetToken()
		cut := strings.LastIndex(own, "-")
		for _, token := range []string{
			"x", "-", "0", own[:cut] + "-", own[:cut] + "-999999", own[:cut] + "--1",
			"00000000deadbeef" + own[cut:], own + "0", strings.Repeat("9", 4000),
		} {
			expectNext(t, watch(&meshv1.WatchRequest{Revision: token}), "snapshot service orders.default +orders/a")
		}
	})
}

func TestQuietWatchIsToldThatTimeWentOn(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		s := watch(&meshv1.WatchRequest{Service: "orders"})
		first := expectNext(t, s, "snapshot")
		w.register(instance("carts", "a")) // not its concern
		began := time.Now()
		later := expectNext(t, s, "bookmark")
		if took := time.Since(began); took != discovery.BookmarkInterval {
			t.Errorf("after %v", took)
		}
		if later.GetToken() == first.GetToken() || later.GetStoreRevision() <= first.GetStoreRevision() {
			t.Errorf("time stood still: %v, %v", first, later)
		}
		w.register(instance("orders", "a"))
		expectNext(t, watch(&meshv1.WatchRequest{Service: "orders", Revision: later.GetToken()}), "service orders.default +orders/a")
	})
}

func TestStoreSetBackToABackupIsToldAsANewSnapshot(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		w.register(instance("orders", "a"))
		backup := w.store.Backup()
		w.register(instance("orders", "b"))
		s := watch(&meshv1.WatchRequest{Service: "orders"})
		expectNext(t, s, "snapshot service orders.default +orders/a +orders/b")
		w.store.Restore(backup)
		for {
			if r := next(t, s); !r.GetBookmark() {
				if got := brief(r); got != "snapshot service orders.default +orders/a" {
					t.Errorf("told %q", got)
				}
				return
			}
		}
	})
}

func TestWatchEndsWithWhereToGoOn(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		s := watch(&meshv1.WatchRequest{})
		expectNext(t, s, "snapshot")
		w.register(instance("orders", "a"))
		last := next(t, s).GetToken()
		synctest.Wait() // until the server knows that it was told
		w.api.Close()
		w.rest.EndWatches()
		_, err := s.Recv()
		expectFault(t, err, codes.Unavailable, "shutting down; go on from "+last)
		// One that comes now is told the same at its end, or has not begun.
		late := watch(&meshv1.WatchRequest{Revision: last})
		if _, err = late.Recv(); err == nil {
			_, err = late.Recv()
		}
		expectFault(t, err, codes.Unavailable, "shutting down; go on from "+last)
	})
}

func TestWatchOfServicesThatCannotBeIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, err := watchGRPC(w)(&meshv1.WatchRequest{Namespace: "A", Service: "B"}).Recv()
		expectFault(t, err, codes.InvalidArgument, "the request is not valid", "namespace", "service")
	})
	synctest.Test(t, func(t *testing.T) {
		_, err := watchGRPC(newWorld(t))(&meshv1.WatchRequest{}).Recv()
		expectFault(t, err, codes.Unavailable, "has not read the store yet")
	})
}

// bulky is an instance of about 20 kB.
func bulky(id string) *meshv1.Instance {
	i := instance("orders", id)
	i.Labels = map[string]string{}
	for n := range 64 {
		i.Labels[fmt.Sprintf("%063d", n)] = strings.Repeat("v", 255)
	}
	return i
}

// ids collects what a watch tells until it ends, the last token, and how it ended.
func ids(s stream) (changed []string, token string, err error) {
	for {
		r, err := s.Recv()
		if err != nil {
			return changed, token, err
		}
		token = r.GetToken()
		for _, i := range r.GetChanged() {
			changed = append(changed, i.GetId())
		}
	}
}

// deaf is a watch of a client that has no room for what it does not read.
func (w *world) deaf() stream {
	w.t.Helper()
	return w.watch(w.dial(grpc.WithStaticStreamWindowSize(65_535), grpc.WithStaticConnWindowSize(65_535)), &meshv1.WatchRequest{})
}

func TestClientThatDoesNotReadIsClosedAndAnotherIsServed(t *testing.T) {
	const many = 40
	for name, open := range map[string]func(*world) stream{
		"grpc": (*world).deaf,
		"rest": func(w *world) stream { return w.watchREST("") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				deaf, prompt := open(w), w.watch(w.conn, &meshv1.WatchRequest{})
				first := expectNext(t, deaf, "snapshot")
				expectNext(t, prompt, "snapshot")
				var all []string
				began := time.Now()
				for n := range many {
					id := fmt.Sprint("i", n)
					w.register(bulky(id))
					if r := next(t, prompt); len(r.GetChanged()) != 1 || r.GetChanged()[0].GetId() != id {
						t.Fatalf("told %q", brief(r))
					}
					all = append(all, id)
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("the prompt one waited for %v", took)
				}
				if n := w.handlers.Load(); n != 2 {
					t.Fatalf("%d watches are served", n)
				}
				time.Sleep(11 * time.Second)
				synctest.Wait()
				if n := w.handlers.Load(); n != 1 {
					t.Errorf("%d watches are served after its time", n)
				}
				heard, token, err := ids(deaf)
				if len(heard) == many || !slices.Equal(heard, all[:len(heard)]) || err == nil {
					t.Fatalf("it heard %v and then %v", heard, err)
				}
				token = cmp.Or(token, first.GetToken())
				if name == "grpc" { // where the end has room behind what was not read
					expectFault(t, err, codes.ResourceExhausted, "the client does not read; go on from "+token)
				}
				resumed := w.watch(w.conn, &meshv1.WatchRequest{Revision: token})
				for _, want := range all[len(heard):] {
					if r := next(t, resumed); len(r.GetChanged()) != 1 || r.GetChanged()[0].GetId() != want {
						t.Fatalf("resumed, it is told %q, want %s", brief(r), want)
					}
				}
			})
		})
	}
}

func TestClientThatReadsSlowlyButReadsIsServed(t *testing.T) {
	onBothWatches(t, func(t *testing.T, w *world, watch openWatch) {
		s := watch(&meshv1.WatchRequest{})
		want := map[string]bool{}
		for n := range 30 {
			id := fmt.Sprint("i", n)
			w.register(bulky(id))
			want[id] = true
		}
		got := map[string]bool{}
		for len(got) < len(want) {
			time.Sleep(3 * time.Second)
			for _, i := range next(t, s).GetChanged() {
				got[i.GetId()] = true
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("it heard %v", got)
		}
	})
}

func TestClientThatDoesNotReadDoesNotHoldUpTheClosing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		deaf := w.deaf()
		for n := range 30 {
			w.register(bulky(fmt.Sprint("i", n)))
		}
		synctest.Wait()
		w.api.Close()
		synctest.Wait()
		if n := w.handlers.Load(); n != 0 {
			t.Errorf("%d watches are still served", n)
		}
		_, token, err := ids(deaf)
		expectFault(t, err, codes.Unavailable, "shutting down; go on from "+token)
	})
}

func TestClientThatGoesEndsItsWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		conn := w.dial()
		expectNext(t, w.watch(conn, &meshv1.WatchRequest{}), "snapshot")
		overREST := w.watchREST("")
		expectNext(t, overREST, "snapshot")
		if n := w.handlers.Load(); n != 2 {
			t.Fatalf("%d watches are served", n)
		}
		_ = conn.Close()
		overREST.stop()
		synctest.Wait()
		if n := w.handlers.Load(); n != 0 {
			t.Errorf("%d watches are still served", n)
		}
	})
}
