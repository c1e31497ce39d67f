// Package etcdstore is a store.Store on an etcd cluster, 3.6 or later.
//
// It keeps three connections: one for single keys, transactions and leases, one for listings and one for watches, because a
// large answer delays everything behind it on a shared HTTP/2 connection (etcd issue 15402). With a user there is a fourth, without
// the user's token, to fetch a new one.
//
// Watches use etcd's Watch RPC itself, one stream each, and not the client library's watcher. That one resumes by itself on
// whichever server it finds, even one that was restored from an older backup, and queues without bound for a slow reader; here a
// broken stream ends the watch, so that store.Mirror can look where it is before it resumes, and a slow reader holds back the
// server through HTTP/2 flow control.
//
// Each Watch owns one goroutine, ended by Watch.Close, by its context and by Store.Close, which waits for it. The client library
// and gRPC own theirs; Store.Close ends them.
package etcdstore
