package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, error) {
	if err := s.usable(ctx, store.CheckKey(key)); err != nil {
		return store.Entry{}, err
	}
	resp, err := s.keys.Get(ctx, key)
	if err != nil {
		return store.Entry{}, readError(err)
	}
	if len(resp.Kvs) == 0 {
		return store.Entry{}, fmt.Errorf("%w: %s", store.ErrNotFound, key)
	}
	return entry(resp.Kvs[0]), nil
}

// List implements store.Store. Every page is read linearizably, so that no lagging member answers.
func (s *Store) List(ctx context.Context, r store.ListRequest) (store.Page, error) {
	r, err := r.Validate()
	if err := s.usable(ctx, err); err != nil {
		return store.Page{}, err
	}
	first := r.Prefix
	if r.After != "" {
		first = r.After + "\x00" // the next possible key
	}
	resp, err := s.lists.Get(ctx, first, clientv3.WithRange(clientv3.GetPrefixRangeEnd(r.Prefix)),
		clientv3.WithLimit(int64(r.Limit)), clientv3.WithRev(r.Revision))
	if err != nil {
		return store.Page{}, readError(err)
	}
	page := store.Page{ClusterID: resp.Header.ClusterId, Revision: r.Revision, More: resp.More}
	if r.Revision == 0 {
		page.Revision = resp.Header.Revision
	}
	for _, kv := range resp.Kvs {
		page.Entries = append(page.Entries, entry(kv))
	}
	return page, nil
}

func entry(kv *mvccpb.KeyValue) store.Entry {
	return store.Entry{
		Key:            string(kv.Key),
		Value:          kv.Value,
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
		Version:        kv.Version,
		Lease:          store.LeaseID(kv.Lease),
	}
}

// Txn implements store.Store.
func (s *Store) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	if err := s.usable(ctx, t.Validate()); err != nil {
		return store.TxnResult{}, err
	}
	resp, err := s.keys.Txn(ctx).If(compares(t.If)...).Then(operations(t.Then)...).Commit()
	if err != nil {
		return store.TxnResult{}, writeError(err)
	}
	return store.TxnResult{Held: resp.Succeeded, Revision: resp.Header.Revision}, nil
}

func compares(cs []store.Compare) []clientv3.Cmp {
	out := make([]clientv3.Cmp, 0, len(cs))
	for _, c := range cs {
		switch c.Target {
		case store.TargetCreateRevision:
			out = append(out, clientv3.Compare(clientv3.CreateRevision(c.Key), "=", c.Revision))
		case store.TargetModRevision:
			out = append(out, clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Revision))
		case store.TargetValue:
			out = append(out, clientv3.Compare(clientv3.Value(c.Key), "=", string(c.Value)))
		case store.TargetExists:
			out = append(out, clientv3.Compare(clientv3.CreateRevision(c.Key), ">", 0))
		}
	}
	return out
}

func operations(ops []store.Op) []clientv3.Op {
	out := make([]clientv3.Op, 0, len(ops))
	for _, o := range ops {
		switch o.Kind {
		case store.OpPut:
			out = append(out, clientv3.OpPut(o.Key, string(o.Value), clientv3.WithLease(clientv3.LeaseID(o.Lease))))
		case store.OpDelete:
			out = append(out, clientv3.OpDelete(o.Key))
		case store.OpDeletePrefix:
			out = append(out, clientv3.OpDelete(o.Key, clientv3.WithPrefix()))
		}
	}
	return out
}

// Grant implements store.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.Lease, error) {
	ttl, err := store.CheckTTL(ttl)
	if err := s.usable(ctx, err); err != nil {
		return store.Lease{}, err
	}
	resp, err := s.keys.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return store.Lease{}, writeError(err)
	}
	return store.Lease{ID: store.LeaseID(resp.ID), TTL: time.Duration(resp.TTL) * time.Second}, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, id store.LeaseID) (store.Lease, error) {
	if err := s.usable(ctx, nil); err != nil {
		return store.Lease{}, err
	}
	resp, err := s.keys.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	if err != nil {
		return store.Lease{}, writeError(err)
	}
	return store.Lease{ID: id, TTL: time.Duration(resp.TTL) * time.Second}, nil
}

// Revoke implements store.Store.
func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error {
	if err := s.usable(ctx, nil); err != nil {
		return err
	}
	_, err := s.keys.Revoke(ctx, clientv3.LeaseID(id))
	return writeError(err)
}

// TimeToLive implements store.Store.
func (s *Store) TimeToLive(ctx context.Context, id store.LeaseID) (store.LeaseStatus, error) {
	if err := s.usable(ctx, nil); err != nil {
		return store.LeaseStatus{}, err
	}
	resp, err := s.keys.TimeToLive(ctx, clientv3.LeaseID(id), clientv3.WithAttachedKeys())
	if err != nil {
		return store.LeaseStatus{}, readError(err)
	}
	if resp.TTL < 0 { // etcd's way to say that there is no such lease
		return store.LeaseStatus{}, fmt.Errorf("%w: %x", store.ErrLeaseNotFound, id)
	}
	status := store.LeaseStatus{
		ID:        id,
		Granted:   time.Duration(resp.GrantedTTL) * time.Second,
		Remaining: time.Duration(resp.TTL) * time.Second,
	}
	for _, key := range resp.Keys {
		status.Keys = append(status.Keys, string(key))
	}
	slices.Sort(status.Keys)
	return status, nil
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if err := s.usable(ctx, nil); err != nil {
		return err
	}
	_, err := s.keys.Compact(ctx, revision)
	return writeError(err)
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context) (store.Head, error) {
	if err := s.usable(ctx, nil); err != nil {
		return store.Head{}, err
	}
	resp, err := s.keys.Get(ctx, store.Root, clientv3.WithCountOnly())
	if err != nil {
		return store.Head{}, readError(err)
	}
	return store.Head{ClusterID: resp.Header.ClusterId, Revision: resp.Header.Revision}, nil
}

// statusTimeout is how long Size waits for one endpoint: the client waits for a dead one for as long as it may.
const statusTimeout = time.Second

// Size implements store.Store: as seen by the first endpoint that answers.
func (s *Store) Size(ctx context.Context) (store.Size, error) {
	if err := s.usable(ctx, nil); err != nil {
		return store.Size{}, err
	}
	var errs []error
	for _, endpoint := range s.endpoints {
		bounded, cancel := context.WithTimeout(ctx, statusTimeout)
		resp, err := s.keys.Status(bounded, endpoint)
		cancel()
		if err == nil {
			return store.Size{Bytes: resp.DbSize, InUse: resp.DbSizeInUse, Quota: resp.DbSizeQuota}, nil
		}
		errs = append(errs, err)
	}
	return store.Size{}, readError(errors.Join(errs...))
}

// usable returns invalid, or why nothing shall be sent.
func (s *Store) usable(ctx context.Context, invalid error) error {
	switch {
	case invalid != nil:
		return invalid
	case s.ctx.Err() != nil:
		return store.ErrClosed
	default:
		return ctx.Err()
	}
}
