package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Recorder is a store.MirrorHandler that keeps what it was told. It is safe for concurrent use.
type Recorder struct {
	mu        sync.Mutex
	snapshots []store.Snapshot
	batches   []store.Batch // without bookmarks, unless synthetic
	state     map[string]string
	least     int
}

// Snapshot implements store.MirrorHandler.
func (r *Recorder) Snapshot(s store.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshots = append(r.snapshots, s)
	r.state = make(map[string]string)
	for _, e := range s.Entries {
		r.state[e.Key] = string(e.Value)
	}
	r.least = len(r.state)
	for _, b := range s.Since {
		r.batch(b)
	}
}

// Batch implements store.MirrorHandler.
func (r *Recorder) Batch(b store.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batch(b)
}

// batch needs r.mu.
func (r *Recorder) batch(b store.Batch) {
	if !b.Bookmark() || b.Synthetic {
		r.batches = append(r.batches, b)
	}
	for _, e := range b.Puts {
		r.state[e.Key] = string(e.Value)
	}
	for _, key := range b.Deletes {
		delete(r.state, key)
	}
	r.least = min(r.least, len(r.state))
}

// State returns the keys and values that the calls so far amount to.
func (r *Recorder) State() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state)
}

// Snapshots returns the snapshots so far.
func (r *Recorder) Snapshots() []store.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.snapshots)
}

// Batches returns the batches so far, except for bookmarks.
func (r *Recorder) Batches() []store.Batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

// Least returns the smallest number of keys that the state ever had.
func (r *Recorder) Least() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.least
}

// Interrupter is a store whose reads and watches can be cut off, so that things can happen behind a mirror's back.
type Interrupter struct {
	store.Store
	mu      sync.Mutex
	cut     bool
	cancel  map[int]context.CancelFunc // of the watches
	Watches atomic.Int64               // opened so far
}

// Cut ends all watches and makes new ones, Head and List fail until Restore.
func (i *Interrupter) Cut() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cut = true
	for _, cancel := range i.cancel {
		cancel()
	}
	i.cancel = nil
}

// Restore ends the interruption.
func (i *Interrupter) Restore() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cut = false
}

func (i *Interrupter) available() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cut {
		return fmt.Errorf("%w: cut off", store.ErrUnavailable)
	}
	return nil
}

// Head implements store.Store.
func (i *Interrupter) Head(ctx context.Context) (store.Head, error) {
	if err := i.available(); err != nil {
		return store.Head{}, err
	}
	return i.Store.Head(ctx)
}

// List implements store.Store.
func (i *Interrupter) List(ctx context.Context, r store.ListRequest) (store.Page, error) {
	if err := i.available(); err != nil {
		return store.Page{}, err
	}
	return i.Store.List(ctx, r)
}

// Watch implements store.Store.
func (i *Interrupter) Watch(ctx context.Context, prefix string, from int64) (store.Watch, error) {
	if err := i.available(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := i.Store.Watch(ctx, prefix, from)
	if err != nil {
		cancel()
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cut { // meanwhile
		cancel()
	}
	if i.cancel == nil {
		i.cancel = make(map[int]context.CancelFunc)
	}
	i.cancel[int(i.Watches.Add(1))] = cancel
	return interruptible{w, ctx}, nil
}

// interruptible is a watch through which nothing comes once it has been cut, however soon the
// store hears of it.
type interruptible struct {
	store.Watch
	uncut context.Context //nolint:containedctx // it ends with the watch
}

func (w interruptible) Next(ctx context.Context) (store.Batch, error) {
	b, err := w.Watch.Next(ctx)
	if err == nil && w.uncut.Err() != nil {
		return store.Batch{}, fmt.Errorf("%w: cut off", store.ErrUnavailable)
	}
	return b, err
}

// StartMirror runs a mirror with short times until the test ends.
func StartMirror(t *testing.T, s store.Store, prefix string) (*store.Mirror, *Recorder) {
	t.Helper()
	return startMirror(t, s, prefix, 0)
}

func startMirror(t *testing.T, s store.Store, prefix string, history int64) (*store.Mirror, *Recorder) {
	t.Helper()
	recorder := new(Recorder)
	m, err := store.NewMirror(s, store.MirrorConfig{
		Prefix:        prefix,
		PageSize:      3,
		ProbeInterval: 100 * time.Millisecond,
		StaleAfter:    time.Second,
		RetryMin:      5 * time.Millisecond,
		RetryMax:      100 * time.Millisecond,
		History:       history,
	}, recorder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("mirror ended with %v, want the context's error", err)
		}
	})
	Eventually(t, "the mirror is synced", m.Synced)
	return m, recorder
}

// Eventually waits until the condition holds.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// RunMirror checks a store.Mirror on the store which newStore returns.
func RunMirror(t *testing.T, newStore func(t *testing.T) store.Store) {
	s := newStore(t)
	tests := []struct {
		name string
		test func(*testing.T, suite)
	}{
		{"a snapshot of several pages, then every revision", testMirrorFollows},
		{"the pages of a snapshot are of one revision, though somebody writes between them", testMirrorPinsPages},
		{"an interrupted mirror resumes where it was", testMirrorResumes},
		{"compaction behind its back leads to one synthetic batch", testMirrorCompacted},
		{"bookmarks move an idle mirror", testMirrorIdle},
		{"a past that is wanted comes whole, as far as it was kept", testMirrorHistory},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.test(t, suite{s, fmt.Sprintf("%smirrortest/%02d/", store.Root, i)})
		})
	}
}

func (s suite) names(state map[string]string) []string {
	out := []string{}
	for key, value := range state {
		out = append(out, strings.TrimPrefix(key, s.prefix)+"="+value)
	}
	slices.Sort(out)
	return out
}

func testMirrorFollows(t *testing.T, s suite) {
	var want []string
	for i := range 10 {
		s.put(t, fmt.Sprintf("k%d", i), "1")
		want = append(want, fmt.Sprintf("k%d=1", i))
	}
	m, recorder := StartMirror(t, s.Store, s.prefix)
	if diff := cmp.Diff(want, s.names(recorder.State())); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	first := s.put(t, "k0", "2")
	last := s.txn(t, store.Txn{Then: []store.Op{store.Delete(s.prefix + "k1"), store.Put(s.prefix+"k2", []byte("3"))}}).Revision
	Eventually(t, "the last revision arrives", func() bool { return m.Revision() >= last })
	s.wantBatches(t, recorder, fmt.Sprintf("%d k0=2", first), fmt.Sprintf("%d k2=3 -k1", last))
	if n := len(recorder.Snapshots()); n != 1 {
		t.Errorf("%d snapshots, want 1", n)
	}
}

// busy is a store in which somebody writes after each page of a listing but the last.
type busy struct {
	store.Store
	writes atomic.Int64
}

// List implements store.Store.
func (b *busy) List(ctx context.Context, r store.ListRequest) (store.Page, error) {
	page, err := b.Store.List(ctx, r)
	if err != nil || !page.More {
		return page, err
	}
	value := fmt.Appendf(nil, "written %d", b.writes.Add(1))
	_, err = b.Txn(ctx, store.Txn{Then: []store.Op{store.Put(r.Prefix+"k6", value)}})
	return page, err
}

func testMirrorPinsPages(t *testing.T, s suite) {
	var first []string
	var newest int64
	for i := range 7 { // three pages, the last of one key
		newest = s.put(t, fmt.Sprintf("k%d", i), "1")
		first = append(first, fmt.Sprintf("k%d=1", i))
	}
	m, recorder := StartMirror(t, &busy{Store: s.Store}, s.prefix)
	snapshot := recorder.Snapshots()[0]
	got := make(map[string]string)
	for _, e := range snapshot.Entries {
		got[e.Key] = string(e.Value)
	}
	if diff := cmp.Diff(first, s.names(got)); diff != "" || snapshot.Revision != newest {
		t.Errorf("snapshot of revision %d, want %d (-want +got):\n%s", snapshot.Revision, newest, diff)
	}
	Eventually(t, "what was written meanwhile arrives", func() bool { return m.Revision() >= newest+2 })
	s.wantBatches(t, recorder, fmt.Sprintf("%d k6=written 1", newest+1), fmt.Sprintf("%d k6=written 2", newest+2))
}

func (s suite) wantBatches(t *testing.T, r *Recorder, want ...string) {
	t.Helper()
	var got []string
	for _, b := range r.Batches() {
		line := s.describe(b)
		if b.Synthetic {
			line += " synthetic"
		}
		got = append(got, line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

func testMirrorResumes(t *testing.T, s suite) {
	s.put(t, "a", "1")
	i := &Interrupter{Store: s.Store}
	m, recorder := StartMirror(t, i, s.prefix)
	var want []string
	for n := range 3 {
		i.Cut()
		r := s.put(t, "a", fmt.Sprintf("while away %d", n))
		want = append(want, fmt.Sprintf("%d a=while away %d", r, n))
		i.Restore()
		Eventually(t, "the missed revision arrives", func() bool { return m.Revision() >= r })
	}
	s.wantBatches(t, recorder, want...)
}

func testMirrorCompacted(t *testing.T, s suite) {
	for _, name := range []string{"changed", "deleted", "kept"} {
		s.put(t, name, "1")
	}
	i := &Interrupter{Store: s.Store}
	m, recorder := StartMirror(t, i, s.prefix)
	i.Cut()
	s.put(t, "changed", "2")
	s.put(t, "new", "1")
	last := s.txn(t, store.Txn{Then: []store.Op{store.Delete(s.prefix + "deleted")}}).Revision
	if err := s.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	i.Restore()
	Eventually(t, "the difference arrives", func() bool { return m.Revision() >= last })
	s.wantBatches(t, recorder, fmt.Sprintf("%d changed=2 new=1 -deleted synthetic", last))
	if recorder.Least() < 3 {
		t.Errorf("the state shrank to %d keys on the way; it must never be cleared first", recorder.Least())
	}
}

func testMirrorIdle(t *testing.T, s suite) {
	m, _ := StartMirror(t, s.Store, s.prefix)
	elsewhere := s.txn(t, store.Txn{Then: []store.Op{store.Put(store.Root+"mirrortest/elsewhere", nil)}}).Revision
	Eventually(t, "a bookmark covers what happened elsewhere", func() bool { return m.Revision() >= elsewhere })
	before := m.LastProgress()
	Eventually(t, "progress goes on without a change", func() bool { return m.LastProgress().After(before) })
}
