package coordinator

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Sagas is what can be asked of sagas: of those that a Coordinator owns, or of those of all replicas. The errors are those that are said of the methods of
// Coordinator. It is safe for concurrent use.
type Sagas interface {
	Start(ctx context.Context, d *saga.Definition) (*View, error)
	Get(ctx context.Context, id string) (*View, error)
	Verbs(ctx context.Context, id string) ([]Verb, error)
	Wait(ctx context.Context, id string) (*View, error)
	List(ctx context.Context, q Query) (page []Summary, more bool, err error)
	Do(ctx context.Context, id string, v Verb) error
}

// ElsewhereError says that another replica owns the shard of a saga, and so nothing was done here. It matches ErrNotOwner.
type ElsewhereError struct {
	// Owner is that replica, as it says of itself.
	Owner journal.Owner
	over  chan struct{}
}

// Error says who it is.
func (e *ElsewhereError) Error() string {
	if e.Owner.Addr == "" {
		return fmt.Sprintf("the saga's shard is owned by replica %s, which does not say where others reach it: that is its --saga-peer-addr", e.Owner.Name)
	}
	return fmt.Sprintf("the saga's shard is owned by replica %s at %s: ask again", e.Owner.Name, e.Owner.Addr)
}

// Is makes it match ErrNotOwner.
func (e *ElsewhereError) Is(target error) bool { return target == ErrNotOwner }

// Over is closed when it is known here that this replica does not own the shard any more.
func (e *ElsewhereError) Over() <-chan struct{} { return e.over }

// learn reads who owns a shard that is not owned here.
func (c *Coordinator) learn(ctx context.Context, shard int) error {
	o, err := journal.ReadOwner(ctx, c.config.Store, shard)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	case o.Name == c.config.Name, o.Addr != "" && o.Addr == c.config.Addr: // this one, before it lost its lease, or was started again
	default:
		c.note(shard, &ElsewhereError{Owner: o, over: make(chan struct{})})
	}
	return nil
}

// note notes who else owns a shard; nil: nobody does that is known of.
func (c *Coordinator) note(shard int, e *ElsewhereError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.elsewhere[shard]; before != nil {
		close(before.over)
	}
	c.elsewhere[shard] = e
	c.wake()
}

// shardOf returns the shard of a saga.
func (c *Coordinator) shardOf(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))                      // never fails
	return int(h.Sum32() % uint32(c.config.Shards)) //nolint:gosec // 64 at the most
}

// OwnerPatience is how long who asks waits for a shard that has no owner, as at the start.
const OwnerPatience = 2 * time.Second

// ownersOf returns who owns shards, all of them here, or an ElsewhereError of the first that is not. It waits for those that have none: that is ErrNotOwner
// behind OwnerPatience.
func (c *Coordinator) ownersOf(ctx context.Context, shards ...int) ([]*owner, error) {
	limit := time.NewTimer(OwnerPatience)
	defer limit.Stop()
	owners := make([]*owner, 0, len(shards))
	for len(owners) < len(shards) {
		shard := shards[len(owners)]
		c.mu.Lock()
		o, other, changed := c.owners[shard], c.elsewhere[shard], c.changed
		c.mu.Unlock()
		if o != nil {
			owners = append(owners, o)
			continue
		}
		if other != nil {
			return nil, other
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, ErrNotOwner
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return owners, nil
}

// owner returns who owns the shard of a saga, here.
func (c *Coordinator) owner(ctx context.Context, id string) (*owner, error) {
	owners, err := c.ownersOf(ctx, c.shardOf(id))
	if err != nil {
		return nil, err
	}
	return owners[0], nil
}

// all returns all shards.
func (c *Coordinator) all() []int {
	shards := make([]int, c.config.Shards)
	for i := range shards {
		shards[i] = i
	}
	return shards
}

// Places returns who else owns each shard: nil of those that are owned here. It waits for those that have no owner, as Start does, and the errors are those
// of Start.
func (c *Coordinator) Places(ctx context.Context) ([]*ElsewhereError, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, OwnerPatience, ErrNotOwner)
	defer cancel()
	places := make([]*ElsewhereError, c.config.Shards)
	for _, shard := range c.all() {
		_, err := c.ownersOf(ctx, shard)
		if err != nil && !errors.As(err, &places[shard]) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
	}
	return places, nil
}

// Shards returns how many there are.
func (c *Coordinator) Shards() int { return c.config.Shards }
