// Package policy keeps what operators want of the calls to a service: validated,
// stored under policies/{namespace}/{service}, and seen in memory.
//
// A policy is whole: what it does not say has its default. The service that it is
// for need not exist yet.
//
// The package starts no goroutine.
package policy
