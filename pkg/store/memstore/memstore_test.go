package memstore_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t *testing.T) store.Store {
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) { storetest.Run(t, newStore) }

func TestMirrorContract(t *testing.T) { storetest.RunMirror(t, newStore) }

const key = store.Root + "a"

func put(value string) store.Txn { return store.Txn{Then: []store.Op{store.Put(key, []byte(value))}} }

func TestUnknownOutcomeOnRequest(t *testing.T) {
	for _, applied := range []bool{true, false} {
		s := memstore.New()
		s.FailNextTxn(applied)
		if _, err := s.Txn(t.Context(), put("1")); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("error %v, want ErrUnknownOutcome", err)
		}
		if _, err := s.Get(t.Context(), key); (err == nil) != applied {
			t.Errorf("applied %t, want %t", err == nil, applied)
		}
		if r, err := s.Txn(t.Context(), put("2")); err != nil || !r.Held {
			t.Errorf("the transaction after: %+v, %v", r, err)
		}
	}
}

func TestDownOnRequest(t *testing.T) {
	s := memstore.New()
	w, err := s.Watch(t.Context(), store.Root, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.SetDown(true)
	if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("watch: %v, want ErrUnavailable", err)
	}
	if _, err := s.Txn(t.Context(), put("1")); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("write: %v, want ErrUnavailable", err)
	}
	s.SetDown(false)
	if _, err := s.Head(t.Context()); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

func TestLeaseExpiresAtItsTTLAfterTheLastRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		l, err := s.Grant(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.PutLeased(key, nil, l.ID)}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		if _, err := s.Renew(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - 1)
		if _, err := s.Get(t.Context(), key); err != nil {
			t.Errorf("before the TTL has passed: %v", err)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after the TTL: %v, want ErrNotFound", err)
		}
	})
}

func TestKeepAliveGivesUpWhenTheTTLHasPassedUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		l, err := s.Grant(t.Context(), 9*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Second, func() { s.SetDown(true) })
		start := time.Now()
		err = store.KeepAlive(context.Background(), s, l)
		// Renewed at 0, 3, 6 and 9 s; 9 s later the lease may be gone.
		if took := time.Since(start); !errors.Is(err, store.ErrLeaseLost) || took != 18*time.Second {
			t.Errorf("%v after %v, want ErrLeaseLost after 18s", err, took)
		}
	})
}

func TestKeepAliveSurvivesAShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		l, err := s.Grant(t.Context(), 9*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Second, func() { s.SetDown(true) })
		time.AfterFunc(16*time.Second, func() { s.SetDown(false) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := store.KeepAlive(ctx, s, l); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want to end with the context", err)
		}
		if _, err := s.TimeToLive(t.Context(), l.ID); err != nil {
			t.Errorf("the lease: %v", err)
		}
	})
}
