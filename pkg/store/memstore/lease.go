package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Grant implements store.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.Lease, error) {
	ttl, err := store.CheckTTL(ttl)
	if err != nil {
		return store.Lease{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Lease{}, err
	}
	s.lastLease++
	id := s.lastLease
	s.leases[id] = &lease{
		ttl:      ttl,
		deadline: time.Now().Add(ttl),
		timer:    time.AfterFunc(ttl, func() { s.expire(id) }),
		keys:     make(map[string]struct{}),
	}
	return store.Lease{ID: id, TTL: ttl}, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, id store.LeaseID) (store.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.lease(ctx, id)
	if err != nil {
		return store.Lease{}, err
	}
	l.deadline = time.Now().Add(l.ttl)
	l.timer.Reset(l.ttl)
	return store.Lease{ID: id, TTL: l.ttl}, nil
}

// Revoke implements store.Store.
func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.lease(ctx, id)
	if err != nil {
		return err
	}
	s.end(id, l)
	return nil
}

// TimeToLive implements store.Store.
func (s *Store) TimeToLive(ctx context.Context, id store.LeaseID) (store.LeaseStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.lease(ctx, id)
	if err != nil {
		return store.LeaseStatus{}, err
	}
	return store.LeaseStatus{
		ID:        id,
		Granted:   l.ttl,
		Remaining: time.Until(l.deadline).Truncate(time.Second),
		Keys:      slices.Sorted(maps.Keys(l.keys)),
	}, nil
}

func (s *Store) lease(ctx context.Context, id store.LeaseID) (*lease, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	l := s.leases[id]
	if l == nil {
		return nil, fmt.Errorf("%w: %x", store.ErrLeaseNotFound, id)
	}
	return l, nil
}

// expire runs on the lease's timer. A renewal may have won the race for mu; then the timer is running again.
func (s *Store) expire(id store.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if s.closed || l == nil || time.Now().Before(l.deadline) {
		return
	}
	s.end(id, l)
}

// end deletes the lease and, at one revision, its keys.
func (s *Store) end(id store.LeaseID, l *lease) {
	l.timer.Stop()
	var ops []store.Op
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		ops = append(ops, store.Delete(key))
	}
	s.commit(ops)
	delete(s.leases, id)
}
