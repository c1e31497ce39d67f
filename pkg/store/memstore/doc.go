// Package memstore is a store.Store in memory: real revisions, history until compaction, leases that expire, watches by
// whole revisions. It passes the same contract tests as etcd, so that a test of anything above the store needs no etcd, and
// under testing/synctest its leases follow the bubble's clock.
//
// It is not a cache and not durable: it is the twin that tests use, with the methods of faults.go to make it fail on demand.
// Listing sorts all keys; it is made for thousands of keys, not millions.
//
// It owns no goroutine. An expiring lease runs on the runtime's timer goroutine; Close stops the timers.
package memstore
