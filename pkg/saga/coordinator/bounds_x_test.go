package coordinator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// weighed remembers the largest transactions.
type weighed struct {
	slow
	ops, bytes atomic.Int64
}

func (s *weighed) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	bytes := 0
	for _, o := range t.Then {
		bytes += len(o.Key) + len(o.Value)
	}
	s.ops.Store(max(s.ops.Load(), int64(len(t.Then)-1))) // but for the number of the batch
	s.bytes.Store(max(s.bytes.Load(), int64(bytes)))
	return s.slow.Txn(ctx, t)
}

// check complains of batches that were larger than they may be.
func (s *weighed) check(t *testing.T) {
	t.Helper()
	if ops, bytes := s.ops.Load(), s.bytes.Load(); ops > journal.MaxBatchOps || bytes > journal.MaxBatchBytes {
		t.Errorf("%d operations, %d bytes", ops, bytes)
	}
}

// What the branches of one saga are called with and answer, and how it is undone, is each as long as it may be: in all, several times what a batch holds.
func TestASagaOfWhichAllIsAsLongAsItMayBeHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &weighed{slow: slow{Store: memstore.New()}}
		defer func() { _ = s.Close() }()
		calls := &callers{answer: func(_ context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "b0" && !r.Undo {
				time.Sleep(5 * time.Second)
				return saga.Outcome{Answer: saga.AnswerRefused}
			}
			return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"v":"` + strings.Repeat("x", 4000) + `","w":"` + strings.Repeat("y", 28000) + `"}`)}
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		s.pause.Store(int64(time.Second))
		headers := map[string]string{}
		for k := range saga.MaxHeaders {
			headers[fmt.Sprint("h", k)] = "${steps.a.result.v}"
		}
		d := &saga.Definition{ID: "order-1", Steps: []saga.Step{{Name: "a", After: []string{}, Action: saga.Call{Service: "a", Path: "/"}}}}
		for i := range saga.MaxSteps - 1 {
			call := saga.Call{Service: "b", Path: "/", Headers: headers, Body: json.RawMessage(`"${steps.a.result.w}"`)}
			d.Steps = append(d.Steps, saga.Step{Name: fmt.Sprint("b", i), After: []string{"a"}, Action: call, Compensate: &call})
		}
		start(t, c, d)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		v, err := c.Wait(ctx, "order-1")
		if err != nil || v.State != saga.Compensated {
			t.Fatalf("%v %v", err, v)
		}
		if made := calls.String(); strings.Count(made, "'") != saga.MaxSteps-2 || strings.Contains(made, " 2") {
			t.Error(made)
		}
		s.check(t)
	})
}

func TestWhatManyAskOfASagaAtOnceIsAllWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &weighed{slow: slow{Store: memstore.New()}}
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: func(ctx context.Context, _ *coordinator.Request) saga.Outcome {
			<-ctx.Done()
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		s.pause.Store(int64(time.Second))
		const n = 300
		errs := make(chan error, n)
		for range n {
			go func() {
				errs <- c.Do(t.Context(), "order-1", coordinator.Verb{Name: coordinator.Retry, Note: strings.Repeat("\x01", coordinator.MaxNoteBytes)})
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if verbs, err := c.Verbs(t.Context(), "order-1"); err != nil || len(verbs) != n {
			t.Error(len(verbs), err)
		}
		s.check(t)
	})
}
