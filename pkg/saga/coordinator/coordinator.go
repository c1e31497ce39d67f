package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// The errors of what is asked of a Coordinator, beside saga.Faults, and errors that match saga.ErrVerb.
var (
	// ErrConflict: there is a saga with this id and other content.
	ErrConflict = errors.New("there is a saga with this id and other content")
	// ErrNotFound: there is none with this id, or it ended longer than the retention time ago.
	ErrNotFound = errors.New("there is no saga with this id")
	// ErrNotOwner: another replica owns the shard of this saga, or nobody does yet.
	ErrNotOwner = errors.New("the saga's shard has no owner here now: ask again")
)

// Coordinator owns as many shards as it gets. It is safe for concurrent use.
type Coordinator struct {
	config Config
	full   atomic.Bool // of the store

	mu      sync.Mutex
	owners  []*owner      // guarded by mu; by shard; nil: not owned here
	changed chan struct{} // guarded by mu; closed when owners have changed
}

// New returns a Coordinator, which does nothing until Run.
func New(c Config) *Coordinator {
	c = c.withDefaults()
	return &Coordinator{config: c, owners: make([]*owner, c.Shards), changed: make(chan struct{})}
}

// Run owns shards until ctx ends, and then gives them to others. It blocks.
func (c *Coordinator) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { c.tend(ctx) })
	for shard := range c.config.Shards {
		all.Go(func() { c.keep(ctx, shard) })
	}
	all.Wait()
	return nil
}

// keep owns a shard again and again.
func (c *Coordinator) keep(ctx context.Context, shard int) {
	log := c.config.Log.With("shard", shard)
	for ctx.Err() == nil {
		err := c.own(ctx, shard, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("shard lost; it is tried again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// own waits until the shard has no owner, and owns it for as long as it can.
func (c *Coordinator) own(ctx context.Context, shard int, log *slog.Logger) error {
	lease, err := c.config.Store.Grant(ctx, c.config.LeaseTTL)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.config.Store.Revoke(ctx, lease.ID) // else it ends by itself
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		cancel(store.KeepAlive(ctx, c.config.Store, lease))
	}()
	defer func() { cancel(nil); <-kept }()
	fence, err := c.campaign(ctx, shard, lease)
	if err != nil {
		return err
	}
	j, err := journal.Open(ctx, c.config.Store, shard, fence)
	if err != nil {
		return err
	}
	o := newOwner(&c.config, j, log)
	log.Info("shard owned", "fence", fence)
	c.set(shard, o)
	defer c.set(shard, nil)
	if err := o.run(ctx); ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

func (c *Coordinator) set(shard int, o *owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners[shard] = o
	close(c.changed)
	c.changed = make(chan struct{})
}

// campaign waits for the key of a shard's owner to be free, and takes it. It returns its create revision.
func (c *Coordinator) campaign(ctx context.Context, shard int, lease store.Lease) (fence int64, err error) {
	key := journal.OwnerKey(shard)
	take := store.Txn{If: []store.Compare{store.Absent(key)}, Then: []store.Op{store.PutLeased(key, []byte(c.config.Name), lease.ID)}}
	for {
		r, err := c.config.Store.Txn(ctx, take)
		if err != nil {
			return 0, err // one that is taken all the same ends with the lease
		}
		if r.Held {
			return r.Revision, nil
		}
		if c.config.Alone {
			if _, err := c.config.Store.Txn(ctx, store.Txn{Then: []store.Op{store.Delete(key)}}); err != nil {
				return 0, err
			}
			continue
		}
		if err := c.awaitFree(ctx, key, r.Revision+1); err != nil {
			return 0, err
		}
	}
}

// awaitFree waits for a key to be deleted, from a revision on.
func (c *Coordinator) awaitFree(ctx context.Context, key string, from int64) error {
	w, err := c.config.Store.Watch(ctx, key, from)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, deleted := range b.Deletes {
			if deleted == key {
				return nil
			}
		}
	}
}

// ownerPatience is how long who asks waits for a shard that has no owner here, as at the start.
const ownerPatience = 2 * time.Second

// owner returns who owns the shard of a saga, here.
func (c *Coordinator) owner(ctx context.Context, id string) (*owner, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))                        // never fails
	shard := int(h.Sum32() % uint32(c.config.Shards)) //nolint:gosec // 64 at the most
	limit := time.NewTimer(ownerPatience)
	defer limit.Stop()
	for {
		c.mu.Lock()
		o, changed := c.owners[shard], c.changed
		c.mu.Unlock()
		if o != nil {
			return o, nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, ErrNotOwner
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask has f called by the loop of a saga's shard, and waits until f's answer is called.
func (c *Coordinator) ask(ctx context.Context, id string, f func(o *owner, answer func(error))) error {
	o, err := c.owner(ctx, id)
	if err != nil {
		return err
	}
	answered := make(chan error, 1)
	if err := o.post(ctx, func() { f(o, func(err error) { answered <- err }) }); err != nil {
		return err
	}
	select {
	case err := <-answered:
		return err
	case <-o.done:
		select {
		case err := <-answered:
			return err
		default:
			return errEnded
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start starts a saga, and returns when that is durable. Starting one again that is there is the same as starting it once: whose outcome is not known may
// be started again. The errors are saga.Faults, ErrConflict, ErrFull, ErrNotOwner, and those of the context.
func (c *Coordinator) Start(ctx context.Context, d *saga.Definition) error {
	if err := d.Check(); err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	trace := c.config.Trace(ctx)
	return c.ask(ctx, d.ID, func(o *owner, answer func(error)) { o.start(d, text, trace, c.full.Load(), answer) })
}

// View is a saga as it is shown.
type View struct {
	Definition *saga.Definition
	saga.Progress
	Results saga.Results
}

// Get returns a saga as it is durable.
func (c *Coordinator) Get(ctx context.Context, id string) (*View, error) {
	o, err := c.owner(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := o.journal.Record(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err != nil {
		return nil, err
	}
	v := &View{Progress: r.Progress}
	if v.Definition, err = o.journal.Definition(ctx, id); err != nil {
		return nil, err
	}
	v.Results, err = o.journal.Results(ctx, id)
	return v, err
}

// Wait returns when a saga has ended, or is parked.
func (c *Coordinator) Wait(ctx context.Context, id string) error {
	o, err := c.owner(ctx, id)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	if err := o.post(ctx, func() { o.wait(id, ended) }); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-o.done:
		return errEnded
	case <-ctx.Done():
		_ = o.post(context.WithoutCancel(ctx), func() { // or the shard has ended, and all its waiters with it
			if e := o.sagas[id]; e != nil {
				delete(e.waiting, ended)
			}
		})
		return ctx.Err()
	}
}

// wait tells ended when a saga has ended, or is parked.
func (o *owner) wait(id string, ended chan<- error) {
	e := o.find(id)
	switch {
	case e == nil:
		ended <- fmt.Errorf("%w: %s", ErrNotFound, id)
	case (e.state.Ended() || e.state == saga.Parked) && !e.queued && !e.writing:
		ended <- nil
	default:
		if e.waiting == nil {
			e.waiting = map[chan<- error]struct{}{}
		}
		e.waiting[ended] = struct{}{}
	}
}
