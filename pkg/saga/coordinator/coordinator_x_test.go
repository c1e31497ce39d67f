package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// callers answers calls by a function, and remembers them.
type callers struct {
	mu     sync.Mutex
	made   []string // "a 1", "a' 2": step, and ' for its compensation, and which attempt
	answer func(ctx context.Context, r *coordinator.Request) saga.Outcome
}

func (c *callers) Call(ctx context.Context, r *coordinator.Request) saga.Outcome {
	name := r.Step
	if r.Undo {
		name += "'"
	}
	c.mu.Lock()
	c.made = append(c.made, fmt.Sprint(name, " ", r.Attempt))
	c.mu.Unlock()
	return c.answer(ctx, r)
}

func (c *callers) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.made, ", ")
}

func done(context.Context, *coordinator.Request) saga.Outcome {
	return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"id":"r1"}`)}
}

// begin runs a coordinator until the function that it returns is called.
func begin(t *testing.T, s store.Store, c coordinator.Caller, name string) (*coordinator.Coordinator, func()) {
	t.Helper()
	co := coordinator.New(coordinator.Config{Store: s, Caller: c, Name: name, Log: slog.New(slog.DiscardHandler), Shards: 2})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = co.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	synctest.Wait()
	return co, stop
}

func define(t *testing.T, id string) *saga.Definition {
	t.Helper()
	d, err := saga.ParseDefinition(fmt.Appendf(nil, `{"id":%q,"steps":[
 {"name":"a","action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/undo/${steps.a.result.id:-none}"}},
 {"name":"b","action":{"service":"b","path":"/b/${steps.a.result.id}"},"compensate":{"service":"b","path":"/undo"}}]}`, id))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// second returns the error of what returns something with it.
func second[T any](_ T, err error) error { return err }

func start(t *testing.T, c *coordinator.Coordinator, d *saga.Definition) {
	t.Helper()
	if _, err := c.Start(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, c *coordinator.Coordinator, id string) *coordinator.View {
	t.Helper()
	if _, err := c.Wait(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	v, err := c.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASagaIsDrivenToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var paths []string
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			paths = append(paths, r.Call.Path)
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		v := wait(t, c, "order-1")
		if v.State != saga.Completed || string(v.Results["a"]) != `{"id":"r1"}` {
			t.Errorf("%+v", v)
		}
		if calls.String() != "a 1, b 1" || !slices.Equal(paths, []string{"/a", "/b/r1"}) {
			t.Error(calls, paths)
		}
	})
}

func TestWhoStartsOrWaitsIsToldWhatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		hold := make(chan struct{})
		c, stop := begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			<-hold
			return done(ctx, r)
		}}, "one")
		defer stop()
		same := func(what string, v *coordinator.View) {
			t.Helper()
			synctest.Wait()
			stored, err := c.Get(t.Context(), "order-1")
			if err != nil {
				t.Fatal(err)
			}
			if got, want := marshalled(t, v), marshalled(t, stored); got != want {
				t.Errorf("%s: %s, and stored is %s", what, got, want)
			}
		}
		v, err := c.Start(t.Context(), define(t, "order-1"))
		if err != nil || v == nil || v.Steps[0].Attempts != 1 {
			t.Fatalf("%+v %v", v, err)
		}
		same("start", v)
		again, err := c.Start(t.Context(), define(t, "order-1"))
		if err != nil || again == nil {
			t.Fatal(again, err)
		}
		same("start again", again)
		waited := make(chan *coordinator.View)
		go func() {
			v, err := c.Wait(t.Context(), "order-1")
			if err != nil {
				t.Error(err)
			}
			waited <- v
		}()
		synctest.Wait()
		close(hold)
		ended := <-waited
		if ended == nil || ended.State != saga.Completed || v.State != saga.Running {
			t.Fatalf("%+v, from %+v", ended, v)
		}
		same("wait", ended)
	})
}

func marshalled(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestARefusalUndoesWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "b" {
				return saga.Outcome{Answer: saga.AnswerRefused, Text: "409: none is left"}
			}
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		v := wait(t, c, "order-1")
		if v.State != saga.Compensated || v.Reason != "step b is refused: 409: none is left" {
			t.Errorf("%+v", v)
		}
		if calls.String() != "a 1, b 1, a' 1" {
			t.Error(calls)
		}
	})
}

func TestStartingIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		calls := &callers{answer: done}
		c, stop := begin(t, s, calls, "one")
		start(t, c, define(t, "order-1"))
		start(t, c, define(t, "order-1"))
		wait(t, c, "order-1")
		start(t, c, define(t, "order-1"))
		stop()
		c, stop = begin(t, s, calls, "two")
		defer stop()
		time.Sleep(time.Minute)
		start(t, c, define(t, "order-1"))
		if calls.String() != "a 1, b 1" {
			t.Error(calls)
		}
		other := define(t, "order-1")
		other.Steps = other.Steps[:1]
		if _, err := c.Start(t.Context(), other); !errors.Is(err, coordinator.ErrConflict) {
			t.Error(err)
		}
	})
}

func TestAnotherGoesOnWithTheSagasOfOneThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		first := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "a" {
				return done(ctx, r)
			}
			<-ctx.Done()
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}
		c, stop := begin(t, s, first, "one")
		const n = 100
		for i := range n {
			start(t, c, define(t, fmt.Sprint("order-", i)))
		}
		synctest.Wait()
		stop()
		second := &callers{answer: done}
		c, stop = begin(t, s, second, "two")
		defer stop()
		time.Sleep(time.Second)
		for i := range n {
			if v := wait(t, c, fmt.Sprint("order-", i)); v.State != saga.Completed {
				t.Errorf("%+v", v)
			}
		}
		if calls := second.String(); strings.Count(calls, "b 2") != n || strings.Contains(calls, "a") {
			t.Error(calls)
		}
	})
}

// Who compares the bodies that came with a key finds them the same.
func TestABodyIsTheSameByteByByteAfterATakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		d, err := saga.ParseDefinition([]byte(`{"id":"order-1","steps":[{"name":"a","action":{"service":"a","path":"/a"}},
 {"name":"b","after":["a"],"action":{"service":"b","path":"/b","body":{"sku":  "<&>", "n": 1.0}}},
 {"name":"c","after":["a"],"action":{"service":"c","path":"/c","body":{"sku":  "<&>", "n": "${steps.a.result}"}}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var bodies []string
		note := func(r *coordinator.Request) {
			mu.Lock()
			defer mu.Unlock()
			bodies = append(bodies, string(r.Call.Body))
		}
		c, stop := begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "a" {
				return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"<": [1.0,  2]}`)}
			}
			note(r)
			<-ctx.Done()
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}, "one")
		start(t, c, d)
		synctest.Wait()
		stop()
		c, stop = begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			note(r)
			return done(ctx, r)
		}}, "two")
		defer stop()
		wait(t, c, "order-1")
		slices.Sort(bodies)
		if want := []string{`{"sku":"<&>","n":1.0}`, `{"sku":"<&>","n":1.0}`, `{"sku":"<&>","n":{"<":[1.0,2]}}`, `{"sku":"<&>","n":{"<":[1.0,2]}}`}; !slices.Equal(bodies, want) {
			t.Errorf("%s", bodies)
		}
	})
}

func TestWhoStopsWaitsForTheCallsUnderWayAndBeginsNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		first := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			pause := time.Second
			if r.Saga == "long" {
				pause = time.Hour
			}
			select {
			case <-time.After(pause):
				return done(ctx, r)
			case <-ctx.Done():
				return saga.Outcome{Answer: saga.AnswerUnknown}
			}
		}}
		c, stop := begin(t, s, first, "one")
		start(t, c, define(t, "short"))
		start(t, c, define(t, "long"))
		synctest.Wait()
		begun := time.Now()
		go func() {
			time.Sleep(10 * time.Millisecond)
			if _, err := c.Start(t.Context(), define(t, "other")); err == nil {
				t.Error("one was started by who stops")
			}
		}()
		stop()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it stopped after %v", took)
		}
		if first.String() != "a 1, a 1" {
			t.Error(first)
		}
		second := &callers{answer: done}
		c, stop = begin(t, s, second, "two")
		defer stop()
		for _, id := range []string{"short", "long"} {
			if v := wait(t, c, id); v.State != saga.Completed {
				t.Errorf("%+v", v)
			}
		}
		if made := strings.Split(second.String(), ", "); len(made) != 3 || strings.Count(second.String(), "a 2") != 1 || strings.Count(second.String(), "b 1") != 2 {
			t.Error(made)
		}
	})
}

func TestTheCensusCountsSagasByStateForAsLongAsTheyAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		expect := func(c *coordinator.Coordinator, want coordinator.Census) {
			t.Helper()
			synctest.Wait()
			if got := c.Census(); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
		hold := make(chan struct{})
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			switch {
			case r.Step != "b":
				return done(ctx, r)
			case r.Saga == "refused":
				return saga.Outcome{Answer: saga.AnswerRefused}
			case r.Saga == "held":
				select {
				case <-hold:
				case <-ctx.Done():
					return saga.Outcome{Answer: saga.AnswerUnknown}
				}
			}
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		expect(c, coordinator.Census{Shards: 2})
		for _, id := range []string{"done", "refused", "held"} {
			start(t, c, define(t, id))
		}
		expect(c, coordinator.Census{Shards: 2, Running: 1, Completed: 1, Compensated: 1})
		stop()
		expect(c, coordinator.Census{})
		c, stop = begin(t, s, calls, "two")
		defer stop()
		expect(c, coordinator.Census{Shards: 2, Running: 1, Completed: 1, Compensated: 1})
		close(hold)
		time.Sleep(time.Minute)
		expect(c, coordinator.Census{Shards: 2, Completed: 2, Compensated: 1})
		time.Sleep(25 * time.Hour)
		expect(c, coordinator.Census{Shards: 2})
	})
}

func TestSagasAreForgottenAfterTheRetentionTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: done}, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		wait(t, c, "order-1")
		time.Sleep(23 * time.Hour)
		if _, err := c.Get(t.Context(), "order-1"); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour)
		if _, err := c.Get(t.Context(), "order-1"); !errors.Is(err, coordinator.ErrNotFound) {
			t.Error(err)
		}
		page, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root + "sagas/"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			if strings.Contains(e.Key, "order-1") {
				t.Errorf("%s is kept", e.Key)
			}
		}
	})
}

// slow is a store whose writes take a while.
type slow struct {
	*memstore.Store
	pause atomic.Int64
}

func (s *slow) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	time.Sleep(time.Duration(s.pause.Load()))
	return s.Store.Txn(ctx, t)
}

// The old one is deleted before the new one is written, for in a transaction each key is written once.
func TestAnIDMayBeTakenAgainWhileTheSagaThatHadItIsBeingForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Store: memstore.New()}
		defer func() { _ = s.Close() }()
		var log lockedbuf.Buffer
		c := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: "one", Shards: 1, Retention: 10 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		synctest.Wait()
		start(t, c, define(t, "order-1"))
		wait(t, c, "order-1")
		time.Sleep(9 * time.Second)
		s.pause.Store(int64(2 * time.Second)) // its retention time ends while something else is being written
		go func() { _, _ = c.Start(t.Context(), define(t, "order-2")) }()
		time.Sleep(1500 * time.Millisecond)
		if err := c.Do(t.Context(), "order-1", coordinator.Verb{Name: "retry"}); !errors.Is(err, coordinator.ErrNotFound) {
			t.Error(err)
		}
		other := define(t, "order-1")
		other.Steps = other.Steps[:1]
		start(t, c, other)
		s.pause.Store(0)
		if v := wait(t, c, "order-1"); v.State != saga.Completed || len(v.Steps) != 1 {
			t.Errorf("%+v", v)
		}
		if strings.Contains(log.String(), "lost") {
			t.Error(log.String())
		}
	})
}

func TestWhoIsAloneDoesNotWaitForALeaseToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		// Who was killed has left its keys behind.
		lease, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, left := range []store.Op{store.PutLeased(journal.OwnerKey(0), []byte("gone"), lease.ID), store.Put(journal.OwnerKey(1), []byte("by hand"))} {
			if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{left}}); err != nil {
				t.Fatal(err)
			}
		}
		c := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: "two", Shards: 2, Alone: true, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		synctest.Wait()
		start(t, c, define(t, "order-1"))
		if n := c.Census().Shards; n != 2 {
			t.Errorf("%d shards are owned", n)
		}
		if _, err := s.TimeToLive(t.Context(), lease.ID); !errors.Is(err, store.ErrLeaseNotFound) {
			t.Errorf("the lease of who is gone: %v", err)
		}
	})
}

// A flood of sagas calls no more at once than it may, and keeps what it has taken.
func TestAFloodIsTakenAndCalledAsFastAsItMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var now, most atomic.Int64
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(10 * time.Millisecond)
			now.Add(-1)
			return done(ctx, r)
		}}
		c := coordinator.New(coordinator.Config{Store: s, Caller: calls, Name: "one", Shards: 1, MaxCalls: 20, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		synctest.Wait()
		const n = 1000
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { start(t, c, define(t, fmt.Sprint("order-", i))) })
		}
		all.Wait()
		for i := range n {
			if v := wait(t, c, fmt.Sprint("order-", i)); v.State != saga.Completed {
				t.Errorf("%+v", v)
			}
		}
		if m := most.Load(); m > 20 || m < 10 {
			t.Errorf("%d calls were under way at once", m)
		}
	})
}

func TestWhoStopsWaitingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		hold := make(chan struct{})
		c, stop := begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			<-hold
			return done(ctx, r)
		}}, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Wait(ctx, "order-1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(hold)
		if v := wait(t, c, "order-1"); v.State != saga.Completed {
			t.Errorf("%+v", v)
		}
		if _, err := c.Wait(t.Context(), "none"); !errors.Is(err, coordinator.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestWhoAsksAtTheStartWaitsForTheShardsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		c := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: "one", Shards: 2, Log: slog.New(slog.DiscardHandler)})
		if _, err := c.Start(t.Context(), define(t, "order-1")); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Errorf("without anybody: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { time.Sleep(time.Second); defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		start(t, c, define(t, "order-1"))
	})
}
