package store

import (
	"context"
	"time"
)

// Limits of one request. They are etcd's defaults (server/embed/config.go: DefaultMaxRequestBytes, DefaultMaxTxnOps), and
// every implementation enforces them, so that a program tested on the in-memory store does not meet them first in production.
const (
	// Root is the prefix of every key Fairlead writes. Keys and prefixes outside it are refused with ErrInvalid, so that no
	// mistake can list or delete what another program keeps in the same etcd.
	Root = "/fairlead/v1/"
	// MaxKeyBytes bounds one key, Root included.
	MaxKeyBytes = 1024
	// MaxRequestBytes bounds one transaction: 1.5 MiB, the sum of keys, values and RequestOverhead per compare and operation.
	MaxRequestBytes = 1536 * 1024
	// MaxTxnOps bounds the compares and, separately, the operations of one transaction.
	MaxTxnOps = 128
	// RequestOverhead is what one compare or operation counts for beside its key and value, in bytes: the protobuf framing of
	// etcd's InternalRaftRequest (tags, lengths, revision, lease), rounded up.
	RequestOverhead = 64
	// MaxPageSize bounds ListRequest.Limit. A page is a single message on the wire; large ones delay everything behind them.
	MaxPageSize = 1000
	// DefaultPageSize is used when ListRequest.Limit is 0.
	DefaultPageSize = 500
	// MaxTTL bounds the life of a lease without renewal.
	MaxTTL = 24 * time.Hour
)

// Entry is one key with its value and history. The Value of an Entry that a Store returned is shared: do not modify it.
type Entry struct {
	Key   string
	Value []byte
	// CreateRevision is the revision that brought the key into being (again, after a deletion).
	CreateRevision int64
	// ModRevision is the revision of the last write.
	ModRevision int64
	// Version counts the writes since CreateRevision; the first write makes it 1.
	Version int64
	// Lease is the lease that keeps the key alive, or 0.
	Lease LeaseID
}

// LeaseID names a lease. 0 is no lease.
type LeaseID int64

// Lease is a granted lease.
type Lease struct {
	ID LeaseID
	// TTL is what the store granted: at least what was asked for, in whole seconds. etcd raises short ones to its minimum of
	// 1.5 election timeouts.
	TTL time.Duration
}

// LeaseStatus describes a living lease.
type LeaseStatus struct {
	ID        LeaseID
	Granted   time.Duration
	Remaining time.Duration // whole seconds, as of the answer
	Keys      []string      // attached keys, ascending
}

// Head is where the store stands.
type Head struct {
	// ClusterID tells one store from another. Revisions of different ClusterIDs have nothing to do with each other.
	ClusterID uint64
	// Revision is the newest revision. The first write of an empty store makes it 2, as in etcd.
	Revision int64
}

// Size is the space the store takes.
type Size struct {
	// Bytes is the size of the data file, free pages included; it is what Quota limits.
	Bytes int64
	// InUse is Bytes less the free pages: what would remain after defragmentation.
	InUse int64
	// Quota is the limit on Bytes, beyond which writes fail with ErrNoSpace. 0: none known.
	Quota int64
}

// ListRequest asks for one page of the keys under Prefix, in ascending order.
type ListRequest struct {
	Prefix string
	// After is the last key of the page before; it is not part of the answer. Empty starts at the beginning.
	After string
	// Revision pins the page to a revision: pass the first page's Page.Revision for the pages after it, and together they are
	// the state at that one revision. 0 is the newest, read linearizably.
	Revision int64
	// Limit is the most entries to return: 1 to MaxPageSize; 0 means DefaultPageSize.
	Limit int
}

// Page is one page of a listing.
type Page struct {
	Entries []Entry
	// ClusterID is the store that answered.
	ClusterID uint64
	// Revision is the revision the page shows: the requested one, or the newest if that was 0.
	Revision int64
	// More says that keys after the last of Entries exist.
	More bool
}

// Batch is one revision's changes under a prefix: all of them, never a part. No key occurs twice in one Batch, so the order of
// Puts and Deletes in it does not matter. A Batch without changes is a bookmark: everything up to and including Revision has
// been delivered.
type Batch struct {
	// ClusterID is the store that sent the batch.
	ClusterID uint64
	Revision  int64
	Puts      []Entry
	Deletes   []string // keys
	// Synthetic marks a batch that a Mirror computed by comparing a new listing with its memory: it stands for any number of
	// revisions that could not be followed one by one. Its Revision may be lower than the one before, or ClusterID another,
	// if the store was replaced or restored from a backup. A Store's own Watch never sets it.
	Synthetic bool
}

// Bookmark reports whether the batch carries no change.
func (b Batch) Bookmark() bool { return len(b.Puts) == 0 && len(b.Deletes) == 0 }

// Store is a revisioned key-value store: every write has a place in one total order, the revision, and a reader can ask for the
// state at a revision and for all that happened since.
//
// Errors are those of this package, wrapped with the cause. A write whose error matches ErrUnknownOutcome may or may not have
// happened; every other error of a write says that it surely did not.
//
// Every method is safe for concurrent use and honours its context; without a deadline it can block for as long as the store
// is unreachable.
type Store interface {
	// Get returns the newest entry of key, read linearizably, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns one page. A pinned revision that was compacted is a *CompactedError; one that does not exist yet is
	// ErrFutureRevision.
	List(ctx context.Context, r ListRequest) (Page, error)
	// Txn applies all operations if all compares hold, and none otherwise, at one revision. See Txn.Validate for what is
	// refused before sending.
	Txn(ctx context.Context, t Txn) (TxnResult, error)

	// Grant makes a lease that lives ttl from its last renewal; ttl is 1 s to MaxTTL and is rounded up to whole seconds.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	// Renew prolongs a lease to its full TTL, once. A lease that expired or was revoked is ErrLeaseNotFound. KeepAlive (the
	// function) renews for as long as its context lives.
	Renew(ctx context.Context, id LeaseID) (Lease, error)
	// Revoke ends a lease and deletes its keys, at one revision. ErrLeaseNotFound if it is not alive.
	Revoke(ctx context.Context, id LeaseID) error
	// TimeToLive describes a lease, or fails with ErrLeaseNotFound.
	TimeToLive(ctx context.Context, id LeaseID) (LeaseStatus, error)

	// Watch follows the changes under prefix from the revision from on, which is included; 0 means what comes next. It
	// returns once the store has accepted the watch. If the state before from, revision from-1, was compacted, Watch or the
	// first Next fails with a *CompactedError: who resumes after revision r passes r+1 and needs r to be listable. A from
	// beyond the newest revision but one is allowed and waits for it; until then RequestProgress has no answer. The context
	// governs the setting up and the whole life of the watch.
	Watch(ctx context.Context, prefix string, from int64) (Watch, error)

	// Compact forgets the history before revision: listing or watching from an earlier one fails with a *CompactedError.
	Compact(ctx context.Context, revision int64) error
	// Head returns the cluster id and the newest revision, read linearizably: success proves that the store can serve.
	Head(ctx context.Context) (Head, error)
	// Size returns the space taken, as one member of the store sees it.
	Size(ctx context.Context) (Size, error)

	// Close ends the watches and releases the connections. Leases live on until they expire.
	Close() error
}

// Watch delivers batches in ascending order of revision: every revision that changed something under the prefix exactly once,
// and bookmarks between. Only one goroutine may call Next at a time; the other methods are safe for concurrent use.
//
// There is no queue of unbounded length behind a Watch: a reader that does not call Next holds back the store's sending, and
// if it stays away until the history it needs is compacted, Next says so.
type Watch interface {
	// Next blocks until the next batch. If ctx ends first it returns ctx's error, nothing is lost, and Next may be called
	// again. Any other error is final: *CompactedError if the history is gone, ErrUnavailable if the connection or the leader
	// was lost, ErrClosed after Close.
	Next(ctx context.Context) (Batch, error)
	// RequestProgress asks for a bookmark of the newest revision. It comes through Next once everything before it was
	// delivered, and only then, so an answer that stays away means that the watch lags or hangs. It does not wait.
	RequestProgress() error
	// Close ends the watch and waits until its resources are released.
	Close() error
}
