// Package journal is the durable log of sagas, on the contract of package store.
//
// # Keys
//
// Below store.Root + "sagas/", where NN is a shard:
//
//	shards/NN/owner        who owns the shard (Owner), under its lease; the key's create revision is the fence
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

// Owner is the value of the key of who owns a shard, as JSON.
type Owner struct {
	// Name is unique among the replicas.
	Name string `json:"name"`
	// Addr is the host:port where others reach its gRPC API; empty: they do not.
	Addr string `json:"addr,omitempty"`
}

// Value returns what is written of an owner.
func (o Owner) Value() []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // it is made of texts
	}
	return text
}

// ReadOwner reads who owns a shard; store.ErrNotFound if nobody does. A value that is no JSON is a name alone, which is how it once was.
func ReadOwner(ctx context.Context, s store.Store, shard int) (o Owner, err error) {
	e, err := s.Get(ctx, OwnerKey(shard))
	if err != nil {
		return o, err
	}
	if json.Valid(e.Value) {
		err = json.Unmarshal(e.Value, &o)
	} else {
		o.Name = string(e.Value)
	}
	return o, err
}

// Reader reads one shard, whoever owns it. It is safe for concurrent use.
type Reader struct {
	store store.Store
	shard int
}

// NewReader returns what reads a shard.
func NewReader(s store.Store, shard int) *Reader { return &Reader{s, shard} }

// Journal writes and reads one shard for the one who owns it. Commit is for one goroutine at a time.
type Journal struct {
	*Reader
	fence  int64
	number uint64 // of batches that are written
}

// Open returns the journal of a shard for the owner whose key was created at the revision fence.
func Open(ctx context.Context, s store.Store, shard int, fence int64) (*Journal, error) {
	j := &Journal{Reader: NewReader(s, shard), fence: fence}
	n, err := j.written(ctx)
	j.number = n
	return j, err
}

// Fence returns a number that is higher for each owner of the shard than for those before it.
func (j *Journal) Fence() int64 { return j.fence }

func (r *Reader) batchKey() string { return fmt.Sprintf("%sshards/%02d/batch", root, r.shard) }

func (r *Reader) key(kind, name string) string {
	return fmt.Sprintf("%s%02d/%s/%s", root, r.shard, kind, name)
}

// written reads how many batches there are.
func (r *Reader) written(ctx context.Context) (uint64, error) {
	e, err := r.store.Get(ctx, r.batchKey())
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

// Head is what is known of a saga's definition without reading it.
type Head struct {
	// Digest is of all of it, for those who start a saga again.
	Digest string `json:"digest"`
	// Labels are hashes of its labels, for those who look for one.
	Labels []uint32 `json:"labels,omitempty"`
}

// Record is where a saga stands.
type Record struct {
	Head
	saga.Progress
}

// Progress writes where a saga stands. What is too long of it for saga.MaxProgressBytes is shortened, in p.
func (b *Batch) Progress(id string, h Head, p *saga.Progress) {
	for {
		text, err := json.Marshal(Record{h, *p})
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

// ForgetOps is how many operations Forget is.
const ForgetOps = 5

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
		return j.Mine(ctx)
	default:
		return ErrDeposed
	}
}

// Mine returns ErrDeposed unless the owner's key is still the one of this journal: then its batches alone can have been written, and what its owner knew
// before was so.
func (j *Journal) Mine(ctx context.Context) error {
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
func (r *Reader) Definition(ctx context.Context, id string) (*saga.Definition, error) {
	e, err := r.store.Get(ctx, r.key("definition", id))
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
func (r *Reader) Results(ctx context.Context, id string) (saga.Results, error) {
	return r.under(ctx, r.key("result", id+"/"))
}

// Calls reads what a saga has called, where that was made of results, by the names they were written by.
func (r *Reader) Calls(ctx context.Context, id string) (map[string]json.RawMessage, error) {
	return r.under(ctx, r.key("call", id+"/"))
}

func (r *Reader) under(ctx context.Context, prefix string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	for e, err := range each(ctx, r.store, prefix) {
		if err != nil {
			return nil, err
		}
		all[strings.TrimPrefix(e.Key, prefix)] = e.Value
	}
	return all, nil
}

// Verbs reads what people did to a saga, in order, as JSON.
func (r *Reader) Verbs(ctx context.Context, id string) (verbs []json.RawMessage, err error) {
	for e, err := range each(ctx, r.store, r.key("verb", id+"/")) {
		if err != nil {
			return nil, err
		}
		verbs = append(verbs, e.Value)
	}
	return verbs, nil
}

// Record reads where a saga stands; store.ErrNotFound if there is no such saga.
func (r *Reader) Record(ctx context.Context, id string) (Record, error) {
	var found Record
	e, err := r.store.Get(ctx, r.key("progress", id))
	if err != nil {
		return found, err
	}
	if err := json.Unmarshal(e.Value, &found); err != nil {
		return found, fmt.Errorf("journal: key %s: %w", e.Key, err)
	}
	return found, nil
}

// Load calls f with where each saga of the shard stands. An error of f ends it.
func (r *Reader) Load(ctx context.Context, f func(id string, r Record) error) error {
	prefix := r.key("progress", "")
	for e, err := range each(ctx, r.store, prefix) {
		if err != nil {
			return err
		}
		var found Record
		if err := json.Unmarshal(e.Value, &found); err != nil {
			return fmt.Errorf("journal: key %s: %w", e.Key, err)
		}
		if err := f(strings.TrimPrefix(e.Key, prefix), found); err != nil {
			return err
		}
	}
	return nil
}
