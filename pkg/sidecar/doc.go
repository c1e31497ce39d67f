// Package sidecar assembles the data plane: it is what cmd/sidecar runs, and what
// tests run in process.
//
// [Run] opens the listeners, then starts the members in the order in which they
// need each other; they stop in the reverse order, so that shutting down loses
// nothing: the listeners stop accepting and finish the requests that they have,
// then idle connections are closed, then logs and spans are written out, and the
// admin port is the last to go.
//
// With a bootstrap file the sidecar proxies what the file says, as Envoy would.
package sidecar
