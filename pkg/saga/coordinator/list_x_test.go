package coordinator_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// counted is a store that counts what is read of it.
type counted struct {
	*memstore.Store
	gets atomic.Int64
}

func (s *counted) Get(ctx context.Context, key string) (store.Entry, error) {
	s.gets.Add(1)
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
