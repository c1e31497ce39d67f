package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
)

const (
	// askAgain is the pause before a replica is asked again, unless the shard's owner changes before.
	askAgain = 50 * time.Millisecond
	// listAgain is that of a list, for which all are asked.
	listAgain = 200 * time.Millisecond
	// maxAskAgain is the longest pause of who waits, who asks on for as long as that.
	maxAskAgain = 2 * time.Second
)

// Replicas is the sagas of all replicas that share a store. What another owns is passed on to it. Where nobody owns it, or who does is not reached or has ended,
// it is tried on for coordinator.OwnerPatience, verbs only as long as they are surely not done; and for as long as its context lasts by Wait. It is safe for
// concurrent use.
type Replicas struct {
	here   *coordinator.Coordinator
	peers  *peers
	closed chan struct{}
	close  func()
}

// NewReplicas returns the sagas of a coordinator and of those that share its store. Connections to these have the options.
func NewReplicas(c *coordinator.Coordinator, options ...grpc.DialOption) *Replicas {
	r := &Replicas{here: c, peers: newPeers(options), closed: make(chan struct{})}
	r.close = sync.OnceFunc(func() { close(r.closed); r.peers.close() })
	return r
}

// Close ends what was passed on, and closes the connections.
func (r *Replicas) Close() { r.close() }

// Here implements Backend.
func (r *Replicas) Here(context.Context) (*coordinator.Coordinator, error) { return r.here, nil }

// Get returns a saga as it is durable, whoever owns its shard.
func (r *Replicas) Get(ctx context.Context, id string) (*coordinator.View, error) {
	return r.here.Get(ctx, id)
}

// Verbs returns what people did to a saga, in order.
func (r *Replicas) Verbs(ctx context.Context, id string) ([]coordinator.Verb, error) {
	return r.here.Verbs(ctx, id)
}

// Start is [coordinator.Coordinator.Start].
func (r *Replicas) Start(ctx context.Context, d *saga.Definition) (v *coordinator.View, err error) {
	here := func() (err error) {
		v, err = r.here.Start(ctx, d)
		return err
	}
	err = r.ask(ctx, true, here, func(ctx context.Context, c sagav1.SagasClient) error {
		_, err := c.Start(ctx, &sagav1.StartRequest{Saga: definition(d)})
		return err
	})
	return v, err
}

// Do is [coordinator.Coordinator.Do].
func (r *Replicas) Do(ctx context.Context, id string, v coordinator.Verb) error {
	if err := known(id); err != nil {
		return err
	}
	return r.ask(ctx, false, func() error { return r.here.Do(ctx, id, v) }, func(ctx context.Context, c sagav1.SagasClient) error {
		return verbTo(ctx, c, id, v)
	})
}

// known returns coordinator.ErrNotFound of what is not UTF-8: no saga is called so, and it cannot be passed on.
func known(id string) error {
	if utf8.ValidString(id) {
		return nil
	}
	return fmt.Errorf("%w: %q", coordinator.ErrNotFound, id)
}

// ask asks the owner of a shard: here, or there if here says that it is another. twice says that asking twice does no harm.
func (r *Replicas) ask(ctx context.Context, twice bool, here func() error, there func(context.Context, sagav1.SagasClient) error) error {
	limit := time.Now().Add(coordinator.OwnerPatience)
	for {
		err := here()
		var e *coordinator.ElsewhereError
		if errors.As(err, &e) {
			err = r.pass(ctx, e, passing{}, there)
		}
		if !errors.Is(err, coordinator.ErrNotOwner) && !(twice && isLost(err)) || !time.Now().Before(limit) || !r.pause(ctx, e, askAgain) {
			return err
		}
	}
}

// isLost reports whether what was asked may or may not have been done.
func isLost(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, coordinator.ErrChanging)
}

// pause waits before a shard's owner is asked again: until it is known not to be e's any more, at the longest for a time. It reports whether to ask.
func (r *Replicas) pause(ctx context.Context, e *coordinator.ElsewhereError, longest time.Duration) bool {
	var over <-chan struct{}
	if e != nil {
		over = e.Over()
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
	case <-ctx.Done():
		return false
	case <-r.closed:
		return false
	}
	return true
}

// Wait returns when a saga has ended, or is parked, however often its shard changes its owner meanwhile.
func (r *Replicas) Wait(ctx context.Context, id string) (*coordinator.View, error) {
	if err := known(id); err != nil {
		return nil, err
	}
	for pause := askAgain; ; pause = min(2*pause, maxAskAgain) {
		v, err := r.here.Wait(ctx, id)
		var e *coordinator.ElsewhereError
		if errors.As(err, &e) {
			err = r.pass(ctx, e, passing{wait: true}, func(ctx context.Context, c sagav1.SagasClient) error {
				_, err := c.Wait(ctx, &sagav1.WaitRequest{Id: id})
				return err
			})
		}
		if !errors.Is(err, coordinator.ErrNotOwner) && !isLost(err) {
			return v, err
		}
		// Nobody was asked who knows, and the store may know enough.
		switch v, found := r.here.Get(ctx, id); {
		case errors.Is(found, coordinator.ErrNotFound):
			return nil, found
		case found == nil && (v.State.Ended() || v.State == saga.Parked):
			return v, nil
		}
		if !r.pause(ctx, e, pause) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, err
		}
	}
}

// List returns sagas by id. more says that there are others behind the last. ErrNotOwner: a shard has no owner, or none that is reached.
func (r *Replicas) List(ctx context.Context, q coordinator.Query) (found []coordinator.Summary, more bool, err error) {
	if q.Limit <= 0 || q.Limit > coordinator.MaxPage {
		q.Limit = coordinator.DefaultPage
	}
	// What is no UTF-8 cannot be passed on, and is in no saga.
	q.After, q.Label, q.Value = strings.ToValidUTF8(q.After, "\uFFFD"), strings.ToValidUTF8(q.Label, "\uFFFD"), strings.ToValidUTF8(q.Value, "\uFFFD")
	limit := time.Now().Add(coordinator.OwnerPatience)
	for {
		found, more, err = r.list(ctx, q)
		if !errors.Is(err, coordinator.ErrNotOwner) && !isLost(err) || !time.Now().Before(limit) || !r.pause(ctx, nil, listAgain) {
			return found, more, err
		}
	}
}

// list asks each owner once.
func (r *Replicas) list(ctx context.Context, q coordinator.Query) ([]coordinator.Summary, bool, error) {
	places, err := r.here.Places(ctx)
	if err != nil {
		return nil, false, err
	}
	var mine []int
	theirs := map[journal.Owner][]int{}
	for shard, e := range places {
		if e == nil {
			mine = append(mine, shard)
		} else {
			theirs[e.Owner] = append(theirs[e.Owner], shard)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		pages []page // guarded by mu
	)
	add := func(sagas []coordinator.Summary, more bool, err error) {
		if err != nil {
			cancel(err) // the others need not go on
			return
		}
		mu.Lock()
		defer mu.Unlock()
		pages = append(pages, page{sagas, more})
	}
	for _, shards := range theirs {
		all.Go(func() { add(r.listAt(ctx, places[shards[0]], shards, q)) })
	}
	if len(mine) > 0 {
		add(r.here.ListOf(ctx, q, mine))
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	found, more := merge(pages, q.Limit)
	return found, more, nil
}

// listAt asks a replica for the sagas of shards that it owns.
func (r *Replicas) listAt(ctx context.Context, e *coordinator.ElsewhereError, shards []int, q coordinator.Query) (found []coordinator.Summary, more bool, err error) {
	names := make([]string, len(shards))
	for i, shard := range shards {
		names[i] = strconv.Itoa(shard)
	}
	err = r.pass(ctx, e, passing{shards: strings.Join(names, ",")}, func(ctx context.Context, c sagav1.SagasClient) error {
		answer, err := c.List(ctx, &sagav1.ListRequest{
			State: states().schema(q.State), Label: q.Label, Value: q.Value, After: q.After, Limit: int32(q.Limit), //nolint:gosec // 1000 at the most
		})
		for _, s := range answer.GetSagas() {
			found = append(found, summaryOf(s))
		}
		more = answer.GetAfter() != "" && len(found) > 0
		return err
	})
	return found, more, err
}

// passing says what is passed on.
type passing struct {
	shards string // of a list: which
	wait   bool
}

// pass passes a call on to the replica that owns a shard, once, and no longer than that is so. What surely did not reach it matches coordinator.ErrNotOwner.
func (r *Replicas) pass(ctx context.Context, e *coordinator.ElsewhereError, what passing, f func(context.Context, sagav1.SagasClient) error) error {
	if e.Owner.Addr == "" {
		return e
	}
	conn, done, err := r.peers.take(e.Owner.Addr, what.wait)
	if err != nil {
		return &said{fmt.Sprintf("replica %s at %q: %v", e.Owner.Name, e.Owner.Addr, err), coordinator.ErrNotOwner}
	}
	defer done()
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-e.Over():
			cancel()
		case <-call.Done():
		}
	}()
	var sent atomic.Bool
	err = f(context.WithValue(metadata.AppendToOutgoingContext(call, mark, what.shards), sentKey{}, &sent), sagav1.NewSagasClient(conn))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !sent.Load():
		return &said{fmt.Sprintf("replica %s, which owns the saga's shard, is not reached at %s: %s", e.Owner.Name, e.Owner.Addr, status.Convert(err).Message()), coordinator.ErrNotOwner}
	case call.Err() != nil:
		return coordinator.ErrChanging
	}
	if err = errorOf(err); errors.Is(err, errLost) {
		err = &said{fmt.Sprintf("replica %s, which owns the saga's shard, at %s: %v", e.Owner.Name, e.Owner.Addr, err), errLost}
	}
	return err
}
