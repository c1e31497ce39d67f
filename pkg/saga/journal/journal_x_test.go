package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

const shard = 3

// own makes somebody the owner of the shard, whoever it was before, and returns the fence.
func own(t *testing.T, s store.Store, name string) int64 {
	t.Helper()
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(journal.OwnerKey(shard))}}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Txn(t.Context(), store.Txn{If: []store.Compare{store.Absent(journal.OwnerKey(shard))}, Then: []store.Op{store.Put(journal.OwnerKey(shard), []byte(name))}})
	if err != nil || !r.Held {
		t.Fatal(r, err)
	}
	return r.Revision
}

func open(t *testing.T, s store.Store, fence int64) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), s, shard, fence)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// write commits where a saga stands: its reason says what was written.
func write(ctx context.Context, j *journal.Journal, id, reason string) error {
	b := j.NewBatch()
	b.Progress(id, journal.Head{Digest: "d"}, &saga.Progress{State: saga.Running, Reason: reason})
	return j.Commit(ctx, b)
}

// read returns the reasons of all sagas.
func read(t *testing.T, j *journal.Journal) string {
	t.Helper()
	var all []string
	if err := j.Load(t.Context(), func(id string, r journal.Record) error {
		all = append(all, id+":"+r.Reason)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestWhatIsCommittedIsRead(t *testing.T) {
	s := memstore.New()
	defer func() { _ = s.Close() }()
	j := open(t, s, own(t, s, "a"))
	d := &saga.Definition{ID: "order-1", Steps: []saga.Step{{Name: "a", Action: saga.Call{Service: "a", Path: "/"}}}}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	b := j.NewBatch()
	b.Define("order-1", text)
	b.Result("order-1", "a", json.RawMessage(`{"id":1}`))
	b.Verb("order-1", 1, []byte(`{"verb":"retry"}`))
	b.Verb("order-1", 2, []byte(`{"verb":"abort"}`))
	b.Result("order-10", "a", json.RawMessage(`2`)) // whose name begins as the other's
	if err := j.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	got, err := j.Definition(t.Context(), "order-1")
	if err != nil || got.Steps[0].Name != "a" {
		t.Error(got, err)
	}
	results, err := j.Results(t.Context(), "order-1")
	if err != nil || len(results) != 1 || string(results["a"]) != `{"id":1}` {
		t.Error(results, err)
	}
	verbs, err := j.Verbs(t.Context(), "order-1")
	if err != nil || fmt.Sprintf("%s", verbs) != `[{"verb":"retry"} {"verb":"abort"}]` {
		t.Errorf("%s %v", verbs, err)
	}

	b = j.NewBatch()
	b.Forget("order-1")
	if err := j.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Definition(t.Context(), "order-1"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if results, err := j.Results(t.Context(), "order-10"); err != nil || len(results) != 1 {
		t.Error("another saga's was forgotten", results, err)
	}
}

// History is compacted every second, and reading a shard with many sagas may take longer.
func TestAShardIsReadThoughHistoryIsCompactedMeanwhile(t *testing.T) {
	s := memstore.New()
	defer func() { _ = s.Close() }()
	j := open(t, s, own(t, s, "a"))
	const n = 3 * store.MaxPageSize
	for i := 0; i < n; {
		b := j.NewBatch()
		for ; i < n && b.Has(1, 100); i++ {
			b.Progress(fmt.Sprint("order-", i), journal.Head{}, &saga.Progress{State: saga.Running})
		}
		if err := j.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	read := map[string]bool{}
	err := j.Load(t.Context(), func(id string, _ journal.Record) error {
		read[id] = true
		if len(read)%1000 != 1 {
			return nil
		}
		r, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(store.Root+"sagas/other", nil)}})
		if err != nil {
			return err
		}
		return s.Compact(t.Context(), r.Revision)
	})
	if err != nil || len(read) != n {
		t.Error(len(read), err)
	}
}

func TestAnOwnerThatWasDeposedWritesNothing(t *testing.T) {
	s := memstore.New()
	defer func() { _ = s.Close() }()
	old := open(t, s, own(t, s, "a"))
	if err := write(t.Context(), old, "x", "by a"); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, s, own(t, s, "b"))
	if fresh.Fence() <= old.Fence() {
		t.Errorf("fence %d is not above %d", fresh.Fence(), old.Fence())
	}
	if err := write(t.Context(), old, "x", "by a again"); !errors.Is(err, journal.ErrDeposed) {
		t.Error(err)
	}
	if err := write(t.Context(), fresh, "y", "by b"); err != nil {
		t.Fatal(err)
	}
	// Now the number is one further, as if a's batch had been written.
	if err := write(t.Context(), old, "x", "by a again"); !errors.Is(err, journal.ErrDeposed) {
		t.Error(err)
	}
	if got := read(t, fresh); got != "x:by a y:by b" {
		t.Error(got)
	}
}

func TestABatchWhoseOutcomeIsUnknownIsWrittenOnce(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprint("applied ", applied), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memstore.New()
				defer func() { _ = s.Close() }()
				j := open(t, s, own(t, s, "a"))
				for n := range 3 {
					s.FailNextTxn(applied)
					if err := write(t.Context(), j, "x", fmt.Sprint(n)); err != nil {
						t.Fatal(err)
					}
				}
				e, err := s.Get(t.Context(), store.Root+"sagas/03/progress/x")
				if err != nil || e.Version != 3 || !strings.Contains(string(e.Value), `"reason":"2"`) {
					t.Errorf("%s, written %d times: %v", e.Value, e.Version, err)
				}
			})
		})
	}
}

// late is a store that applies a transaction of which it says that its outcome is unknown only when another has been applied, or
// would have been.
type late struct {
	*memstore.Store
	delayed []store.Txn
	delay   bool
}

func (l *late) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	if l.delay {
		l.delay = false
		l.delayed = append(l.delayed, t)
		return store.TxnResult{}, store.ErrUnknownOutcome
	}
	r, err := l.Store.Txn(ctx, t)
	for _, d := range l.delayed {
		if _, err := l.Store.Txn(ctx, d); err != nil {
			return r, err
		}
	}
	l.delayed = nil
	return r, err
}

func TestABatchDoesNotLandLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &late{Store: memstore.New()}
		defer func() { _ = s.Close() }()
		j := open(t, s, own(t, s, "a"))
		s.delay = true
		if err := write(t.Context(), j, "x", "1"); err != nil {
			t.Fatal(err)
		}
		if err := write(t.Context(), j, "x", "2"); err != nil {
			t.Fatal(err)
		}
		// And not behind the one who comes after it.
		ctx, cancel := context.WithCancel(t.Context())
		s.delay = true
		cancel()
		if err := write(ctx, j, "x", "3"); err == nil {
			t.Error("it was said to be written")
		}
		fresh := open(t, s, own(t, s, "b"))
		if err := write(t.Context(), fresh, "y", "by b"); err != nil {
			t.Fatal(err)
		}
		if got := read(t, fresh); got != "x:2 y:by b" {
			t.Error(got)
		}
	})
}

func TestWhatTheStoreRefusesForNowIsWrittenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		j := open(t, s, own(t, s, "a"))
		s.SetDown(true)
		done := make(chan error)
		go func() { done <- write(t.Context(), j, "x", "1") }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Error("it ended while the store was down:", err)
		default:
		}
		s.SetDown(false)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := read(t, j); got != "x:1" {
			t.Error(got)
		}
	})
}

func TestABatchIsBounded(t *testing.T) {
	s := memstore.New()
	defer func() { _ = s.Close() }()
	j := open(t, s, own(t, s, "a"))
	for name, value := range map[string][]byte{"many": []byte("1"), "large": make([]byte, saga.MaxResultBytes)} {
		b := j.NewBatch()
		for n := 0; b.Has(1, len(value)); n++ {
			b.Result(strings.Repeat("x", saga.MaxNameBytes), fmt.Sprint(n), value)
		}
		if b.Len() < 30 {
			t.Errorf("%s: %d keys", name, b.Len())
		}
		if err := j.Commit(t.Context(), b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhoOwnsAShardIsReadAlsoAsItOnceWasWritten(t *testing.T) {
	s := memstore.New()
	defer func() { _ = s.Close() }()
	if _, err := journal.ReadOwner(t.Context(), s, shard); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	now := journal.Owner{Name: "cp-b", Addr: "10.0.0.2:15010"}
	for value, want := range map[string]journal.Owner{"cp-a": {Name: "cp-a"}, string(now.Value()): now, string(journal.Owner{Name: "cp-c"}.Value()): {Name: "cp-c"}} {
		own(t, s, value)
		if got, err := journal.ReadOwner(t.Context(), s, shard); err != nil || got != want {
			t.Error(value, got, err)
		}
	}
}
