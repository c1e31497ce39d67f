package coordinator_test

import (
	"context"
	"errors"
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

// sized is a store of a size.
type sized struct {
	*memstore.Store
	size atomic.Pointer[store.Size]
}

func (s *sized) Size(ctx context.Context) (store.Size, error) {
	if size := s.size.Load(); size != nil {
		return *size, nil
	}
	return s.Store.Size(ctx)
}

func TestAFullStoreTakesNoSagasAndEndsThoseItHas(t *testing.T) {
	for name, full := range map[string]store.Size{"in use": {Bytes: 60, InUse: 50, Quota: 100}, "the file": {Bytes: 80, InUse: 10, Quota: 100}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sized{Store: memstore.New()}
				defer func() { _ = s.Close() }()
				hold := make(chan struct{})
				c, stop := begin(t, s, &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
					<-hold
					return done(ctx, r)
				}}, "one")
				defer stop()
				start(t, c, define(t, "order-1"))
				s.size.Store(&full)
				time.Sleep(2 * time.Second)
				if err := c.Start(t.Context(), define(t, "order-2")); !errors.Is(err, coordinator.ErrFull) {
					t.Error(err)
				}
				start(t, c, define(t, "order-1")) // it is there
				close(hold)
				if v := wait(t, c, "order-1"); v.State != saga.Completed {
					t.Errorf("%+v", v)
				}
				s.size.Store(&store.Size{Bytes: 79, InUse: 49, Quota: 100})
				time.Sleep(2 * time.Second)
				start(t, c, define(t, "order-2"))
			})
		})
	}
}

func TestWhatWasReplacedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: done}, "one")
		defer stop()
		for i := range 100 {
			start(t, c, define(t, fmt.Sprint("order-", i)))
			wait(t, c, fmt.Sprint("order-", i))
		}
		head, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root, Revision: head.Revision - 1}); !errors.Is(err, store.ErrCompacted) {
			t.Error(err)
		}
	})
}
