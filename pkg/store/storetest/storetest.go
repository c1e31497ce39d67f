package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// suite is one store with a folder of its own for the test at hand.
type suite struct {
	store.Store
	prefix string
}

// Run checks that the store which newStore returns keeps the contract. The store need not be empty, and is closed by newStore's
// own cleanup.
func Run(t *testing.T, newStore func(t *testing.T) store.Store) {
	s := newStore(t)
	tests := []struct {
		name string
		test func(*testing.T, suite)
	}{
		{"get reports value and history", testGet},
		{"compares decide a transaction", testCompares},
		{"a transaction happens whole at one revision or not at all", testTxnAtomic},
		{"delete prefix deletes the folder only", testDeletePrefix},
		{"limits are enforced before sending", testLimits},
		{"the largest requests are accepted", testLargestRequests},
		{"pages at a pinned revision ignore later writes", testPinnedPages},
		{"listing the future or the forgotten is refused", testListOutside},
		{"watch delivers whole revisions in order", testWatchRevisions},
		{"watch resumes without loss or repetition", testWatchResume},
		{"watch delivers a long backlog", testWatchBacklog},
		{"watch from compacted history is refused", testWatchCompacted},
		{"watch answers progress requests in an idle store", testWatchProgress},
		{"watch ends by close and by context", testWatchEnds},
		{"revoking a lease deletes its keys at one revision", testRevoke},
		{"a lease expires unless renewed", testExpiry},
		{"keep alive reports the loss of the lease", testKeepAlive},
		{"head and size", testHeadAndSize},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.test(t, suite{s, fmt.Sprintf("%sstoretest/%02d/", store.Root, i)})
		})
	}
}

func (s suite) put(t *testing.T, name, value string) int64 {
	t.Helper()
	return s.txn(t, store.Txn{Then: []store.Op{store.Put(s.prefix+name, []byte(value))}}).Revision
}

func (s suite) txn(t *testing.T, txn store.Txn) store.TxnResult {
	t.Helper()
	r, err := s.Txn(t.Context(), txn)
	if err != nil {
		t.Fatalf("transaction: %v", err)
	}
	return r
}

func (s suite) mustGet(t *testing.T, name string) store.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), s.prefix+name)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return e
}

func (s suite) wantAbsent(t *testing.T, name string) {
	t.Helper()
	if _, err := s.Get(t.Context(), s.prefix+name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s: error %v, want ErrNotFound", name, err)
	}
}

func testGet(t *testing.T, s suite) {
	s.wantAbsent(t, "a")
	first := s.put(t, "a", "one")
	second := s.put(t, "a", "two")
	if second != first+1 {
		t.Errorf("the second write has revision %d, want %d", second, first+1)
	}
	want := store.Entry{Key: s.prefix + "a", Value: []byte("two"), CreateRevision: first, ModRevision: second, Version: 2}
	if diff := cmp.Diff(want, s.mustGet(t, "a")); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	s.txn(t, store.Txn{Then: []store.Op{store.Delete(s.prefix + "a")}})
	s.wantAbsent(t, "a")
	again := s.put(t, "a", "three")
	if e := s.mustGet(t, "a"); e.CreateRevision != again || e.Version != 1 {
		t.Errorf("after re-creation: created at %d, version %d; want %d and 1", e.CreateRevision, e.Version, again)
	}
}

func testCompares(t *testing.T, s suite) {
	created := s.put(t, "a", "old")
	modified := s.put(t, "a", "v")
	a, none := s.prefix+"a", s.prefix+"none"
	tests := []struct {
		name string
		cmp  store.Compare
		held bool
	}{
		{"absent of an absent key", store.Absent(none), true},
		{"absent of a present key", store.Absent(a), false},
		{"exists of a present key", store.Exists(a), true},
		{"exists of an absent key", store.Exists(none), false},
		{"created at its revision", store.CreatedAt(a, created), true},
		{"created at another revision", store.CreatedAt(a, modified), false},
		{"modified at its revision", store.ModifiedAt(a, modified), true},
		{"modified at another revision", store.ModifiedAt(a, created), false},
		{"modified at zero means absent", store.ModifiedAt(none, 0), true},
		{"value equal", store.ValueIs(a, []byte("v")), true},
		{"value different", store.ValueIs(a, []byte("old")), false},
		{"empty value of an absent key", store.ValueIs(none, nil), false},
	}
	for i, tt := range tests {
		probe := fmt.Sprintf("%sprobe%d", s.prefix, i)
		r := s.txn(t, store.Txn{If: []store.Compare{store.Exists(a), tt.cmp}, Then: []store.Op{store.Put(probe, nil)}})
		_, err := s.Get(t.Context(), probe)
		if r.Held != tt.held || (err == nil) != tt.held {
			t.Errorf("%s: held %t, applied %t; want %t", tt.name, r.Held, err == nil, tt.held)
		}
	}
}

func testTxnAtomic(t *testing.T, s suite) {
	s.put(t, "gone", "x")
	r := s.txn(t, store.Txn{Then: []store.Op{
		store.Put(s.prefix+"a", []byte("1")), store.Put(s.prefix+"b", []byte("2")), store.Delete(s.prefix + "gone"),
	}})
	if a, b := s.mustGet(t, "a"), s.mustGet(t, "b"); !r.Held || a.ModRevision != r.Revision || b.ModRevision != r.Revision {
		t.Errorf("held %t at %d, written at %d and %d; want all at one revision", r.Held, r.Revision, a.ModRevision, b.ModRevision)
	}
	s.wantAbsent(t, "gone")

	_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{
		store.Put(s.prefix+"c", nil), store.PutLeased(s.prefix+"d", nil, 0x7fffffff),
	}})
	if !errors.Is(err, store.ErrLeaseNotFound) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("put under a lease that is not there: %v, want ErrLeaseNotFound", err)
	}
	s.wantAbsent(t, "c")
}

func testDeletePrefix(t *testing.T, s suite) {
	for _, name := range []string{"dir/a", "dir/b", "dir", "dirx"} {
		s.put(t, name, "x")
	}
	s.txn(t, store.Txn{Then: []store.Op{store.DeletePrefix(s.prefix + "dir/")}})
	s.wantAbsent(t, "dir/a")
	s.wantAbsent(t, "dir/b")
	s.mustGet(t, "dir")
	s.mustGet(t, "dirx")
}

func testLimits(t *testing.T, s suite) {
	many := make([]store.Op, store.MaxTxnOps+1)
	for i := range many {
		many[i] = store.Put(fmt.Sprintf("%s%d", s.prefix, i), nil)
	}
	a := s.prefix + "a"
	tests := []struct {
		name string
		txn  store.Txn
		want error
	}{
		{"no operation", store.Txn{}, store.ErrInvalid},
		{"too many operations", store.Txn{Then: many}, store.ErrInvalid},
		{"too many bytes", store.Txn{Then: []store.Op{store.Put(a, make([]byte, store.MaxRequestBytes))}}, store.ErrTooLarge},
		{"a key outside the root", store.Txn{Then: []store.Op{store.Put("/other", nil)}}, store.ErrInvalid},
		{"a compare outside the root", store.Txn{If: []store.Compare{store.Absent("/x")}, Then: []store.Op{store.Delete(a)}}, store.ErrInvalid},
		{"the root itself", store.Txn{Then: []store.Op{store.Put(store.Root, nil)}}, store.ErrInvalid},
		{"a key that is too long", store.Txn{Then: []store.Op{store.Put(s.prefix+strings.Repeat("x", store.MaxKeyBytes), nil)}}, store.ErrInvalid},
		{"a key twice", store.Txn{Then: []store.Op{store.Put(a, nil), store.Put(a, nil)}}, store.ErrInvalid},
		{"a key written and deleted", store.Txn{Then: []store.Op{store.Put(a, nil), store.DeletePrefix(s.prefix)}}, store.ErrInvalid},
		{"an operation without kind", store.Txn{Then: []store.Op{{Key: a}}}, store.ErrInvalid},
	}
	for _, tt := range tests {
		if _, err := s.Txn(t.Context(), tt.txn); !errors.Is(err, tt.want) || errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := s.Grant(t.Context(), time.Millisecond); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("grant of a millisecond: %v, want ErrInvalid", err)
	}
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: "/"}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("list outside the root: %v, want ErrInvalid", err)
	}
	if _, err := s.Watch(t.Context(), "/", 0); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("watch outside the root: %v, want ErrInvalid", err)
	}
}

func testLargestRequests(t *testing.T, s suite) {
	key := s.prefix + "big"
	value := bytes.Repeat([]byte("x"), store.MaxRequestBytes-len(key)-store.RequestOverhead)
	s.txn(t, store.Txn{Then: []store.Op{store.Put(key, value)}})
	if got := s.mustGet(t, "big"); !bytes.Equal(got.Value, value) {
		t.Errorf("read back %d bytes, want %d", len(got.Value), len(value))
	}
	var most store.Txn
	for i := range store.MaxTxnOps {
		name := fmt.Sprintf("%smany/%03d", s.prefix, i)
		most.If = append(most.If, store.Absent(name))
		most.Then = append(most.Then, store.Put(name, make([]byte, 11<<10)))
	}
	if r := s.txn(t, most); !r.Held {
		t.Error("the largest number of operations: the compares did not hold")
	}
}

func testPinnedPages(t *testing.T, s suite) {
	var want []string
	for i := range 10 {
		s.put(t, fmt.Sprintf("k%d", i), "before")
		want = append(want, fmt.Sprintf("k%d=before", i))
	}
	var got []string
	r := store.ListRequest{Prefix: s.prefix, Limit: 3}
	for pages := 1; ; pages++ {
		page, err := s.List(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if r.Revision != 0 && page.Revision != r.Revision {
			t.Errorf("page %d is of revision %d, want %d", pages, page.Revision, r.Revision)
		}
		for _, e := range page.Entries {
			got = append(got, strings.TrimPrefix(e.Key, s.prefix)+"="+string(e.Value))
		}
		if !page.More {
			if pages != 4 {
				t.Errorf("%d pages, want 4", pages)
			}
			break
		}
		r.Revision, r.After = page.Revision, page.Entries[len(page.Entries)-1].Key
		s.txn(t, store.Txn{Then: []store.Op{
			store.Put(s.prefix+"k8", []byte("after")), store.Put(fmt.Sprintf("%sk3%d", s.prefix, pages), nil), store.Delete(s.prefix + "k9"),
		}})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
}

func testListOutside(t *testing.T, s suite) {
	old := s.put(t, "a", "1")
	now := s.put(t, "a", "2")
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: s.prefix, Revision: now + 1000}); !errors.Is(err, store.ErrFutureRevision) {
		t.Errorf("future revision: %v, want ErrFutureRevision", err)
	}
	if err := s.Compact(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	var compacted *store.CompactedError
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: s.prefix, Revision: old}); !errors.As(err, &compacted) || !errors.Is(err, store.ErrCompacted) {
		t.Errorf("compacted revision: %v, want a CompactedError", err)
	}
	page, err := s.List(t.Context(), store.ListRequest{Prefix: s.prefix, Revision: now})
	if err != nil || len(page.Entries) != 1 || string(page.Entries[0].Value) != "2" {
		t.Errorf("the revision compacted to: %v, %v; want it readable", page.Entries, err)
	}
	if err := s.Compact(t.Context(), old); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("compacting to the past: %v, want ErrCompacted", err)
	}
	if err := s.Compact(t.Context(), now+1000); !errors.Is(err, store.ErrFutureRevision) {
		t.Errorf("compacting to the future: %v, want ErrFutureRevision", err)
	}
}

func testHeadAndSize(t *testing.T, s suite) {
	before, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	revision := s.put(t, "a", "1")
	after, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.ClusterID == 0 || after.ClusterID != before.ClusterID || after.Revision != revision {
		t.Errorf("head went from %+v to %+v; want revision %d of the same cluster", before, after, revision)
	}
	size, err := s.Size(t.Context())
	if err != nil || size.Bytes <= 0 || size.InUse <= 0 || size.InUse > size.Bytes {
		t.Errorf("size %+v, %v; want 0 < in use <= bytes", size, err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Txn(done, store.Txn{Then: []store.Op{store.Put(s.prefix+"late", nil)}}); !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("write after the context ended: %v, want its error and a known outcome", err)
	}
}
