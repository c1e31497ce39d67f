package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
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
	// ErrNotOwner: nobody owns the shard of this saga now, or another replica does, which is an ElsewhereError. What was asked was not done.
	ErrNotOwner = errors.New("the saga's shard has no owner now: ask again")
	// ErrChanging: the shard has lost its owner meanwhile. What was asked may have been done.
	ErrChanging = errors.New("the saga's shard is changing its owner: ask again")
)

// Coordinator owns as many shards as it gets. It is safe for concurrent use.
type Coordinator struct {
	config Config
	room   atomic.Int64 // how many bytes sagas may have that are taken before the store is looked at again

	mu        sync.Mutex
	owners    []*owner          // guarded by mu; by shard; nil: not owned here
	elsewhere []*ElsewhereError // guarded by mu; by shard; nil: no other owner is known
	changed   chan struct{}     // guarded by mu; closed when either has changed
}

// New returns a Coordinator, which does nothing until Run.
func New(c Config) *Coordinator {
	c = c.withDefaults()
	co := &Coordinator{config: c, owners: make([]*owner, c.Shards), elsewhere: make([]*ElsewhereError, c.Shards), changed: make(chan struct{})}
	co.room.Store(math.MaxInt64)
	return co
}

// Run owns shards until ctx ends, waits up to a few seconds for the calls under way, so that their outcomes are known, and gives its shards to others. It blocks.
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
	leased, cancel := context.WithCancelCause(context.WithoutCancel(ctx)) // for a while longer than ctx: calls under way end first
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		cancel(store.KeepAlive(leased, c.config.Store, lease))
	}()
	defer func() { cancel(nil); <-kept }()
	campaigning, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(leased, stop)()
	fence, err := c.campaign(campaigning, shard, lease)
	if err != nil {
		return err
	}
	j, err := journal.Open(campaigning, c.config.Store, shard, fence)
	if err != nil {
		return err
	}
	o := newOwner(&c.config, j, log)
	log.Info("shard owned", "fence", fence)
	c.set(shard, o)
	defer c.set(shard, nil)
	if err := o.run(leased, ctx.Done()); leased.Err() == nil {
		return err
	}
	return context.Cause(leased)
}

func (c *Coordinator) set(shard int, o *owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners[shard] = o
	c.wake()
}

// wake wakes those who wait for owners to change. The caller holds mu.
func (c *Coordinator) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// campaign waits for the key of a shard's owner to be free, and takes it. It returns its create revision.
func (c *Coordinator) campaign(ctx context.Context, shard int, lease store.Lease) (fence int64, err error) {
	key, me := journal.OwnerKey(shard), journal.Owner{Name: c.config.Name, Addr: c.config.Addr}
	take := store.Txn{If: []store.Compare{store.Absent(key)}, Then: []store.Op{store.PutLeased(key, me.Value(), lease.ID)}}
	for {
		r, err := c.config.Store.Txn(ctx, take)
		if err != nil {
			return 0, err // one that is taken all the same ends with the lease
		}
		if r.Held {
			return r.Revision, nil
		}
		if c.config.Alone {
			if err := c.evict(ctx, key); err != nil {
				return 0, err
			}
			continue
		}
		if err := c.awaitFree(ctx, shard, r.Revision+1); err != nil {
			return 0, err
		}
	}
}

// evict revokes the lease of an owner that is gone, by which its key goes, too.
func (c *Coordinator) evict(ctx context.Context, key string) error {
	e, err := c.config.Store.Get(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case e.Lease == 0: // somebody has put it there by hand
		_, err = c.config.Store.Txn(ctx, store.Txn{Then: []store.Op{store.Delete(key)}})
		return err
	}
	if err := c.config.Store.Revoke(ctx, e.Lease); !errors.Is(err, store.ErrLeaseNotFound) {
		return err
	}
	return nil // it has ended meanwhile
}

// awaitFree waits for the key of a shard's owner to be deleted, from a revision on. Meanwhile it is known here who that is.
func (c *Coordinator) awaitFree(ctx context.Context, shard int, from int64) error {
	key := journal.OwnerKey(shard)
	w, err := c.config.Store.Watch(ctx, key, from)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := c.learn(ctx, shard); err != nil {
		return err
	}
	defer c.note(shard, nil)
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

// ask has f called by the loop of a saga's shard, and waits until f's answer is called.
func (c *Coordinator) ask(ctx context.Context, id string, f func(o *owner, answer func(error))) error {
	o, err := c.owner(ctx, id)
	if err != nil {
		return err
	}
	answered := make(chan error, 1)
	err = o.post(ctx, func() {
		if o.stopping {
			answered <- ErrNotOwner
			return
		}
		f(o, func(err error) { answered <- err })
	})
	if err != nil {
		return err
	}
	select {
	case err := <-answered:
		return o.confirm(ctx, err)
	case <-o.done:
		select {
		case err := <-answered:
			return o.confirm(ctx, err)
		default:
			return ErrChanging
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}

// confirm returns an error by which nothing was done, or ErrNotOwner if who said so may have slept while others went on with the shard.
func (o *owner) confirm(ctx context.Context, err error) error {
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, saga.ErrVerb) {
		return err
	}
	switch mine := o.journal.Mine(ctx); {
	case errors.Is(mine, journal.ErrDeposed):
		return ErrNotOwner
	case mine != nil:
		return mine
	}
	return err
}

// Start starts a saga, and returns when that is durable, with the saga as it is then, or nil if Get has to be asked. Starting one again that is there is the same as starting it once: whose outcome is not known may
// be started again. The errors are saga.Faults, ErrConflict, ErrFull, ErrNotOwner, and those of the context.
func (c *Coordinator) Start(ctx context.Context, d *saga.Definition) (*View, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	text, d, err := stored(d)
	if err != nil {
		return nil, err
	}
	trace := c.config.Trace(ctx)
	var v *View
	if err := c.ask(ctx, d.ID, func(o *owner, answer func(error)) {
		o.start(d, text, trace, c.takeRoom, func(err error) {
			if err == nil {
				v = o.view(d.ID)
			}
			answer(err)
		})
	}); err != nil {
		return nil, err
	}
	return v, nil
}

// stored returns a value as it is stored, and as it is read again, so that bodies are the same, byte by byte, for all attempts: without spaces
// between what they are made of, and else as they were written.
func stored[T any](v *T) ([]byte, *T, error) {
	text, err := saga.Marshal(v)
	if err != nil {
		return nil, nil, err
	}
	again := new(T)
	return text, again, json.Unmarshal(text, again)
}

// View is a saga as it is shown.
type View struct {
	Definition *saga.Definition
	saga.Progress
	Results saga.Results
}

// view returns a saga as it is durable, if that is in memory, else nil.
func (o *owner) view(id string) *View {
	e := o.find(id)
	if e == nil || e.live == nil || e.queued || e.writing {
		return nil
	}
	v := &View{Definition: e.live.saga.Definition, Progress: e.live.saga.Progress, Results: maps.Clone(e.live.results)}
	v.Steps = slices.Clone(v.Steps)
	return v
}

// Get returns a saga as it is durable, whoever owns its shard.
func (c *Coordinator) Get(ctx context.Context, id string) (*View, error) {
	j := c.reader(id)
	r, err := j.Record(ctx, id)
	if err != nil {
		return nil, unlessNone(err, id)
	}
	v := &View{Progress: r.Progress}
	if v.Definition, err = j.Definition(ctx, id); err != nil {
		return nil, unlessNone(err, id) // it is forgotten meanwhile
	}
	v.Results, err = j.Results(ctx, id)
	return v, err
}

// reader returns what reads the shard of a saga. All that it reads is durable, and the newest.
func (c *Coordinator) reader(id string) *journal.Reader {
	return journal.NewReader(c.config.Store, c.shardOf(id))
}

// unlessNone returns an error of reading a saga: ErrNotFound if there is none, or can be none with this id.
func unlessNone(err error, id string) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return err
}

// How long an API waits if nobody says how long, and at the most; who wants more asks again.
const (
	DefaultWait = 30 * time.Second
	MaxWait     = 10 * time.Minute
)

// Wait returns when a saga has ended, or is parked, with the saga as it is then, or nil if Get has to be asked.
func (c *Coordinator) Wait(ctx context.Context, id string) (*View, error) {
	o, err := c.owner(ctx, id)
	if err != nil {
		return nil, err
	}
	ended := make(chan waited, 1)
	if err := o.post(ctx, func() { o.wait(id, ended) }); err != nil {
		return nil, err
	}
	select {
	case w := <-ended:
		return w.view, o.confirm(ctx, w.err)
	case <-o.done:
		return nil, ErrChanging
	case <-ctx.Done():
		_ = o.post(context.WithoutCancel(ctx), func() { // or the shard has ended, and all its waiters with it
			if e := o.sagas[id]; e != nil {
				delete(e.waiting, ended)
			}
		})
		return nil, ctx.Err()
	}
}

// waited is what came of waiting.
type waited struct {
	view *View // nil: Get has to be asked
	err  error
}

// wait tells ended when a saga has ended, or is parked.
func (o *owner) wait(id string, ended chan<- waited) {
	e := o.find(id)
	switch {
	case e == nil:
		ended <- waited{err: fmt.Errorf("%w: %s", ErrNotFound, id)}
	case (e.state.Ended() || e.state == saga.Parked) && !e.queued && !e.writing:
		ended <- waited{view: o.view(id)}
	default:
		if e.waiting == nil {
			e.waiting = map[chan<- waited]struct{}{}
		}
		e.waiting[ended] = struct{}{}
	}
}
