// Package upstream holds what the proxy knows of the other side: clusters, their
// hosts, and the connections to them.
//
// A [Set] owns the clusters by name, a [Cluster] owns its hosts, a [Host] its load
// counters, breaker and idle connections. All three outlive configuration: a new
// policy or a new list of endpoints changes them in place, so that a reload
// forgets neither load nor failures nor connections.
//
// A request asks its cluster for an [Attempt], uses the host, and reports the
// outcome once; the report is the one place that feeds the load counter and the
// breaker. Which hosts may be picked is published as an immutable picker whenever
// it changes: by configuration, by health, by a breaker that opened, by a timer
// when an open breaker may be probed.
//
// The request and its response go over a [Stream], which the host gives: on a
// connection that lies idle (Take) or on a new one (Dial). What protocol the host
// speaks, only the stream knows; so it also carries the request's deadline.
//
// Idle connections are closed before the host closes them: after a time that is
// learnt from those it did close. One that is closed all the same is found out
// before a request is written to it. A cluster's limit of requests and of
// connections bounds the attempts under way; idle connections make room for new
// ones, and so they do where the set's limit of connections is reached or the process
// has no descriptor left. To one host few are opened at once, and a bounded number of requests wait
// for their turn.
//
// Goroutines: the Set has one, which closes idle connections and ends with Close;
// each Cluster has two timers, which publish its picker.
//
// Times are monotonic nanoseconds, handed in; only a deadline reads the cluster's
// clock. Nothing here routes or retries.
package upstream
