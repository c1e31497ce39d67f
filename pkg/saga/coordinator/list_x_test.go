package coordinator_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// counted is a store that counts what is read of it.
type counted struct {
	*memstore.Store
	gets  atomic.Int64
	pause time.Duration
}

func (s *counted) Get(ctx context.Context, key string) (store.Entry, error) {
	s.gets.Add(1)
	time.Sleep(s.pause)
	return s.Store.Get(ctx, key)
}

func TestWhoLooksForALabelReadsOnlyTheSagasThatHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{Store: memstore.New()}
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: done}, "one")
		for i := range 500 {
			d := define(t, fmt.Sprint("order-", i))
			d.Labels = map[string]string{"tenant": fmt.Sprint("t", i%100), "region": "north"}
			start(t, c, d)
		}
		for i := range 500 {
			wait(t, c, fmt.Sprint("order-", i))
		}
		find := func() {
			t.Helper()
			before := s.gets.Load()
			page, more, err := c.List(t.Context(), coordinator.Query{State: saga.Completed, Label: "tenant", Value: "t42"})
			if err != nil || more || len(page) != 5 || page[0].ID != "order-142" || page[4].Labels["tenant"] != "t42" {
				t.Errorf("%+v, %v, %v", page, more, err)
			}
			if gets := s.gets.Load() - before; gets != 10+2 { // and the owners of both shards
				t.Errorf("%d keys were read for 5 sagas", gets)
			}
		}
		find()
		stop()
		c, stop = begin(t, s, &callers{answer: done}, "two")
		defer stop()
		find()
	})
}

// Or else all open sagas would be in memory, with all that belongs to them, before the first goes on.
func TestWhoTakesOverCallsBeforeItHasReadAllSagas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counted{Store: memstore.New(), pause: time.Millisecond}
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: func(ctx context.Context, _ *coordinator.Request) saga.Outcome {
			<-ctx.Done()
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}}, "one")
		const n = 1000
		for i := range n {
			start(t, c, define(t, fmt.Sprint("order-", i)))
		}
		stop()
		before := s.gets.Load()
		var atFirst atomic.Int64
		c, stop = begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			atFirst.CompareAndSwap(0, s.gets.Load()-before)
			time.Sleep(time.Millisecond)
			return done(ctx, r)
		}}, "two")
		defer stop()
		for i := range n {
			if v := wait(t, c, fmt.Sprint("order-", i)); v.State != saga.Completed {
				t.Errorf("%+v", v.Progress)
			}
		}
		if read := atFirst.Load(); read == 0 || read > n/2 {
			t.Errorf("%d of %d sagas were read before the first call", read, n)
		}
	})
}
