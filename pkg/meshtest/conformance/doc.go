// Package conformance runs suites against the real binary: those of others, since what they
// find, somebody else's client would, the tables of raw messages of pkg/proxy/http1, corpora of smuggled requests (testdata/smuggling) and of malformed
// responses (testdata/responses) of our own, and exchanges that are broken behind every byte. It has no code of its own but its tests, which are run by make
// conformance only: they build what they need and take a minute or two each, that of
// WebSocket with all its cases more (FAIRLEAD_WEBSOCKET_CASES=all).
package conformance
