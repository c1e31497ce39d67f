package coordinator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestTheFenceOfASuccessorIsHigherAndTheKeyTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var mu sync.Mutex
		var made []coordinator.Request
		calls := &callers{answer: func(_ context.Context, r *coordinator.Request) saga.Outcome {
			mu.Lock()
			defer mu.Unlock()
			made = append(made, *r)
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}
		c, stop := begin(t, s, calls, "one")
		d := define(t, "order-1")
		d.Steps[0].Retry = saga.Retry{Attempts: 1000, Backoff: saga.Duration(time.Hour), Max: saga.Duration(time.Hour)}
		start(t, c, d)
		time.Sleep(time.Second)
		stop()
		_, stop = begin(t, s, calls, "two")
		defer stop()
		time.Sleep(2 * time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if len(made) < 2 || made[0].Key != "order-1/a/action" || made[1].Key != made[0].Key || made[1].Fence <= made[0].Fence || made[1].Attempt != 2 {
			t.Errorf("%+v", made)
		}
	})
}

func TestACallHasItsStepsTimeAndASagaItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		begun := time.Now()
		var took atomic.Int64
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Undo {
				return done(ctx, r)
			}
			<-ctx.Done()
			took.Store(int64(time.Since(begun)))
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		d := define(t, "order-1")
		d.Deadline, d.Steps[0].Timeout = saga.Duration(time.Minute), saga.Duration(7*time.Second)
		d.Steps[0].Retry = saga.Retry{Attempts: 1000, Backoff: saga.Duration(time.Hour), Max: saga.Duration(time.Hour)}
		start(t, c, d)
		if v := wait(t, c, "order-1"); v.State != saga.Compensated || time.Since(begun) < time.Minute || time.Since(begun) > 90*time.Second {
			t.Errorf("%v behind %v", v.State, time.Since(begun))
		}
		if took := time.Duration(took.Load()); took != 7*time.Second && calls.String() == "a 1, a' 1" {
			t.Errorf("%v: %v", calls, took)
		}
	})
}

func TestPausesOfManySagasDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var mu sync.Mutex
		begun, again := time.Now(), map[time.Duration]bool{}
		calls := &callers{answer: func(_ context.Context, r *coordinator.Request) saga.Outcome {
			mu.Lock()
			defer mu.Unlock()
			if r.Attempt == 2 {
				again[time.Since(begun).Truncate(time.Minute)] = true
			}
			return saga.Outcome{Answer: saga.AnswerNotRun}
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		for i := range 100 {
			d := define(t, fmt.Sprint("order-", i))
			d.Steps[0].Retry = saga.Retry{Attempts: 2, Backoff: saga.Duration(time.Hour), Max: saga.Duration(time.Hour)}
			start(t, c, d)
		}
		time.Sleep(time.Hour + time.Minute)
		stop()
		mu.Lock()
		defer mu.Unlock()
		if len(again) < 30 { // of 60
			t.Error(again)
		}
	})
}

func TestAResultThatIsTooLongIsDroppedAndTheStepDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		calls := &callers{answer: func(context.Context, *coordinator.Request) saga.Outcome {
			return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`"` + strings.Repeat("x", saga.MaxResultBytes) + `"`)}
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		d := define(t, "order-1")
		d.Steps = d.Steps[:1]
		start(t, c, d)
		if v := wait(t, c, "order-1"); v.State != saga.Completed || len(v.Results) != 0 {
			t.Errorf("%v %d", v.State, len(v.Results))
		}
	})
}
