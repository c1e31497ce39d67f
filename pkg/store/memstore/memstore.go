package memstore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Store implements store.Store. It is safe for concurrent use.
type Store struct {
	mu sync.Mutex
	// All below is guarded by mu.

	data
	leases    map[store.LeaseID]*lease
	lastLease store.LeaseID
	watches   map[*watch]struct{}
	// changed is closed and replaced whenever a waiting watch should look again.
	changed chan struct{}
	closed  bool
	faults  faults
}

// data is what a backup holds: the keys with their history.
type data struct {
	clusterID uint64
	revision  int64
	// compacted is the oldest revision that can be listed.
	compacted int64
	// versions holds each key's writes, oldest first; a deletion is a version too.
	versions map[string][]version
	// log holds one batch, with the keys of all prefixes, per revision after compacted.
	log []store.Batch
}

type version struct {
	store.Entry
	deleted bool
}

type lease struct {
	ttl      time.Duration
	deadline time.Time
	timer    *time.Timer
	keys     map[string]struct{}
}

// New returns an empty store at revision 1 with a ClusterID of its own.
func New() *Store {
	return &Store{
		data: data{
			clusterID: rand.Uint64() | 1,
			revision:  1,
			versions:  make(map[string][]version),
		},
		leases:  make(map[store.LeaseID]*lease),
		watches: make(map[*watch]struct{}),
		changed: make(chan struct{}),
	}
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, l := range s.leases {
		l.timer.Stop()
	}
	s.endWatches(store.ErrClosed)
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Entry{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Entry{}, err
	}
	e, ok := s.at(key, s.revision)
	if !ok {
		return store.Entry{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return e, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, r store.ListRequest) (store.Page, error) {
	r, err := r.Validate()
	if err != nil {
		return store.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Page{}, err
	}
	page := store.Page{ClusterID: s.clusterID, Revision: r.Revision}
	switch {
	case r.Revision == 0:
		page.Revision = s.revision
	case r.Revision > s.revision:
		return store.Page{}, fmt.Errorf("%w: %d; the newest is %d", store.ErrFutureRevision, r.Revision, s.revision)
	case r.Revision < s.compacted:
		return store.Page{}, &store.CompactedError{Revision: s.compacted}
	}
	for _, key := range s.keysUnder(r.Prefix) {
		e, ok := s.at(key, page.Revision)
		if !ok || key <= r.After {
			continue
		}
		if len(page.Entries) == r.Limit {
			page.More = true
			break
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	if err := t.Validate(); err != nil {
		return store.TxnResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.TxnResult{}, err
	}
	apply, unknown := s.faults.takeUnknown()
	if !apply {
		return store.TxnResult{}, unknown
	}
	for _, c := range t.If {
		if !s.holds(c) {
			if unknown != nil {
				return store.TxnResult{}, unknown
			}
			return store.TxnResult{Revision: s.revision}, nil
		}
	}
	for _, o := range t.Then {
		if o.Lease != 0 && s.leases[o.Lease] == nil {
			return store.TxnResult{}, fmt.Errorf("%w: %x", store.ErrLeaseNotFound, o.Lease)
		}
	}
	s.commit(t.Then)
	if unknown != nil {
		return store.TxnResult{}, unknown
	}
	return store.TxnResult{Held: true, Revision: s.revision}, nil
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if revision <= s.compacted {
		return &store.CompactedError{Revision: s.compacted}
	}
	if revision > s.revision {
		return fmt.Errorf("%w: %d; the newest is %d", store.ErrFutureRevision, revision, s.revision)
	}
	for key, vs := range s.versions {
		s.versions[key] = compacted(vs, revision)
		if len(s.versions[key]) == 0 {
			delete(s.versions, key)
		}
	}
	s.log = slices.DeleteFunc(s.log, func(b store.Batch) bool { return b.Revision <= revision })
	s.compacted = revision
	s.wake()
	return nil
}

// compacted drops the versions that no revision from oldest on shows.
func compacted(vs []version, oldest int64) []version {
	for len(vs) > 1 && vs[1].ModRevision <= oldest {
		vs = vs[1:]
	}
	if vs[0].deleted && vs[0].ModRevision <= oldest {
		vs = vs[1:]
	}
	return slices.Clone(vs)
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context) (store.Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Head{}, err
	}
	return store.Head{ClusterID: s.clusterID, Revision: s.revision}, nil
}

// Size implements store.Store: the bytes of all keys and values that can still be listed. There is no quota.
func (s *Store) Size(ctx context.Context) (store.Size, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Size{}, err
	}
	var n int64
	for key, vs := range s.versions {
		for _, v := range vs {
			n += int64(len(key) + len(v.Value))
		}
	}
	return store.Size{Bytes: n, InUse: n}, nil
}

// usable returns why a request cannot be served now. It needs mu, as all methods below.
func (s *Store) usable(ctx context.Context) error {
	if s.closed {
		return store.ErrClosed
	}
	if s.faults.down {
		return fmt.Errorf("%w: down by request", store.ErrUnavailable)
	}
	return ctx.Err()
}

// at returns the key's entry as of revision.
func (s *Store) at(key string, revision int64) (store.Entry, bool) {
	for _, v := range slices.Backward(s.versions[key]) {
		if v.ModRevision <= revision {
			return v.Entry, !v.deleted
		}
	}
	return store.Entry{}, false
}

// keysUnder returns all keys with a history, ascending.
func (s *Store) keysUnder(prefix string) []string {
	var keys []string
	for key := range s.versions {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (s *Store) holds(c store.Compare) bool {
	e, ok := s.at(c.Key, s.revision)
	if !ok {
		e = store.Entry{}
	}
	switch c.Target {
	case store.TargetCreateRevision:
		return e.CreateRevision == c.Revision
	case store.TargetModRevision:
		return e.ModRevision == c.Revision
	case store.TargetValue:
		return ok && bytes.Equal(e.Value, c.Value)
	default:
		return ok
	}
}

// commit applies the operations at a new revision. If they change nothing (deletions of absent keys), there is none.
func (s *Store) commit(ops []store.Op) {
	b := store.Batch{ClusterID: s.clusterID, Revision: s.revision + 1}
	for _, o := range ops {
		switch o.Kind {
		case store.OpPut:
			b.Puts = append(b.Puts, s.put(b.Revision, o))
		case store.OpDelete:
			b.Deletes = s.remove(b.Deletes, b.Revision, o.Key)
		case store.OpDeletePrefix:
			for _, key := range s.keysUnder(o.Key) {
				b.Deletes = s.remove(b.Deletes, b.Revision, key)
			}
		}
	}
	if b.Bookmark() {
		return
	}
	s.revision = b.Revision
	s.log = append(s.log, b)
	s.wake()
}

func (s *Store) put(revision int64, o store.Op) store.Entry {
	old, existed := s.at(o.Key, revision)
	e := store.Entry{Key: o.Key, Value: bytes.Clone(o.Value), CreateRevision: revision, ModRevision: revision, Version: 1, Lease: o.Lease}
	if existed {
		e.CreateRevision, e.Version = old.CreateRevision, old.Version+1
		s.detach(old)
	}
	if o.Lease != 0 {
		s.leases[o.Lease].keys[o.Key] = struct{}{}
	}
	s.versions[o.Key] = append(s.versions[o.Key], version{Entry: e})
	return e
}

// remove deletes the key if it exists and appends it to deleted.
func (s *Store) remove(deleted []string, revision int64, key string) []string {
	old, ok := s.at(key, revision)
	if !ok {
		return deleted
	}
	s.detach(old)
	tombstone := version{Entry: store.Entry{Key: key, ModRevision: revision}, deleted: true}
	s.versions[key] = append(s.versions[key], tombstone)
	return append(deleted, key)
}

func (s *Store) detach(e store.Entry) {
	if l := s.leases[e.Lease]; l != nil {
		delete(l.keys, e.Key)
	}
}

// wake makes every waiting watch look again.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}
