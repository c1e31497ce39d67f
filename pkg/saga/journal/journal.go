// Package journal is the durable log of sagas, on the contract of package store.
//
// # Keys
//
// Below store.Root + "sagas/", where NN is a shard:
//
//	shards/NN/owner        who owns the shard, under its lease; the key's create revision is the fence
//	shards/NN/batch        how many batches its owners have written, in decimal
//	NN/definition/ID       a saga as it was submitted
//	NN/progress/ID         where it stands
//	NN/result/ID/STEP      what the action of a step answered
//	NN/call/ID/STEP/WHAT   what is called, where it is made of results: action or compensate
//	NN/verb/ID/NUMBER      what a person did to it
//
// Only the owner of a shard writes below NN, and only in batches. Each compares the create revision of the owner's key, and the
// number of batches, which it increments. So an owner that was deposed, or slept while it was, writes nothing, and a batch
// whose outcome was not known is written once, or not at all, and never later than the one behind it.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

const root = store.Root + "sagas/"

// ErrDeposed says that the shard has another owner, or none, and that nothing more can be written. Whether the batch was, its successor
// finds.
var ErrDeposed = errors.New("journal: the shard has another owner")

// OwnerKey is the key of who owns a shard.
func OwnerKey(shard int) string { return fmt.Sprintf("%sshards/%02d/owner", root, shard) }

// The bounds of a batch, which leave room in a transaction for what it compares, and for its number.
const (
	MaxBatchOps   = 120
	MaxBatchBytes = 1 << 20
)

// Journal writes and reads one shard for the one who owns it. Commit is for one goroutine at a time; what reads is for any.
type Journal struct {
	store  store.Store
	shard  int
	fence  int64
	number uint64 // of batches that are written
}

// Open returns the journal of a shard for the owner whose key was created at the revision fence.
func Open(ctx context.Context, s store.Store, shard int, fence int64) (*Journal, error) {
	j := &Journal{store: s, shard: shard, fence: fence}
	n, err := j.written(ctx)
	j.number = n
	return j, err
}

// Fence returns a number that is higher for each owner of the shard than for those before it.
func (j *Journal) Fence() int64 { return j.fence }

func (j *Journal) batchKey() string { return fmt.Sprintf("%sshards/%02d/batch", root, j.shard) }

func (j *Journal) key(kind, name string) string {
	return fmt.Sprintf("%s%02d/%s/%s", root, j.shard, kind, name)
}

// written reads how many batches there are.
func (j *Journal) written(ctx context.Context) (uint64, error) {
	e, err := j.store.Get(ctx, j.batchKey())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	}
	n, err := strconv.ParseUint(string(e.Value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("journal: key %s: %w", e.Key, err)
	}
	return n, nil
}

// Batch gathers what is written together.
type Batch struct {
	journal *Journal
	ops     []store.Op
	bytes   int
}

// NewBatch returns an empty one.
func (j *Journal) NewBatch() *Batch { return &Batch{journal: j} }

// Len returns how many keys it writes.
func (b *Batch) Len() int { return len(b.ops) }

// Has reports whether there is room for so many keys more, with so many bytes.
func (b *Batch) Has(ops, bytes int) bool {
	return len(b.ops)+ops <= MaxBatchOps && b.bytes+bytes+ops*(store.MaxKeyBytes/2) <= MaxBatchBytes
}

func (b *Batch) put(key string, value []byte) {
	b.ops = append(b.ops, store.Put(key, value))
	b.bytes += len(key) + len(value) + store.RequestOverhead
}

// Define writes a saga's definition, as JSON.
func (b *Batch) Define(id string, definition []byte) {
	b.put(b.journal.key("definition", id), definition)
}

// Record is where a saga stands.
type Record struct {
	// Digest is of its definition, so that who starts a saga again need not read that.
	Digest string `json:"digest"`
	saga.Progress
}

// Progress writes where a saga stands. What is too long of it for saga.MaxProgressBytes is shortened, in p.
func (b *Batch) Progress(id, digest string, p *saga.Progress) {
	for {
		text, err := json.Marshal(Record{Digest: digest, Progress: *p})
		if err != nil {
			panic(err) // it is made of texts and numbers
		}
		if len(text) <= saga.MaxProgressBytes || !p.Shorten() {
			b.put(b.journal.key("progress", id), text)
			return
		}
	}
}

// Result writes what the action of a step answered.
func (b *Batch) Result(id, step string, result json.RawMessage) {
	b.put(b.journal.key("result", id+"/"+step), result)
}

// Call writes what is called, as JSON: all attempts are the same. name is the step's, a slash, and action or compensate.
func (b *Batch) Call(id, name string, call []byte) { b.put(b.journal.key("call", id+"/"+name), call) }

// Verb writes what a person did, as JSON. number is from 1, in the order of doing.
func (b *Batch) Verb(id string, number int, verb []byte) {
	b.put(b.journal.key("verb", fmt.Sprintf("%s/%06d", id, number)), verb)
}

// Forget deletes all of a saga.
func (b *Batch) Forget(id string) {
	for _, op := range []store.Op{
		store.Delete(b.journal.key("definition", id)), store.Delete(b.journal.key("progress", id)),
		store.DeletePrefix(b.journal.key("result", id+"/")), store.DeletePrefix(b.journal.key("call", id+"/")),
		store.DeletePrefix(b.journal.key("verb", id+"/")),
	} {
		b.ops = append(b.ops, op)
		b.bytes += len(op.Key) + store.RequestOverhead
	}
}

// retryAfter is the pause before a write that surely did not happen is tried again.
const retryAfter = 50 * time.Millisecond

// Commit writes a batch, all or nothing: nil says that it is written. Where the store is not to be reached, or full, it tries on. Behind
// ErrDeposed, or the context's error, nobody here knows: the shard has to be opened anew.
func (j *Journal) Commit(ctx context.Context, b *Batch) error {
	number := store.Absent(j.batchKey())
	if j.number > 0 {
		number = store.ValueIs(j.batchKey(), strconv.AppendUint(nil, j.number, 10))
	}
	txn := store.Txn{
		If:   []store.Compare{store.CreatedAt(OwnerKey(j.shard), j.fence), number},
		Then: append(b.ops, store.Put(j.batchKey(), strconv.AppendUint(nil, j.number+1, 10))),
	}
	for {
		result, err := j.store.Txn(ctx, txn)
		if err == nil && !result.Held {
			// What has it changed? Either the owner, or the number, by a try before of which nothing was known.
			err = j.refused(ctx)
		}
		switch {
		case err == nil:
			j.number++
			return nil
		case errors.Is(err, ErrDeposed), errors.Is(err, store.ErrInvalid), errors.Is(err, store.ErrTooLarge), ctx.Err() != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}

// refused says of a batch whose compares did not hold whether it was written before, which is nil.
func (j *Journal) refused(ctx context.Context) error {
	n, err := j.written(ctx)
	switch {
	case err != nil:
		return err
	case n == j.number+1:
		// Whoever deposed this owner would have counted on; and nobody else writes at this number but this batch, unless
		// it is a successor that began from the same one, whose owner's key is another.
		return j.mine(ctx)
	default:
		return ErrDeposed
	}
}

// mine reports whether the owner's key is still the one of this journal: then its batches alone can have been written.
func (j *Journal) mine(ctx context.Context) error {
	e, err := j.store.Get(ctx, OwnerKey(j.shard))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return ErrDeposed
	case err != nil:
		return err
	case e.CreateRevision != j.fence:
		return ErrDeposed
	}
	return nil
}

// Definition reads what was submitted; store.ErrNotFound if there is no such saga.
func (j *Journal) Definition(ctx context.Context, id string) (*saga.Definition, error) {
	e, err := j.store.Get(ctx, j.key("definition", id))
	if err != nil {
		return nil, err
	}
	d := new(saga.Definition)
	if err := json.Unmarshal(e.Value, d); err != nil {
		return nil, fmt.Errorf("journal: key %s: %w", e.Key, err)
	}
	return d, nil
}

// Results reads what the actions of a saga have answered.
func (j *Journal) Results(ctx context.Context, id string) (saga.Results, error) {
	return j.under(ctx, j.key("result", id+"/"))
}

// Calls reads what a saga has called, where that was made of results, by the names they were written by.
func (j *Journal) Calls(ctx context.Context, id string) (map[string]json.RawMessage, error) {
	return j.under(ctx, j.key("call", id+"/"))
}

func (j *Journal) under(ctx context.Context, prefix string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	for e, err := range each(ctx, j.store, prefix) {
		if err != nil {
			return nil, err
		}
		all[strings.TrimPrefix(e.Key, prefix)] = e.Value
	}
	return all, nil
}

// Verbs reads what people did to a saga, in order, as JSON.
func (j *Journal) Verbs(ctx context.Context, id string) (verbs []json.RawMessage, err error) {
	for e, err := range each(ctx, j.store, j.key("verb", id+"/")) {
		if err != nil {
			return nil, err
		}
		verbs = append(verbs, e.Value)
	}
	return verbs, nil
}

// Record reads where a saga stands; store.ErrNotFound if there is no such saga.
func (j *Journal) Record(ctx context.Context, id string) (Record, error) {
	var r Record
	e, err := j.store.Get(ctx, j.key("progress", id))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return r, fmt.Errorf("journal: key %s: %w", e.Key, err)
	}
	return r, nil
}

// Load calls f with where each saga of the shard stands. An error of f ends it.
func (j *Journal) Load(ctx context.Context, f func(id string, r Record) error) error {
	prefix := j.key("progress", "")
	for e, err := range each(ctx, j.store, prefix) {
		if err != nil {
			return err
		}
		var r Record
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return fmt.Errorf("journal: key %s: %w", e.Key, err)
		}
		if err := f(strings.TrimPrefix(e.Key, prefix), r); err != nil {
			return err
		}
	}
	return nil
}
