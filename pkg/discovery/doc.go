// Package discovery is the service registry: which instances of which services
// live, kept in the store, seen in memory.
//
// [Registry] writes. An instance registered with a time to live has a lease of its
// own in the store, which ends with it or when it is replaced. An instance that a
// sidecar attached has none: the stream that the sidecar holds is its liveness, so
// heartbeats never reach the store; its record names the replica of the control
// plane that holds the stream, and which of that replica's attachments it is (the
// epoch), so that an old stream's end cannot remove what a new one has registered.
// Any other program may write an instance under the documented key, with a lease of
// its own, which is never revoked here: see docs/registry.md.
//
// [Registry.Run] owns the goroutines of a registry and waits for them: one that
// keeps the replica's own key, one that notices when the process was frozen, and one
// for each lost stream until its instance is removed. Nothing else here starts any.
//
// [View] reads: it is fed with what the store's mirror delivers and answers from
// memory, whether the store can be reached or not. A service outlives its instances: known and empty is not unknown.
//
// [Watcher] follows the view for clients of the API: a snapshot, then every
// revision whole, from a bounded history that all watchers share. One that falls
// behind the history is told so and holds up nobody.
package discovery
