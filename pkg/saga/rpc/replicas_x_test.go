package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// ownerOf makes somebody the owner of all shards.
func ownerOf(t *testing.T, s store.Store, o journal.Owner) {
	t.Helper()
	for shard := range shards {
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(journal.OwnerKey(shard), o.Value())}}); err != nil {
			t.Fatal(err)
		}
	}
}

// list goes through all pages of a replica.
func (r *replica) list(t *testing.T, q *sagav1.ListRequest) (ids []string) {
	t.Helper()
	for {
		page := until(t, func() (*sagav1.ListResponse, error) { return r.sagas.List(t.Context(), q) })
		for _, s := range page.GetSagas() {
			ids = append(ids, s.GetId())
		}
		if q.After = page.GetAfter(); q.GetAfter() == "" {
			return ids
		}
	}
}

func TestAnyReplicaAnswersForTheSagasOfAll(t *testing.T) {
	s := memory(t)
	f := func(ctx context.Context, q *coordinator.Request) saga.Outcome {
		if strings.HasPrefix(q.Saga, "parked") && (q.Step == "charge" || q.Undo) {
			return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
		}
		return done(ctx, q)
	}
	// Each has some shards: of those that one gives back, two waits for the first.
	one := join(t, s, "one", f)
	one.start(t, order("first"))
	two, three := join(t, s, "two", f), join(t, s, "three", f)
	all := []*replica{one, two, three}
	want := []string{"first"}
	for i := range 30 {
		id := fmt.Sprintf("order-%02d", i)
		if i%3 == 0 {
			id = "parked-" + id
		}
		want = append(want, id)
		all[i%3].start(t, order(id))
		if got := all[(i+1)%3].wait(t, id); got.GetState() != sagav1.State_COMPLETED && got.GetState() != sagav1.State_PARKED {
			t.Error(got)
		}
	}
	slices.Sort(want)
	for i, r := range all {
		for _, limit := range []int32{0, 1, 7, 31} {
			if got := r.list(t, &sagav1.ListRequest{Limit: limit}); !slices.Equal(got, want) {
				t.Errorf("%d, by %d: %v", i, limit, got)
			}
		}
		if got := r.list(t, &sagav1.ListRequest{State: sagav1.State_PARKED, Limit: 3}); len(got) != 10 {
			t.Errorf("%d: parked are %v", i, got)
		}
		if got := r.list(t, &sagav1.ListRequest{Label: "tenant", Value: "t-order-01"}); len(got) != 1 {
			t.Errorf("%d: of a tenant are %v", i, got)
		}
	}
	if two.count("List") == 0 || one.count("Start") == 0 {
		t.Error("nothing was passed on")
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/sagas", `{"id":"order-01","steps":[{"name":"a","action":{"service":"a","path":"/"}}]}`},
		{"POST", "/v1/sagas", `{"id":"order-1/","steps":[{"name":"a","action":{"service":"","path":""}}]}`},
		{"GET", "/v1/sagas/order-01", ""},
		{"GET", "/v1/sagas/none", ""},
		{"GET", "/v1/sagas/none:wait", ""},
		{"GET", "/v1/sagas/%ff:wait", ""},
		{"GET", "/v1/sagas/order-01:wait", ""},
		{"GET", "/v1/sagas?limit=3&state=completed", ""},
		{"GET", "/v1/sagas?limit=3&after=parked-order-09", ""},
		{"GET", "/v1/sagas?label=tenant%3D%ff", ""},
		{"POST", "/v1/sagas/order-01:retry", ""},
		{"POST", "/v1/sagas/none:abort", ""},
		{"POST", "/v1/sagas/%ff:abort", ""},
		{"POST", "/v1/sagas/order-01:undo", ""},
		{"POST", "/v1/sagas/parked-order-00:resolve", `{"step":"charge","as":"undone"}`},
		{"POST", "/v1/sagas/parked-order-00:resolve", `{"step":"none","as":"done"}`},
		{"POST", "/v1/sagas/parked-order-00:abort", `{"by":"ada"}`},
		{"POST", "/v1/sagas/parked-order-00:skip", fmt.Sprintf(`{"step":"charge","note":"%02000d"}`, 1)},
	} {
		status, body := one.ask(t, c.method, c.path, c.body)
		for _, r := range []*replica{two, three} {
			if got, said := r.ask(t, c.method, c.path, c.body); got != status || said != body {
				t.Errorf("%s %s: %d %s, of the owner %d %s", c.method, c.path, got, said, status, body)
			}
		}
	}
	// What a person decides.
	if code, body := two.ask(t, "POST", "/v1/sagas/parked-order-00:resolve", `{"step":"charge","as":"compensated","by":"ada"}`); code != 200 || !strings.Contains(body, `"by":"ada"`) {
		t.Error(code, body)
	}
	if code, body := three.ask(t, "POST", "/v1/sagas/parked-order-00:skip", `{"step":"reserve"}`); code != 200 {
		t.Error(code, body)
	}
	if got, err := two.sagas.Resume(t.Context(), &sagav1.ResumeRequest{Id: "parked-order-00"}); err != nil || got.GetState() != sagav1.State_COMPENSATED || len(got.GetVerbs()) != 3 {
		t.Error(got, err)
	}
}

func TestWhoWaitsHasAnAnswerThoughTheOwnerEnds(t *testing.T) {
	s := memory(t)
	hold := make(chan struct{})
	f := func(ctx context.Context, q *coordinator.Request) saga.Outcome {
		select {
		case <-hold:
			return done(ctx, q)
		case <-ctx.Done():
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}
	}
	one := join(t, s, "one", f)
	var ids []string
	for i := range 8 {
		id := fmt.Sprint("order-", i)
		one.start(t, order(id))
		ids = append(ids, id)
	}
	two, three := join(t, s, "two", f), join(t, s, "three", f)
	var all sync.WaitGroup
	for _, id := range ids {
		for _, r := range []*replica{two, three} {
			all.Go(func() {
				if got, err := r.sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: id}); err != nil || got.GetState() != sagav1.State_COMPLETED {
					t.Error(got, err)
				}
			})
		}
	}
	for one.count("Wait") < 2*len(ids) {
		time.Sleep(time.Millisecond)
	}
	one.stop()
	close(hold)
	all.Wait()
}

// Each takes 1,000 calls at once of a connection.
func TestThoseWhoWaitHoldUpNobody(t *testing.T) {
	s := memory(t)
	hold := make(chan struct{})
	f := func(ctx context.Context, q *coordinator.Request) saga.Outcome {
		if q.Saga == "held" {
			<-hold
		}
		return done(ctx, q)
	}
	one := join(t, s, "one", f)
	one.start(t, order("held"))
	two := join(t, s, "two", f)
	const n = 2500
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := two.replicas.Wait(t.Context(), "held"); err != nil {
				t.Error(err)
			}
		})
	}
	for one.count("Wait") < n {
		time.Sleep(time.Millisecond)
	}
	two.start(t, order("other"))
	if got := two.wait(t, "other"); got.GetState() != sagav1.State_COMPLETED {
		t.Error(got)
	}
	close(hold)
	all.Wait()
}

func TestTwoThatTakeEachOtherForTheOwnerPassNothingToAndFro(t *testing.T) {
	here, there := memory(t), memory(t)
	first, second := serve(t, here, "one", done), serve(t, there, "two", done)
	ownerOf(t, here, journal.Owner{Name: "two", Addr: second.address})
	ownerOf(t, there, journal.Owner{Name: "one", Addr: first.address})
	first.run(t)
	second.run(t)
	ask := map[string]func() error{
		"Start": func() error {
			_, err := first.sagas.Start(t.Context(), &sagav1.StartRequest{Saga: order("a")})
			return err
		},
		"List":  func() error { _, err := first.sagas.List(t.Context(), &sagav1.ListRequest{}); return err },
		"Abort": func() error { _, err := first.sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "a"}); return err },
	}
	for method, f := range ask {
		err := f()
		if status.Code(err) != codes.Unavailable || retryAfter(err) != time.Second {
			t.Error(method, err)
		}
		if n := first.count(method); n != 1 || second.count(method) == 0 {
			t.Errorf("%s came %d times to the one that was asked, and %d times to the other", method, n, second.count(method))
		}
	}
	if _, err := first.sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: "a"}); status.Code(err) != codes.NotFound {
		t.Error("there is no such saga, whoever owns its shard:", err)
	}
}

// deaf is an owner that hears what it is asked, and gives no answer.
type deaf struct {
	sagav1.UnimplementedSagasServer
	mu     sync.Mutex
	starts int
	aborts int
}

func (d *deaf) Start(context.Context, *sagav1.StartRequest) (*sagav1.Saga, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starts++
	return nil, status.Error(codes.Unavailable, "it ends")
}

func (d *deaf) Abort(context.Context, *sagav1.AbortRequest) (*sagav1.Saga, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aborts++
	return nil, status.Error(codes.Unavailable, "it ends")
}

// serveSagas serves an owner, and returns where.
func serveSagas(t *testing.T, owner sagav1.SagasServer, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	sagav1.RegisterSagasServer(server, owner)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	return l.Addr().String()
}

func TestAVerbThatMayHaveBeenDoneIsNotRepeated(t *testing.T) {
	d, s := &deaf{}, memory(t)
	ownerOf(t, s, journal.Owner{Name: "other", Addr: serveSagas(t, d, "127.0.0.1:0")})
	r := join(t, s, "one", done)
	if _, err := r.sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "a"}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "it ends") {
		t.Error(err)
	}
	if _, err := r.sagas.Start(t.Context(), &sagav1.StartRequest{Saga: order("a")}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if d.aborts != 1 || d.starts < 2 {
		t.Errorf("%d verbs, %d starts", d.aborts, d.starts)
	}
}

// silent is an owner that gives no answer, as one that is frozen.
type silent struct {
	sagav1.UnimplementedSagasServer
	asked chan string
}

func (s *silent) Start(ctx context.Context, _ *sagav1.StartRequest) (*sagav1.Saga, error) {
	s.asked <- "start"
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *silent) Wait(ctx context.Context, _ *sagav1.WaitRequest) (*sagav1.Saga, error) {
	s.asked <- "wait"
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *silent) Abort(ctx context.Context, _ *sagav1.AbortRequest) (*sagav1.Saga, error) {
	s.asked <- "abort"
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWhatAnOwnerDoesNotAnswerTheNextOneDoesUnlessItIsAVerb(t *testing.T) {
	s, frozen := memory(t), &silent{asked: make(chan string, 3)}
	before := join(t, s, "before", func(ctx context.Context, _ *coordinator.Request) saga.Outcome {
		<-ctx.Done()
		return saga.Outcome{Answer: saga.AnswerUnknown}
	})
	before.start(t, order("a"))
	before.stop()
	ownerOf(t, s, journal.Owner{Name: "frozen", Addr: serveSagas(t, frozen, "127.0.0.1:0")})
	r := join(t, s, "next", done)
	var all sync.WaitGroup
	all.Go(func() {
		if got, err := r.sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: "a"}); err != nil || got.GetState() != sagav1.State_COMPLETED {
			t.Error(got, err)
		}
	})
	all.Go(func() {
		if _, err := r.sagas.Start(t.Context(), &sagav1.StartRequest{Saga: order("b")}); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if _, err := r.sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "a"}); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
	for range 3 {
		<-frozen.asked
	}
	for shard := range shards { // its leases have ended
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(journal.OwnerKey(shard))}}); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
}

func TestAVerbThatDidNotReachTheOwnerIsRepeated(t *testing.T) {
	address := fmt.Sprint("127.0.0.1:", freeport.For(t))
	d, s := &deaf{}, memory(t)
	ownerOf(t, s, journal.Owner{Name: "other", Addr: address})
	r := join(t, s, "one", done)
	abort := func() error {
		_, err := r.sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "a"})
		return err
	}
	if err := abort(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not reached at "+address) {
		t.Error(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- abort() }()
	serveSagas(t, d, address)
	if err := <-answered; !strings.Contains(err.Error(), "it ends") || d.aborts != 1 {
		t.Error(err, d.aborts)
	}
}

func TestWhoEndsAnswersThoseWhoWaitThere(t *testing.T) {
	s := memory(t)
	one := join(t, s, "one", func(ctx context.Context, _ *coordinator.Request) saga.Outcome {
		<-ctx.Done()
		return saga.Outcome{Answer: saga.AnswerUnknown}
	})
	one.start(t, order("a"))
	one.stop()
	ownerOf(t, s, journal.Owner{Name: "gone", Addr: fmt.Sprint("127.0.0.1:", freeport.For(t))})
	two := join(t, s, "two", done)
	waiting := make(chan error, 1)
	go func() {
		_, err := two.replicas.Wait(t.Context(), "a")
		waiting <- err
	}()
	select {
	case err := <-waiting:
		t.Error("it does not wait for an owner:", err)
	case <-time.After(100 * time.Millisecond):
	}
	two.replicas.Close()
	if err := <-waiting; !errors.Is(err, coordinator.ErrNotOwner) {
		t.Error(err)
	}
}
