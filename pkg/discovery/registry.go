package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// What a registry keeps at most. More is refused with ErrFull.
const (
	MaxServices            = 20_000
	MaxInstancesPerService = 10_000
)

const (
	// replicaTTL is how long a replica of the control plane counts as alive when it
	// is not heard.
	replicaTTL = 10 * time.Second
	// orphanGrace is how long instances outlive the replica that held their streams, or
	// its freeze: the time to attach to another one, to its successor or anew.
	orphanGrace = 10 * time.Second
	// lostGrace is how long an instance outlives its stream: a connection that broke
	// is made anew in less. If it was this process that froze, orphanGrace is.
	lostGrace = time.Second
	// tidyInterval is how often orphans and unrecorded services are looked for.
	tidyInterval = time.Second
	// storeTimeout bounds what no client waits for.
	storeTimeout = 5 * time.Second
	// maxConflicts bounds how often a write is tried while others write the same.
	maxConflicts = 10
	// conflictPause is how long it is waited at most before the second try; twice as
	// long before each further one.
	conflictPause = 4 * time.Millisecond
)

// Errors of a Registry, beside *mesh.InvalidError and those of the store.
var (
	ErrNotFound = errors.New("there is no such instance")
	// ErrAttached: the instance lives by the stream of its sidecar.
	ErrAttached = errors.New("the instance lives by its sidecar's stream")
	// ErrNoLease: the instance was written without a lease.
	ErrNoLease = errors.New("the instance has no lease to renew: it stays until it is removed")
	// ErrReplaced: another stream has attached the same instance since.
	ErrReplaced = errors.New("the instance was attached by another stream or removed")
	// ErrTwin: a stream that lives holds an instance of this name at another address.
	ErrTwin = errors.New("another sidecar is registered by this instance id; each needs its own")
	ErrFull = errors.New("the registry is full")
	// ErrConflict: a write was tried again and again while others wrote the same.
	ErrConflict = errors.New("others kept writing the same instance or service at the same time; try again")
)

// RegistryConfig says what a Registry works on.
type RegistryConfig struct {
	Store store.Store
	// View sees what the registry writes: each change returns when it is in force. What
	// it would set aside, the registry refuses.
	View *View
	// Replica names this process among the control plane's; it differs after a restart.
	Replica string
	Log     *slog.Logger
}

// Registry changes who is registered. It is safe for concurrent use.
type Registry struct {
	store   store.Store
	view    *View
	replica string
	log     *slog.Logger

	attachments atomic.Int64 // made so far: each is another epoch
	pulse       pulse

	mu      sync.Mutex     // held while lost grows, so that it does not once Run waits for it
	lost    sync.WaitGroup // graces under way
	stopped chan struct{}  // closed when Run ends
}

// NewRegistry returns a registry. Run keeps it tidy.
func NewRegistry(c RegistryConfig) *Registry {
	return &Registry{store: c.Store, view: c.View, replica: c.Replica, log: c.Log, stopped: make(chan struct{})}
}

// Register adds an instance, or replaces it, that lives until its TTL passes
// without a Renew, and returns it completed.
func (r *Registry) Register(ctx context.Context, i *meshv1.Instance) (*meshv1.Instance, error) {
	i, err := completeIn(r.view.domain, i, true)
	if err != nil {
		return nil, err
	}
	key := keyFor(i)
	if err := r.room(key); err != nil {
		return nil, err
	}
	lease, err := r.store.Grant(ctx, i.GetTtl().AsDuration())
	if err != nil {
		return nil, err
	}
	done, revision, err := r.change(ctx, key, func(old *Record) (*Record, error) {
		if old != nil && old.Owner != "" && (old.Owner == r.replica || r.view.alive(old.Owner)) {
			return nil, ErrAttached
		}
		return &Record{Instance: succeed(i, old), Lease: lease.ID, granted: true}, nil
	})
	if err != nil {
		if !errors.Is(err, store.ErrUnknownOutcome) {
			r.revoke(ctx, lease.ID)
		}
		return nil, err
	}
	return done.Instance, r.view.Await(ctx, revision)
}

// Renew lets an instance live for its TTL from now on, and returns that.
func (r *Registry) Renew(ctx context.Context, key Key) (time.Duration, error) {
	record, _ := r.view.Instance(key)
	ttl, err := r.renew(ctx, record)
	if !errors.Is(err, ErrNotFound) {
		return ttl, err
	}
	// The view may not have seen yet that it was registered, or registered anew.
	if record, err = r.read(ctx, key); err != nil {
		return 0, err
	}
	return r.renew(ctx, record)
}

func (r *Registry) renew(ctx context.Context, record *Record) (time.Duration, error) {
	switch {
	case record == nil:
		return 0, ErrNotFound
	case record.Owner != "":
		return 0, ErrAttached
	case record.Lease == 0:
		return 0, ErrNoLease
	}
	lease, err := r.store.Renew(ctx, record.Lease)
	if errors.Is(err, store.ErrLeaseNotFound) {
		return 0, ErrNotFound
	}
	return lease.TTL, err
}

// Deregister removes an instance, however it was registered, and returns the
// revision that it is gone with.
func (r *Registry) Deregister(ctx context.Context, key Key) (int64, error) {
	_, revision, err := r.change(ctx, key, func(old *Record) (*Record, error) {
		if old == nil {
			return nil, ErrNotFound
		}
		return nil, nil
	}, departure(key))
	if err != nil {
		return 0, err
	}
	return revision, r.view.Await(ctx, revision)
}

// Check returns all that Register would refuse in what an instance says, as a
// *mesh.InvalidError, or nil.
func (r *Registry) Check(i *meshv1.Instance) error {
	_, err := completeIn(r.view.domain, i, true)
	return err
}

// room refuses what would pass the registry's limits.
func (r *Registry) room(key Key) error {
	services, instances := r.view.count(key)
	switch {
	case services >= MaxServices:
		return fmt.Errorf("%w: it has %d services", ErrFull, services)
	case instances >= MaxInstancesPerService:
		return fmt.Errorf("%w: %s has %d instances", ErrFull, key.Service, instances)
	}
	return nil
}

// revoke ends a lease that keeps nothing. If that fails, the lease ends by itself.
func (r *Registry) revoke(ctx context.Context, id store.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := r.store.Revoke(ctx, id); err != nil && !errors.Is(err, store.ErrLeaseNotFound) {
		r.log.Warn("a lease was not revoked", "error", err)
	}
}

func keyFor(i *meshv1.Instance) Key {
	return Key{Service: mesh.ServiceName{Namespace: i.GetNamespace(), Name: i.GetService()}, ID: i.GetId()}
}

// succeed returns i as the successor of what is registered under its name.
func succeed(i *meshv1.Instance, old *Record) *meshv1.Instance {
	i = proto.Clone(i).(*meshv1.Instance)
	i.RegisteredAt = timestamppb.Now()
	if old != nil && old.Instance.GetRegisteredAt() != nil {
		i.RegisteredAt = old.Instance.GetRegisteredAt()
	}
	return i
}

// read returns an instance as the store has it now, nil if it has none or nothing
// readable.
func (r *Registry) read(ctx context.Context, key Key) (*Record, error) {
	e, err := r.store.Get(ctx, key.path())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if record, err := decode(e, r.view.domain); err == nil {
		return record, nil
	}
	// Set aside by the view, and so nobody's; still, only this revision of it may be
	// overwritten.
	return &Record{Key: key, Instance: &meshv1.Instance{}, Lease: e.Lease, Revision: e.ModRevision}, nil
}

// change replaces what is registered under a key by what next makes of it; nil
// removes it. It tries again if others write at the same time, and finds out how a
// write whose outcome is unknown ended. It returns what it wrote, and its revision.
// After store.ErrUnknownOutcome it may have written it, after no other error. beside is
// written in the same revision.
func (r *Registry) change(ctx context.Context, key Key, next func(old *Record) (*Record, error), beside ...store.Op) (*Record, int64, error) {
	for try := range maxConflicts {
		if try > 0 && !sleep(ctx, rand.N(conflictPause<<(try-1))) {
			return nil, 0, ctx.Err()
		}
		old, err := r.read(ctx, key)
		if err != nil {
			return nil, 0, err
		}
		record, err := next(old)
		if err != nil {
			return nil, 0, err
		}
		txn, err := r.txn(ctx, key, old, record)
		if err != nil {
			return nil, 0, err
		}
		txn.Then = append(txn.Then, beside...)
		result, err := r.store.Txn(ctx, txn)
		if errors.Is(err, store.ErrUnknownOutcome) {
			result, err = r.findOut(ctx, txn.Then[0])
		}
		if err != nil {
			return nil, 0, err
		}
		if result.Held {
			r.release(ctx, old, record)
			if record != nil {
				record.Key, record.Revision = key, result.Revision
				record.Instance.Revision = result.Revision
				record.Instance.Liveness = liveness(record.Instance, record.Owner, record.Lease)
			}
			return record, result.Revision, nil
		}
	}
	return nil, 0, fmt.Errorf("%w: %s of %s", ErrConflict, key.ID, key.Service)
}

// release ends the lease of what was replaced, if it kept nothing else: who registers
// again and again would else leave behind a lease each time, for up to MaxTTL.
func (r *Registry) release(ctx context.Context, old, now *Record) {
	if old != nil && old.granted && (now == nil || now.Lease != old.Lease) {
		r.revoke(ctx, old.Lease)
	}
}

// txn writes a record, and with it the service's own key if that lacks the name of a
// port. A number that changed is left to tidying: instances that share a service may
// each have another, and would all write its key at once.
func (r *Registry) txn(ctx context.Context, key Key, old, record *Record) (store.Txn, error) {
	unchanged := store.Absent(key.path())
	if old != nil {
		unchanged = store.ModifiedAt(key.path(), old.Revision)
	}
	t := store.Txn{If: []store.Compare{unchanged}}
	if record == nil {
		t.Then = []store.Op{store.Delete(key.path())}
		return t, nil
	}
	value, err := encode(record)
	if err != nil {
		return t, err
	}
	t.Then = []store.Op{store.PutLeased(key.path(), value, record.Lease)}
	compare, op, err := r.recordService(ctx, key.Service, record.Instance.GetPorts(), tellsNames)
	if err == nil && op != nil {
		t.If, t.Then = append(t.If, compare), append(t.Then, *op)
	}
	return t, err
}

// recordService returns the write that makes the service's own key tell its ports;
// nil if it does, by tells.
func (r *Registry) recordService(ctx context.Context, name mesh.ServiceName, ports []*meshv1.Port,
	tells func(have, ports []*meshv1.Port) bool) (store.Compare, *store.Op, error) {
	path := servicePath(name)
	compare := store.Absent(path)
	e, err := r.store.Get(ctx, path)
	switch {
	case err == nil:
		compare = store.ModifiedAt(path, e.ModRevision)
		// One that cannot be read is written anew.
		if have, err := decodeService(e.Value); err == nil {
			if tells(have, ports) {
				return compare, nil, nil
			}
			merged, _ := mergePorts(have, ports)
			if !tellsNames(merged, ports) {
				return compare, nil, fmt.Errorf("%w: %s remembers %d names of ports", ErrFull, name, len(have))
			}
			ports = merged
		}
	case !errors.Is(err, store.ErrNotFound):
		return compare, nil, err
	}
	value, err := encodeService(ports)
	op := store.Put(path, value)
	return compare, &op, err
}

// findOut tells how a write whose outcome is unknown ended, by looking for what it
// wrote. A write that is still on its way is no harm: either it comes before the
// next attempt, whose compare then fails, or its own compare does.
func (r *Registry) findOut(ctx context.Context, op store.Op) (store.TxnResult, error) {
	e, err := r.store.Get(ctx, op.Key)
	switch gone := errors.Is(err, store.ErrNotFound); {
	case gone && op.Kind == store.OpDelete:
		var head store.Head
		if head, err = r.store.Head(ctx); err == nil {
			return store.TxnResult{Held: true, Revision: head.Revision}, nil
		}
	case gone:
		return store.TxnResult{}, nil
	case err == nil:
		held := op.Kind == store.OpPut && e.Lease == op.Lease && bytes.Equal(e.Value, op.Value)
		return store.TxnResult{Held: held, Revision: e.ModRevision}, nil
	}
	return store.TxnResult{}, fmt.Errorf("%w: %w", store.ErrUnknownOutcome, err)
}
