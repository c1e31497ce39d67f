package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	for name, full := range map[string]store.Size{"in use": {Bytes: 60 << 20, InUse: 50 << 20, Quota: 100 << 20}, "the file": {Bytes: 80 << 20, InUse: 10 << 20, Quota: 100 << 20}} {
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
				if _, err := c.Start(t.Context(), define(t, "order-2")); !errors.Is(err, coordinator.ErrFull) {
					t.Error(err)
				}
				start(t, c, define(t, "order-1")) // it is there
				close(hold)
				if v := wait(t, c, "order-1"); v.State != saga.Completed {
					t.Errorf("%+v", v)
				}
				s.size.Store(&store.Size{Bytes: 79 << 20, InUse: 49 << 20, Quota: 100 << 20})
				time.Sleep(2 * time.Second)
				start(t, c, define(t, "order-2"))
			})
		})
	}
}

func TestAFileIsDefragmentedWhenHalfOfItIsFree(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		size  store.Size
		after time.Duration // how long it takes to be done once, and then twice
		again time.Duration
	}{
		"half is free":             {store.Size{Bytes: 100 * mib, InUse: 50 * mib, Quota: 1000 * mib}, 2 * time.Second, 10*time.Minute + 2*time.Second},
		"less than half is free":   {store.Size{Bytes: 100 * mib, InUse: 51 * mib, Quota: 1000 * mib}, 0, 0},
		"it is small":              {store.Size{Bytes: 60 * mib, InUse: 1 * mib, Quota: 1000 * mib}, 0, 0},
		"the bound is near":        {store.Size{Bytes: 70 * mib, InUse: 56 * mib, Quota: 100 * mib}, 2 * time.Second, 12 * time.Second},
		"near, and little is free": {store.Size{Bytes: 80 * mib, InUse: 70 * mib, Quota: 100 * mib}, 0, 0},
		"there is no quota":        {store.Size{Bytes: 100 * mib, InUse: 10 * mib}, 2 * time.Second, 10*time.Minute + 2*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sized{Store: memstore.New()}
				defer func() { _ = s.Close() }()
				s.size.Store(&c.size)
				var times atomic.Int32
				co := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: "one", Log: slog.New(slog.DiscardHandler), Shards: 1,
					Defragment: func(context.Context) error { times.Add(1); return errors.New("not today") }})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); _ = co.Run(ctx) }()
				defer func() { cancel(); <-ended }()
				if c.after == 0 {
					if time.Sleep(time.Hour); times.Load() != 0 {
						t.Errorf("defragmented %d times", times.Load())
					}
					return
				}
				if time.Sleep(c.after); times.Load() != 1 {
					t.Errorf("after %v: %d times", c.after, times.Load())
				}
				if time.Sleep(c.again - 5*time.Second - c.after); times.Load() != 1 {
					t.Errorf("soon: %d times", times.Load())
				}
				if time.Sleep(5 * time.Second); times.Load() != 2 {
					t.Errorf("after %v: %d times", c.again, times.Load())
				}
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
		time.Sleep(15 * time.Second)
		if _, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root, Revision: head.Revision - 1}); !errors.Is(err, store.ErrCompacted) {
			t.Error(err)
		}
	})
}

// growing is a store that grows by so much each second, until it forgets.
type growing struct {
	*memstore.Store
	bytes, quota int64
	compacted    time.Time
	compactions  int
}

func (s *growing) Size(context.Context) (store.Size, error) {
	return store.Size{InUse: s.bytes * int64(time.Since(s.compacted)/time.Second), Quota: s.quota}, nil
}

func (s *growing) Compact(ctx context.Context, revision int64) error {
	s.compactions++
	s.compacted = time.Now()
	return s.Store.Compact(ctx, revision)
}

func TestAStoreForgetsAsOftenAsItGrows(t *testing.T) {
	for name, c := range map[string]struct {
		bytes, quota int64
		least, most  int // times in a minute
	}{
		"little":             {1 << 20, 2 << 30, 5, 7},
		"much":               {16 << 20, 2 << 30, 18, 31},
		"much of its quota":  {2 << 20, 64 << 20, 28, 60},
		"much, of unbounded": {16 << 20, 0, 18, 31},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &growing{Store: memstore.New(), bytes: c.bytes, quota: c.quota, compacted: time.Now()}
				defer func() { _ = s.Close() }()
				co, stop := begin(t, s, &callers{answer: done}, "one")
				defer stop()
				for n := range 60 {
					start(t, co, define(t, fmt.Sprint("order-", n)))
					time.Sleep(time.Second)
				}
				stop()
				if s.compactions < c.least || s.compactions > c.most {
					t.Errorf("%d times in a minute, want %d to %d", s.compactions, c.least, c.most)
				}
			})
		})
	}
}

// A store is looked at once in a while: what is taken in between is not more than it has room for.
func TestAFloodDoesNotFillTheStoreBeforeItIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sized{Store: memstore.New()}
		defer func() { _ = s.Close() }()
		s.size.Store(&store.Size{Quota: 1 << 20})
		c, stop := begin(t, s, &callers{answer: done}, "one")
		defer stop()
		taken := 0
		for i := range 100 {
			d := define(t, fmt.Sprint("order-", i))
			d.Steps[1].Action.Body = json.RawMessage(`"` + strings.Repeat("x", 30_000) + `"`)
			switch _, err := c.Start(t.Context(), d); {
			case err == nil:
				taken++
			case !errors.Is(err, coordinator.ErrFull):
				t.Fatal(err)
			}
		}
		if taken < 10 || taken > 17 {
			t.Errorf("%d are taken", taken)
		}
		time.Sleep(2 * time.Second)
		start(t, c, define(t, "order-later"))
	})
}
