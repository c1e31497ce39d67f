package coordinator

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Query says which sagas to list.
type Query struct {
	State saga.State // empty: any
	// Label and Value are of one label; with an empty Label, any saga.
	Label, Value string
	// After is the id of the last saga of the page before.
	After string
	// Limit is how many at the most, 1 to MaxPage; 0 is DefaultPage.
	Limit int
}

// How many sagas a page has at the most, and if nobody says how many.
const (
	MaxPage     = 1000
	DefaultPage = 100
)

// Summary is a saga as a list has it.
type Summary struct {
	ID     string            `json:"id"`
	State  saga.State        `json:"state"`
	Reason string            `json:"reason,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Start  time.Time         `json:"started"`
}

// List returns sagas by id. more says that there are others behind the last. ErrNotOwner: not all shards are owned here.
func (c *Coordinator) List(ctx context.Context, q Query) (page []Summary, more bool, err error) {
	return c.ListOf(ctx, q, c.all())
}

// ListOf is List of the sagas of some shards.
func (c *Coordinator) ListOf(ctx context.Context, q Query, shards []int) (page []Summary, more bool, err error) {
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = DefaultPage
	}
	owners, err := c.ownersOf(ctx, shards...)
	if err != nil {
		return nil, false, err
	}
	if page, more, err = list(ctx, owners, q); err != nil {
		return nil, false, err
	}
	for _, o := range owners { // or one has slept, and knows nothing of what others have taken meanwhile
		switch err := o.journal.Mine(ctx); {
		case errors.Is(err, journal.ErrDeposed):
			return nil, false, ErrNotOwner
		case err != nil:
			return nil, false, err
		}
	}
	return page, more, nil
}

// list lists what owners know of.
func list(ctx context.Context, owners []*owner, q Query) (page []Summary, more bool, err error) {
	for after := q.After; ; {
		ids, of, err := idsOf(ctx, owners, q, after)
		if err != nil {
			return nil, false, err
		}
		for _, id := range ids {
			s, ok, err := summary(ctx, of[id], id, q)
			if err != nil {
				return nil, false, err
			}
			if !ok {
				continue
			}
			if len(page) == q.Limit {
				return page, true, nil
			}
			page = append(page, s)
		}
		if len(ids) < idsAtOnce {
			return page, false, nil
		}
		after = ids[len(ids)-1]
	}
}

// idsAtOnce is how many sagas are looked at before the shards are asked again.
const idsAtOnce = 2 * MaxPage

// idsOf returns the first ids behind one of the sagas that may be asked for, and who owns them.
func idsOf(ctx context.Context, owners []*owner, q Query, after string) ([]string, map[string]*owner, error) {
	of := map[string]*owner{}
	var all []string
	for _, o := range owners {
		found := make(chan []string, 1)
		if err := o.post(ctx, func() { found <- o.ids(q, after) }); err != nil {
			return nil, nil, err
		}
		select {
		case ids := <-found:
			for _, id := range ids {
				of[id] = o
			}
			all = append(all, ids...)
		case <-o.done:
			return nil, nil, ErrChanging
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	slices.Sort(all)
	return all[:min(len(all), idsAtOnce)], of, nil
}

// ids returns the first ids of the shard.
func (o *owner) ids(q Query, after string) []string {
	var ids []string
	label := hashOf(q.Label, q.Value)
	for id, e := range o.sagas {
		if id > after && e.state != "" && (q.State == "" || e.state == q.State) && (q.Label == "" || slices.Contains(e.head.Labels, label)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids[:min(len(ids), idsAtOnce)]
}

// hashOf returns what is kept in memory of a label.
func hashOf(name, value string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name + "=" + value)) // never fails
	return h.Sum32()
}

func hashesOf(labels map[string]string) (hashes []uint32) {
	for name, value := range labels {
		hashes = append(hashes, hashOf(name, value))
	}
	return hashes
}

// summary reads a saga, and reports whether it is one that is asked for.
func summary(ctx context.Context, o *owner, id string, q Query) (Summary, bool, error) {
	d, err := o.journal.Definition(ctx, id)
	if errors.Is(err, store.ErrNotFound) { // forgotten, or not durable yet
		return Summary{}, false, nil
	}
	if err != nil {
		return Summary{}, false, err
	}
	if v, ok := d.Labels[q.Label]; q.Label != "" && (!ok || v != q.Value) {
		return Summary{}, false, nil
	}
	r, err := o.journal.Record(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return Summary{}, false, nil
	}
	if err != nil {
		return Summary{}, false, err
	}
	if q.State != "" && r.State != q.State {
		return Summary{}, false, nil
	}
	return Summary{ID: id, State: r.State, Reason: r.Reason, Labels: d.Labels, Start: time.Unix(0, r.Started).UTC()}, true, nil
}

// ParseState reads a state, or says which there are.
func ParseState(s string) (saga.State, error) {
	all := []saga.State{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Parked}
	if slices.Contains(all, saga.State(s)) || s == "" {
		return saga.State(s), nil
	}
	names := make([]string, len(all))
	for i, state := range all {
		names[i] = string(state)
	}
	return "", errors.New("state is none of " + strings.Join(names, ", "))
}
