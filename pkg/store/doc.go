// Package store is the contract of the revisioned key-value store that holds Fairlead's state, and what is built on the contract
// alone: the Mirror, which follows a prefix in memory, and KeepAlive, which holds a lease.
//
// # The contract
//
// Every write has a place in one total order, its revision. A listing in pages is of one revision; a Watch delivers every later
// revision once, in order and whole; a transaction compares and writes at one revision. So a reader that lists at r and
// watches from r+1 knows all that happened and nothing twice. Package storetest is the contract as tests, and every
// implementation passes it: memstore (in memory, for tests), etcdstore (an etcd cluster), and etcdstore on the etcd that
// etcdembed runs inside the process. The model and the limits are etcd's (https://etcd.io/docs/v3.6/learning/api/), without
// what Fairlead does not need.
//
// A write ends in one of three ways, and a caller must tell them apart: it happened (no error), it surely did not (an error), or
// nobody knows (ErrUnknownOutcome).
//
// # What it is not
//
// It is not a cache, not a queue and not a place for heartbeats, status or audit trails: what changes without an operator or
// an instance coming or going does not belong here. It knows nothing of what the values mean.
//
// # Keys
//
// All keys start with Root; who owns which part below is written in the packages that own them. Values are documents that
// etcdctl can write and read.
//
// # Goroutines
//
// This package starts none. Mirror.Run and KeepAlive block, and the caller owns the goroutines they run on. The
// implementations say what they own.
package store
