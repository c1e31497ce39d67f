// Package conformance runs the suites of others against the real binary: what they find,
// somebody else's client would. It has no code of its own but its tests, which are run by
// make conformance only: they build what they need and take a minute.
package conformance
