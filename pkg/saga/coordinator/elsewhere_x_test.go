package coordinator_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestWhoOwnsAShardIsKnownToTheOthersForAsLongAsItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		run := func(name string) (*coordinator.Coordinator, func()) {
			c := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: name, Addr: name + ":1", Shards: 2, Log: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = c.Run(ctx) }()
			synctest.Wait()
			return c, func() { cancel(); <-ended }
		}
		one, stopOne := run("one")
		two, stopTwo := run("two")
		start(t, one, define(t, "order-1"))
		wait(t, one, "order-1")

		elsewhere := func(err error) *coordinator.ElsewhereError {
			t.Helper()
			var e *coordinator.ElsewhereError
			if !errors.As(err, &e) || !errors.Is(err, coordinator.ErrNotOwner) || e.Owner != (journal.Owner{Name: "one", Addr: "one:1"}) {
				t.Fatal(err)
			}
			return e
		}
		begun := time.Now()
		e := elsewhere(second(two.Start(t.Context(), define(t, "order-2"))))
		_ = elsewhere(two.Do(t.Context(), "order-1", coordinator.Verb{Name: "retry"}))
		_ = elsewhere(second(two.Wait(t.Context(), "order-1")))
		_, _, err := two.List(t.Context(), coordinator.Query{})
		_ = elsewhere(err)
		places, err := two.Places(t.Context())
		if err != nil || len(places) != 2 || places[0].Owner.Addr != "one:1" {
			t.Error(places, err)
		}
		if places, err = one.Places(t.Context()); err != nil || places[0] != nil || places[1] != nil {
			t.Error(places, err)
		}
		if time.Since(begun) != 0 {
			t.Error("what is known was waited for")
		}
		if v, err := two.Get(t.Context(), "order-1"); err != nil || v.State != "completed" {
			t.Error("what is durable is not read", v, err)
		}

		stopOne()
		<-e.Over()
		synctest.Wait()
		start(t, two, define(t, "order-2"))
		if page, more, err := two.List(t.Context(), coordinator.Query{}); err != nil || more || len(page) != 2 {
			t.Error(page, more, err)
		}
		stopTwo()
		if _, _, err := two.List(t.Context(), coordinator.Query{}); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Error("a list without the sagas of shards that have no owner:", err)
		}
		if _, err := two.Places(t.Context()); !errors.Is(err, coordinator.ErrNotOwner) {
			t.Error(err)
		}
	})
}

func TestAnOwnerThatDoesNotSayWhereItIsReachedIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		for _, shard := range []int{0, 1} { // as it once was written
			if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(journal.OwnerKey(shard), []byte("cp-old"))}}); err != nil {
				t.Fatal(err)
			}
		}
		c, stop := begin(t, s, &callers{answer: done}, "one")
		defer stop()
		if _, err := c.Start(t.Context(), define(t, "order-1")); err == nil || !strings.Contains(err.Error(), "cp-old") || !strings.Contains(err.Error(), "--saga-peer-addr") {
			t.Error(err)
		}
	})
}

// Else it would pass what it is asked on to itself, for as long as its lease from before lives.
func TestWhoIsStartedAgainDoesNotTakeItselfForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		before := journal.Owner{Name: "before", Addr: "here:1"}
		for _, shard := range []int{0, 1} {
			if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(journal.OwnerKey(shard), before.Value())}}); err != nil {
				t.Fatal(err)
			}
		}
		c := coordinator.New(coordinator.Config{Store: s, Caller: &callers{answer: done}, Name: "now", Addr: "here:1", Shards: 2, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		synctest.Wait()
		var e *coordinator.ElsewhereError
		if _, err := c.Start(t.Context(), define(t, "order-1")); !errors.Is(err, coordinator.ErrNotOwner) || errors.As(err, &e) {
			t.Error(err)
		}
	})
}

// One that slept finds its shards as it left them.
func TestWhoHasSleptDoesNotSayWhatOthersKnowBetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, &callers{answer: done}, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		wait(t, c, "order-1")
		for _, shard := range []int{0, 1} {
			if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(journal.OwnerKey(shard))}}); err != nil {
				t.Fatal(err)
			}
		}
		_, _, listed := c.List(t.Context(), coordinator.Query{})
		_, waited := c.Wait(t.Context(), "order-2")
		for _, err := range []error{
			listed, waited, c.Do(t.Context(), "order-2", coordinator.Verb{Name: coordinator.Retry}), c.Do(t.Context(), "order-1", coordinator.Verb{Name: coordinator.Retry}),
		} {
			if !errors.Is(err, coordinator.ErrNotOwner) {
				t.Error(err)
			}
		}
	})
}
