// Package coordinator drives sagas: it owns shards, by election, and goes with each saga of theirs from what is known to what is to be
// called, through the journal.
//
// # Goroutines
//
// Each shard that is owned has one goroutine, its loop, which alone knows and changes its sagas. Others hand it functions (owner.post). A batch of
// the journal is committed by a goroutine of its own, one at a time, while the loop gathers the next: the
// slower the store is, the more goes into a batch. A call has a goroutine for its time; a saga that waits has none.
//
// # Memory
//
// What a waiting saga keeps is an entry: where it stands, and when it goes on. Its definition, results and calls are read again when
// it does.
package coordinator
